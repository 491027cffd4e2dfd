"""Servers that are well, as the engine asks them: what it sends, what it makes of the answers, where calls go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atts_runtime.control.events import ChainId
from atts_runtime.engines import http as http_engine
from atts_runtime.engines import http_pool
from atts_runtime.engines.base import GenerateCall, Generated, Piece, ScoreCall, Scored
from atts_runtime.engines.http import HttpEngine
from atts_runtime.engines.http_server import Servers, Wanted
from atts_runtime.engines.vllm_model import vocabulary_of
from atts_runtime.engines.vocabulary import Vocabulary
from atts_runtime.errors import InputError
from tests.runtime.engines.http_stub import Stub, nll, stubs

PROMPT = "37 (a)+45 (b)-28 (c)+91\n\n"
SEGMENT = "82 (b)-28: 2-8=4'"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks and waits in hundredths of seconds."""
    monkeypatch.setattr(http_pool, "_LOOK_S", 0.02)
    monkeypatch.setattr(http_pool, "_BACKOFF_S", 0.01)
    monkeypatch.setattr(http_engine, "CHECK_S", 2.0)


@pytest.fixture(scope="session")
def vocabulary(tiny_ending: Path) -> Vocabulary:
    return vocabulary_of(str(tiny_ending))


class Client:
    """Short names for what the tests ask of an engine."""

    def __init__(self, engine: HttpEngine) -> None:
        self.engine = engine

    async def generate(
        self, chain: int = 0, *pieces: Piece, n: int = 6, stop: str | None = None, temperature: float = 1.0
    ) -> Generated:
        call = GenerateCall(ChainId(0, chain), PROMPT, pieces, n, temperature, stop, (chain,))
        return await self.engine.generate(call)

    async def score(self, chain: int, *pieces: Piece) -> Scored:
        return await self.engine.score(ScoreCall(ChainId(0, chain), PROMPT, pieces))


Run = Callable[..., Any]


@pytest.fixture
def run(tiny_ending: Path) -> Run:
    """``run(scenario, *stubs, **settings)``: the result of ``scenario(client)`` on an engine that those serve."""

    def go(scenario: Callable[[Client], Awaitable[Any]], *servers: Stub, **settings: Any) -> Any:
        wanted = Wanted("target", str(tiny_ending), "m", scores=True)
        plain = Servers(wanted, tuple(stub.url for stub in servers), patience_s=20.0, timeout_s=5.0)

        async def main() -> Any:
            engine = HttpEngine(replace(plain, **settings))
            try:
                await engine.start()
                return await asyncio.wait_for(scenario(Client(engine)), 60)
            finally:
                await engine.close()

        return asyncio.run(main())

    return go


@pytest.fixture(params=["vllm", "completions", "sglang"])
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param


def expected(vocabulary: Vocabulary, text: str, *, eos: bool = False) -> float:
    """The stub's mean for a segment after the prompt, its first token included."""
    before = vocabulary.encode_prompt(PROMPT)
    ids = vocabulary.encode(text)
    told = [nll(a, b) for a, b in zip([before[-1], *ids], ids, strict=False)]
    if eos:
        told.append(nll(ids[-1], min(vocabulary.eos_ids)))
    return sum(told) / len(told)


def test_every_kind_of_server_scores_the_whole_segment(run: Run, vocabulary: Vocabulary, kind: str) -> None:
    piece = Piece(SEGMENT, tuple(vocabulary.encode(SEGMENT)), vocabulary.vocab)

    async def scenario(client: Client) -> list[Scored]:
        return [await client.score(0, piece), await client.score(1, replace(piece, eos=True))]

    with stubs(Stub(vocabulary, kind=kind)) as (stub,):
        plain, ended = run(scenario, stub)
    assert plain.ell == pytest.approx(expected(vocabulary, SEGMENT))
    assert ended.ell == pytest.approx(expected(vocabulary, SEGMENT, eos=True))
    assert ended.usage.tokens_new == plain.usage.tokens_new + 1


def test_every_kind_of_server_continues_ids_and_is_told_all_that_shapes_the_text(
    run: Run, vocabulary: Vocabulary, kind: str
) -> None:
    async def scenario(client: Client) -> list[Generated]:
        first = await client.generate(0)
        return [first, await client.generate(0, first.piece, stop="\n\n", n=40)]

    with stubs(Stub(vocabulary, kind=kind)) as (stub,):
        first, second = run(scenario, stub)
        body = stub.seen[-1].body
    told = body.get("sampling_params", body)
    context = [*vocabulary.encode_prompt(PROMPT), *first.piece.ids]
    assert body.get("prompt", body.get("token_ids", body.get("input_ids"))) == context
    assert (told["temperature"], told["top_p"], told["min_p"], told["repetition_penalty"]) == (1.0, 1.0, 0.0, 1.0)
    assert told["stop"] == ["\n\n"]
    assert set(told["stop_token_ids"]) == vocabulary.eos_ids
    assert len(first.piece.ids) == 6
    assert first.piece.text == vocabulary.decode(first.piece.ids)
    assert second.piece.text.count("\n\n") <= 1


def test_a_run_reads_nothing_from_the_cache_of_another(run: Run, vocabulary: Vocabulary) -> None:
    async def scenario(client: Client) -> None:
        for _ in range(2):
            await client.generate(0)
            await client.generate(1)
            await client.engine.reset()

    with stubs(Stub(vocabulary)) as (stub,):
        run(scenario, stub)
        salts = [seen.body["cache_salt"] for seen in stub.seen[-4:]]
    assert salts[0] == salts[1] != salts[2] == salts[3]


def test_what_was_scored_or_drawn_with_its_likelihood_is_not_asked_for_again(run: Run, vocabulary: Vocabulary) -> None:
    async def scenario(client: Client) -> tuple[list[Scored], int]:
        piece = Piece(SEGMENT, tuple(vocabulary.encode(SEGMENT)), vocabulary.vocab)
        scores = [await client.score(chain, piece) for chain in range(2)]
        before = len(stub.seen)
        own = (await client.generate(3)).piece
        return [*scores, await client.score(3, own)], len(stub.seen) - before

    with stubs(Stub(vocabulary, kind="sglang")) as (stub,):
        (first, again, own), asked = run(scenario, stub)
        after_start = stub.seen[3:]
    assert first.ell == again.ell
    assert (len(after_start), asked) == (2, 1)
    assert own.usage.tokens_new == 6


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_likelihoods_at_a_temperature_are_not_taken_for_the_models_own(
    run: Run, vocabulary: Vocabulary, temperature: float
) -> None:
    async def scenario(client: Client) -> tuple[Piece, float, int]:
        piece = (await client.generate(temperature=temperature)).piece
        before = len(stub.seen)
        return piece, (await client.score(0, piece)).ell, len(stub.seen) - before

    with stubs(Stub(vocabulary, kind="sglang")) as (stub,):
        piece, ell, asked = run(scenario, stub)
    ids = [vocabulary.encode_prompt(PROMPT)[-1], *piece.ids]
    assert ell == pytest.approx(sum(map(nll, ids, piece.ids)) / len(piece.ids))
    assert asked == (temperature == 0.5)


def test_chains_spread_over_endpoints_and_stay_where_they_are(run: Run, vocabulary: Vocabulary) -> None:
    async def scenario(client: Client) -> None:
        for stub in made:
            stub.seen.clear()
        pieces: dict[int, list[Piece]] = {chain: [] for chain in range(12)}
        for _ in range(4):
            written = await asyncio.gather(*(client.generate(chain, *pieces[chain]) for chain in pieces))
            for chain, generated in enumerate(written):
                pieces[chain].append(generated.piece)

    with stubs(*(Stub(vocabulary, delay_s=0.05) for _ in range(3))) as made:
        run(scenario, *made)
        told = [[seen.body.get("sampling_params", {}) for seen in stub.seen] for stub in made]
    homes = [{sampling["seed"] for sampling in of_stub if "seed" in sampling} for of_stub in told]
    assert [len(home) for home in homes] == [4, 4, 4]
    assert len(set().union(*homes)) == 12


def test_a_cancelled_call_hangs_up(run: Run, vocabulary: Vocabulary) -> None:
    async def scenario(client: Client) -> None:
        stub._delay_s = 5.0
        call = asyncio.ensure_future(client.generate(0))
        await asyncio.sleep(0.2)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        await asyncio.sleep(0.3)
        assert client.engine.stats().outages == []

    with stubs(Stub(vocabulary)) as (stub,):
        run(scenario, stub)
        assert stub.dropped == 1


def test_the_end_of_the_context_ends_the_text(run: Run, vocabulary: Vocabulary) -> None:
    prompt = len(vocabulary.encode_prompt(PROMPT))

    async def scenario(client: Client) -> tuple[Generated, Generated]:
        last = await client.generate(0, n=20)
        return last, await client.generate(0, last.piece)

    with stubs(Stub(vocabulary, context=prompt + 9)) as (stub,):
        last, none = run(scenario, stub)
    assert (len(last.piece.ids), last.full) == (9, True)
    assert (none.piece.ids, none.full) == ((), True)


KEY = "sk-very-secret"


def test_a_key_goes_into_the_header_alone(run: Run, vocabulary: Vocabulary) -> None:
    async def scenario(client: Client) -> str:
        await client.generate(0)
        return repr(client.engine._servers) + repr(client.engine.stats())

    with stubs(Stub(vocabulary, key=KEY)) as (stub,):
        assert KEY not in run(scenario, stub, key=KEY)
        assert {seen.authorization for seen in stub.seen} == {f"Bearer {KEY}"}
        for key, said in ((None, "wants an API key"), ("sk-wrong", "refuses the key")):
            with pytest.raises(InputError, match=said) as raised:
                run(scenario, stub, key=key, key_option="--target-key-env")
            assert "--target-key-env" in str(raised.value)
            assert "sk-" not in str(raised.value)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"name": "other"}, "serves no model 'm', it has: other; name the target's by --target-name"),
        ({"offset": 1}, "encodes text unlike the tokenizer"),
        ({"kind": "llamacpp"}, "continues no ids by ids"),
        (
            {"logprobs": False},
            "gives no log-probabilities of a prompt, .* .vLLM gives them with --logprobs-mode raw_logprobs",
        ),
    ],
)
def test_a_server_that_does_not_fit_is_named(run: Run, vocabulary: Vocabulary, made: dict[str, Any], said: str) -> None:
    with stubs(Stub(vocabulary, **made)) as (stub,), pytest.raises(InputError, match=said) as raised:
        run(lambda client: client.generate(0), stub)
    assert stub.url in str(raised.value)
    assert "\n" not in str(raised.value)


def test_endpoints_of_one_model_must_be_alike(run: Run, vocabulary: Vocabulary) -> None:
    with (
        stubs(Stub(vocabulary), Stub(vocabulary, kind="sglang")) as made,
        pytest.raises(InputError, match="of one kind"),
    ):
        run(lambda client: client.generate(0), *made)


def test_the_least_that_endpoints_have_in_common_is_used(run: Run, vocabulary: Vocabulary) -> None:
    async def scenario(client: Client) -> int | None:
        await asyncio.gather(*(client.generate(chain) for chain in range(4)))
        return client.engine.max_context_tokens

    with stubs(Stub(vocabulary), Stub(vocabulary, kind="completions", context=512)) as made:
        assert run(scenario, *made) == 512
        assert {seen.path for stub in made for seen in stub.seen[-2:]} == {"/v1/completions"}
