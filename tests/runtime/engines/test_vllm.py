"""vLLM beyond the conformance suite: its cache, its totals, speculative decoding, a start that fails."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import atts_runtime.models
from atts_runtime.control.events import ChainId
from atts_runtime.engines.base import EngineError, GenerateCall, Generated, Piece, ScoreCall, Scored
from atts_runtime.errors import InputError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("vllm", reason="vLLM is not installed (it wants an environment of its own: make test-vllm)")

from atts_runtime.engines.vllm import VllmEngine  # noqa: E402
from atts_runtime.engines.vllm_launch import Launch  # noqa: E402

DRAFT, TARGET = (str(Path(atts_runtime.models.__file__).parent / role) for role in ("draft", "target"))
PROMPT = "37 (a)+45 (b)-28 (c)+91 (d)-17 (e)+64\n\n"
BLOCK_TOKENS = 32
DEADLINE_S = 300


def serve(scenario: Callable[[VllmEngine], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    """The result of ``scenario(engine)`` on the bundled target."""

    async def main() -> Any:
        engine = VllmEngine(Launch(TARGET, "target", 16, threads=1, share=0.2, **options))
        try:
            await engine.start()
            return await asyncio.wait_for(scenario(engine), DEADLINE_S)
        finally:
            await engine.close()

    return asyncio.run(main())


def write(chain: int, *pieces: Piece, n: int = 40, temperature: float = 0.0) -> GenerateCall:
    return GenerateCall(ChainId(0, chain), PROMPT, pieces, n, temperature, None, (chain,))


def score(chain: int, *pieces: Piece) -> ScoreCall:
    return ScoreCall(ChainId(0, chain), PROMPT, pieces)


def test_one_engine_from_start_to_close(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Costly to start, so one engine serves several claims."""
    asked: list[Any] = []
    ask = VllmEngine._run

    async def listening(engine: VllmEngine, ids: list[int], params: Any) -> Any:
        asked.append(params)
        return await ask(engine, ids, params)

    monkeypatch.setattr(VllmEngine, "_run", listening)

    async def scenario(engine: VllmEngine) -> None:
        await _what_is_compiled_for_the_first_call_is_before_a_run(engine, asked)
        await _prefixes_are_read_from_the_cache(engine)
        await _what_was_scored_is_not_computed_again(engine)
        await _what_the_model_wrote_itself_is_scored_without_a_forward_pass(engine)
        await _totals_come_from_vllm(engine)
        call = asyncio.ensure_future(engine.generate(write(0, n=1900, temperature=1.0)))
        while not engine.stats().running:
            await asyncio.sleep(0.01)
        closing = asyncio.ensure_future(engine.close())
        with pytest.raises(EngineError, match="closed"):
            await call
        await closing
        with pytest.raises(EngineError, match="closed"):
            await engine.generate(write(0))

    before = dict(os.environ)
    serve(scenario)
    assert dict(os.environ) == before
    assert "EngineCore" not in capfd.readouterr().out  # vLLM's processes keep to their log


async def _what_is_compiled_for_the_first_call_is_before_a_run(engine: VllmEngine, asked: list[Any]) -> None:
    """A start asks for both kinds of calls, and leaves no trace of it."""
    assert any(params.prompt_logprobs is not None for params in asked)
    assert any(params.max_tokens > 1 for params in asked)
    stats, log = engine.stats(), engine.steps()
    assert (stats.steps, stats.prefilled_tokens, stats.decode_rows, stats.busy_s) == (0, 0, 0, 0.0)
    assert log is not None
    assert len(log) == 0
    usage = (await engine.generate(write(0))).usage
    assert usage.tokens_cached == 0


async def _prefixes_are_read_from_the_cache(engine: VllmEngine) -> None:
    """Ten turns that another model writes: of each prefix less than a block is computed again."""
    await engine.reset()
    pieces: list[Piece] = []
    sent = recomputed = 0
    for turn in range(10):
        pieces.append(Piece(f"{10 + turn} (b)-28: 2-8=4' 8-2-1=5 = 54\n\n", (turn,), "another vocabulary"))
        usage = (await engine.score(score(0, *pieces))).usage
        assert usage.tokens_recomputed < BLOCK_TOKENS
        assert usage.tokens_recomputed == usage.tokens_prefilled or not turn
        sent += usage.tokens_cached + usage.tokens_prefilled
        recomputed += usage.tokens_recomputed
    assert recomputed < BLOCK_TOKENS * 10 < sent


async def _what_was_scored_is_not_computed_again(engine: VllmEngine) -> None:
    """Chains that write alike meet in the cache, which holds no logits."""
    await engine.reset()
    text = "82 (b)-28: 2-8=4' 8-2-1=5 = 54\n\n" * 3
    same, longer = Piece(text, (1,), "another vocabulary"), Piece(text + "1+2=3", (2,), "another vocabulary")
    first, *others = await asyncio.gather(*(engine.score(score(i, same)) for i in range(4)))
    assert all(other.ell == pytest.approx(first.ell, abs=1e-4) for other in others)
    fed = engine.stats().prefilled_tokens
    again = await engine.score(score(9, same))
    await engine.settled()
    assert engine.stats().prefilled_tokens == fed
    assert (again.ell, again.usage.tokens_prefilled) == (first.ell, 0)
    tail = await engine.score(score(10, longer))
    await engine.settled()
    assert engine.stats().prefilled_tokens - fed < 2 * BLOCK_TOKENS
    await engine.reset()
    anew: Scored = await engine.score(score(0, longer))
    assert tail.ell == pytest.approx(anew.ell, abs=1e-4)


async def _totals_come_from_vllm(engine: VllmEngine) -> None:
    await engine.reset()
    await asyncio.gather(*(engine.generate(write(i, temperature=1.0)) for i in range(8)))
    await engine.settled()
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.preemptions) == (0, 0, 0)
    assert stats.decode_rows / stats.decode_steps > 1
    assert stats.kv_capacity_tokens is not None
    assert 0 < stats.kv_peak_tokens <= stats.kv_capacity_tokens
    assert stats.phases is not None
    counted = sum(demand.flops for demand in stats.phases.values())
    assert stats.flops_executed == pytest.approx(counted, rel=0.05)  # vLLM's own count, by its own formulas


async def _what_the_model_wrote_itself_is_scored_without_a_forward_pass(engine: VllmEngine) -> None:
    await engine.reset()
    pieces: list[Piece] = []
    kept = []
    for _ in range(3):
        generated: Generated = await engine.generate(write(0, *pieces, n=20, temperature=1.0))
        pieces.append(generated.piece)
        fed = engine.stats().prefilled_tokens
        kept.append((await engine.score(score(0, *pieces))).ell)
        await engine.settled()
        assert generated.piece.eos or engine.stats().prefilled_tokens == fed
    await engine.reset()
    for turn in reversed(range(3)):
        anew: Scored = await engine.score(score(turn, *pieces[: turn + 1]))
        assert kept[turn] == pytest.approx(anew.ell, abs=1e-4)


@pytest.mark.parametrize(
    "speculation",
    [
        {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4},
        {"method": "draft_model", "model": DRAFT, "num_speculative_tokens": 3},
    ],
    ids=["ngram", "draft_model"],
)
def test_speculative_decoding_changes_no_greedy_text_and_no_score(speculation: dict[str, Any], plain: Any) -> None:
    reference = plain(Path(TARGET))

    async def scenario(engine: VllmEngine) -> tuple[Generated, Scored, Any]:
        generated = await engine.generate(write(0, n=30))
        stopped = await engine.generate(GenerateCall(ChainId(0, 1), PROMPT, (), 60, 0.0, "\n\n", (1,)))
        assert stopped.piece.text.endswith("\n\n")
        assert "\n\n" not in stopped.piece.text[:-2]
        other = Piece("82 (b)-28: 2-8=4'", (1,), "another vocabulary")
        scored = await engine.score(score(0, generated.piece, other))
        return generated, scored, engine.stats()

    generated, scored, stats = serve(scenario, greedy=True, args={"speculative_config": speculation})
    assert list(generated.piece.ids) == reference.greedy(reference.prompt(PROMPT), 30)
    context = [*reference.prompt(PROMPT), *generated.piece.ids]
    assert scored.ell == pytest.approx(reference.nll(context, reference.encode("82 (b)-28: 2-8=4'")), abs=1e-4)
    assert stats.speculated_tokens > 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"gpu_memory_utilisation": 0.5}, "no argument 'gpu_memory_utilisation'; did you mean gpu_memory_utilization"),
        ({"model": "another"}, "model is not set here"),
        ({"quantization": "astrology"}, "astrology"),
        ({"max_model_len": 10**9}, "max_model_len"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}}, "take --temperature 0"),
    ],
)
def test_a_start_that_fails_says_why_in_one_line(args: dict[str, Any], said: str) -> None:
    async def never(engine: VllmEngine) -> None:
        raise AssertionError("it started")

    with pytest.raises(InputError, match=said) as caught:
        serve(never, args=args)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in Path(TARGET).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = folder / "tokenizer.json"
    data = json.loads(tokenizer.read_text())
    data["model"]["vocab"] |= {f"word{i}": 33 + i for i in range(9)}
    tokenizer.write_text(json.dumps(data))

    async def start() -> None:
        engine = VllmEngine(Launch(str(folder), "target", 16, threads=1, share=0.2))
        try:
            await engine.start()
        finally:
            await engine.close()

    with pytest.raises(InputError, match="ids up to 41, its model 33"):
        asyncio.run(start())
