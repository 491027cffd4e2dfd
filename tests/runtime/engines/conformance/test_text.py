"""What every engine writes: plain transformers' continuation, and where it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atts_runtime.engines.base import EngineError, Generated, Piece
from tests.conftest import MAX_POSITIONS
from tests.runtime.engines.conformance.conftest import PROMPT, ROWS

PROMPTS = [PROMPT, "99 (a)-10 (b)-10\n\n", "5\n\n", "", "12 (a)+34 (b)+56 (c)+78\n\n" * 30]
STRANGE = "Größe: 3 µm → naïve, 数学 😀\n\n"


def test_greedy_text_is_plain_transformers_token_for_token(serve: Any, plain: Any, words_model: Any) -> None:
    client, reference = serve(words_model), plain(words_model)

    async def scenario() -> list[Generated]:
        return await asyncio.gather(*(client.generate(i, prompt=p, n=24) for i, p in enumerate(PROMPTS)))

    for prompt, generated in zip(PROMPTS, client.run(scenario), strict=True):
        assert list(generated.piece.ids) == reference.greedy(reference.prompt(prompt), 24)
        assert generated.piece.text == reference.decode(generated.piece.ids)
        assert (generated.piece.eos, generated.full) == (False, False)


def test_a_chain_is_continued_from_its_ids(serve: Any, plain: Any, words_model: Any) -> None:
    client, reference = serve(words_model), plain(words_model)

    async def scenario() -> list[Piece]:
        pieces: list[Piece] = []
        for n in (5, 1, 40, 3):
            pieces.append((await client.generate(0, *pieces, n=n)).piece)
        return pieces

    ids = reference.prompt()
    for piece in client.run(scenario):
        assert list(piece.ids) == reference.greedy(ids, len(piece.ids))
        ids += piece.ids


def test_text_of_another_vocabulary_is_encoded_and_continued(serve: Any, plain: Any, words_model: Any) -> None:
    client, reference = serve(words_model), plain(words_model)
    other = Piece("82 (b)-28: 2-8=4'", (1, 2, 3), "another vocabulary")

    async def scenario() -> Piece:
        piece: Piece = (await client.generate(0, other, n=6)).piece
        return piece

    context = reference.prompt() + reference.encode(other.text)
    assert list(client.run(scenario).ids) == reference.greedy(context, 6)


def test_what_64_chains_write_together_each_writes_alone(serve: Any, words_model: Any) -> None:
    client = serve(words_model)

    async def together() -> list[Generated]:
        return await asyncio.gather(*(client.generate(i, n=16, temperature=1.0) for i in range(ROWS)))

    texts = [generated.piece.ids for generated in client.run(together)]
    assert len(set(texts)) > ROWS / 2  # each from its own seed
    for chain in (0, 17, 63):

        async def alone(chain: int = chain) -> Generated:
            result: Generated = await client.generate(chain, n=16, temperature=1.0)
            return result

        assert client.run(alone).piece.ids == texts[chain]


def test_long_prompts_may_come_together(serve: Any, words_model: Any) -> None:
    """Far more tokens than a step takes, of calls that sample."""
    client = serve(words_model)
    prompts = [f"{10 + chain} (a)+34 (b)+56 (c)+78\n\n" * 40 for chain in range(ROWS // 4)]

    async def scenario() -> list[Generated]:
        calls = (client.generate(i, prompt=prompt, n=4, temperature=1.0) for i, prompt in enumerate(prompts))
        return await asyncio.gather(*calls)

    assert client.engine.prompt_tokens(prompts[0]) > MAX_POSITIONS / 2
    assert [len(generated.piece.ids) for generated in client.run(scenario)] == [4] * len(prompts)


def test_text_ends_with_the_first_stop_string(serve: Any, words_model: Any) -> None:
    client = serve(words_model)

    async def scenario() -> tuple[list[Generated], list[Generated]]:
        free = await asyncio.gather(*(client.generate(i, n=64, temperature=1.0) for i in range(8)))
        stopped = await asyncio.gather(*(client.generate(i, n=64, temperature=1.0, stop="\n\n") for i in range(8)))
        return free, stopped

    free, stopped = client.run(scenario)
    assert any("\n\n" in generated.piece.text for generated in free)
    for longer, generated in zip(free, stopped, strict=True):
        before, found, _ = longer.piece.text.partition("\n\n")
        assert generated.piece.text == before + found
        assert longer.piece.ids[: len(generated.piece.ids)] == generated.piece.ids
        assert generated.usage.tokens_new == len(generated.piece.ids)


def test_any_text_can_be_continued_and_an_end_of_text_is_no_id(serve: Any, plain: Any, bytes_model: Any) -> None:
    client, reference = serve(bytes_model), plain(bytes_model)

    async def scenario() -> list[Generated]:
        greedy = [client.generate(0, prompt=STRANGE, n=12)]
        drawn = [client.generate(i, prompt=STRANGE, n=200, temperature=1.0) for i in range(1, 9)]
        return await asyncio.gather(*greedy, *drawn)

    greedy, *drawn = client.run(scenario)
    expected = reference.greedy(reference.prompt(STRANGE), 12)
    ended = expected[-1] == reference.eos
    assert list(greedy.piece.ids) == (expected[:-1] if ended else expected)
    assert any(generated.piece.eos for generated in drawn)
    for generated in drawn:
        assert reference.eos not in generated.piece.ids
        assert generated.usage.tokens_new == len(generated.piece.ids) + generated.piece.eos


def test_the_end_of_the_context_ends_the_text(serve: Any, plain: Any, words_model: Any) -> None:
    client, reference = serve(words_model), plain(words_model)
    room = 5
    filler = "1+2=3 " * MAX_POSITIONS
    ids = reference.encode(filler)[: MAX_POSITIONS - room - len(reference.prompt())]
    filling = Piece(reference.decode(ids), tuple(ids), client.run(lambda: client.generate()).piece.vocab)

    async def scenario() -> tuple[Generated, Generated]:
        last = await client.generate(0, filling, n=20)
        return last, await client.generate(0, filling, last.piece, n=20)

    last, none = client.run(scenario)
    assert (len(last.piece.ids), last.full) == (room, True)
    assert (none.piece.ids, none.full) == ((), True)


@pytest.mark.parametrize("n", [0, 1])
def test_calls_that_the_model_cannot_take_are_refused_in_words(serve: Any, words_model: Any, n: int) -> None:
    client = serve(words_model)
    long = "1+2=3 " * MAX_POSITIONS

    async def scenario() -> None:
        await (client.generate(0, prompt=long) if n else client.generate(0, n=0))

    with pytest.raises(EngineError, match="fills the model's context of 1024" if n else "max_tokens must be at least"):
        client.run(scenario)
