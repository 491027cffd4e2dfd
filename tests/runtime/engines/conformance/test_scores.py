"""What every engine makes of a segment: plain transformers' likelihood, whatever it still holds of the prefix."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from atts_runtime.engines.base import EngineError, Piece, Scored
from tests.conftest import MAX_POSITIONS
from tests.runtime.engines.conformance.conftest import PROMPT, ROWS

TOLERANCE = 1e-4  # nats per token; float32 sums in another order, cold and cached ones too
BLOCK_TOKENS = 32  # what an engine may compute again of a prefix
STRANGE = "Größe: 3 µm → naïve, 数学 😀\n\n"


def close(ell: float) -> Any:
    return pytest.approx(ell, abs=TOLERANCE)


def piece_of(reference: Any, text: str, vocab: str, *, eos: bool = False) -> Piece:
    return Piece(text, tuple(reference.encode(text)), vocab, eos)


@pytest.fixture
def vocab(serve: Any, words_model: Any) -> str:
    client = serve(words_model)
    name: str = client.run(client.generate).piece.vocab
    return name


def test_scores_turn_by_turn_equal_one_plain_forward_pass(serve: Any, plain: Any, words_model: Any) -> None:
    """One model writes, the same scores for another chain: first tokens, single tokens, long segments."""
    client, reference = serve(words_model), plain(words_model)

    async def scenario() -> list[tuple[list[Piece], float]]:
        pieces: list[Piece] = []
        scores = []
        for n in (9, 1, 4, 30, 2, 64):
            pieces.append((await client.generate(1, *pieces, n=n, temperature=1.0)).piece)
            scores.append((list(pieces), (await client.score(2, *pieces)).ell))
        return scores

    for pieces, ell in client.run(scenario):
        context = reference.prompt() + [i for piece in pieces[:-1] for i in piece.ids]
        assert ell == close(reference.nll(context, pieces[-1].ids))


def test_scores_of_64_chains_asked_at_once(serve: Any, plain: Any, words_model: Any, vocab: str) -> None:
    client, reference = serve(words_model), plain(words_model)
    texts = [f"{10 + i} (b)-28: 2-8=4' " * (1 + i % 3) for i in range(ROWS)]
    pieces = [piece_of(reference, text, vocab) for text in texts]

    async def scenario() -> list[Scored]:
        return await asyncio.gather(*(client.score(i, piece) for i, piece in enumerate(pieces)))

    for piece, scored in zip(pieces, client.run(scenario), strict=True):
        assert scored.usage.tokens_new == len(piece.ids)
        assert scored.ell == close(reference.nll(reference.prompt(), piece.ids))


def test_chains_that_wrote_alike_are_scored_alike(serve: Any, plain: Any, words_model: Any, vocab: str) -> None:
    """What one chain leaves in a shared cache may reach into the segment of the next."""
    client, reference = serve(words_model), plain(words_model)
    base = "82 (b)-28: 2-8=4' 8-2-1=5 = 54\n\n" * 3
    texts = [base, base, base + "1", base + "2", base[:-9] + "7+7"]
    pieces = [piece_of(reference, text, vocab) for text in texts]

    async def scenario() -> list[float]:
        first = await asyncio.gather(*(client.score(i, piece) for i, piece in enumerate(pieces)))
        later = [await client.score(10 + i, piece) for i, piece in enumerate(pieces)]
        return [scored.ell for scored in (*first, *later)]

    expected = [reference.nll(reference.prompt(), piece.ids) for piece in pieces]
    assert client.run(scenario) == [close(ell) for ell in expected * 2]


def test_a_cached_score_agrees_with_one_computed_anew(serve: Any, plain: Any, words_model: Any, vocab: str) -> None:
    """Ten turns of which another model writes the segments and this one, every third time, a takeover."""
    client, reference = serve(words_model), plain(words_model)
    segments = [piece_of(reference, f"{10 + turn} (b)-28: 2-8=4' 8-2-1=5 = 54\n\n", vocab) for turn in range(10)]

    async def turns() -> tuple[list[list[Piece]], list[Scored]]:
        pieces: list[Piece] = []
        asked, scores = [], []
        for turn, segment in enumerate(segments):
            pieces.append(segment)
            asked.append(list(pieces))
            scores.append(await client.score(0, *pieces))
            if turn % 3 == 2:
                pieces.append((await client.generate(0, *pieces, n=20, temperature=1.0)).piece)
        return asked, scores

    asked, scores = client.run(turns)
    # What the cache served reads as whatever memory held: a server fails at a NaN there, and is asked for all anew.
    once = [scored.usage if scored.usage.tries == 1 else None for scored in scores]
    assert all(usage is None or usage.tokens_recomputed < BLOCK_TOKENS for usage in once)
    assert all(usage is None or usage.tokens_cached for usage in once[2:])
    assert once.count(None) < len(scores) / 2
    for turn, scored in enumerate(scores):

        async def anew(turn: int = turn) -> Scored:
            result: Scored = await client.score(0, *asked[turn])
            return result

        cold = client.run(anew)
        assert cold.usage.tokens_cached <= client.engine.prompt_tokens(PROMPT)  # which may be charged apart
        assert scored.ell == close(cold.ell)


def test_an_end_of_text_is_scored_as_a_token(serve: Any, plain: Any, bytes_model: Any) -> None:
    client, reference = serve(bytes_model), plain(bytes_model)
    vocab = client.run(client.generate).piece.vocab
    ids = reference.encode(STRANGE)
    text = Piece(STRANGE, tuple(ids), vocab)
    ended, bare = dataclasses.replace(text, eos=True), Piece("", (), vocab, eos=True)

    async def scenario() -> list[Scored]:
        return [await client.score(0, ended), await client.score(1, text), await client.score(1, text, bare)]

    together, alone, end = client.run(scenario)
    context = reference.prompt()
    assert [s.usage.tokens_new for s in (together, alone, end)] == [len(ids) + 1, len(ids), 1]
    assert together.ell == close(reference.nll(context, [*ids, reference.eos]))
    assert alone.ell == close(reference.nll(context, ids))
    assert end.ell == close(reference.nll(context + ids, [reference.eos]))


def test_another_vocabularys_segment_is_scored_in_ones_own(serve: Any, plain: Any, bytes_model: Any) -> None:
    client, reference = serve(bytes_model), plain(bytes_model)
    other = Piece(STRANGE, (1, 2, 3), "another vocabulary")

    async def scenario() -> Scored:
        result: Scored = await client.score(0, other)
        return result

    scored = client.run(scenario)
    assert scored.ell == close(reference.nll(reference.prompt(), reference.encode(STRANGE)))
    assert scored.usage.tokens_new == len(STRANGE.encode())


@pytest.mark.parametrize("segment", [1, 7])
def test_a_segment_may_fill_the_context_but_not_exceed_it(
    serve: Any, plain: Any, words_model: Any, vocab: str, segment: int
) -> None:
    client, reference = serve(words_model), plain(words_model)
    ids = reference.encode("1+2=3 " * MAX_POSITIONS)[: MAX_POSITIONS - len(reference.prompt())]
    before, last = ids[:-segment], ids[-segment:]
    pieces = [Piece("", tuple(before), vocab), Piece("", tuple(last), vocab)]

    async def fills() -> float:
        return float((await client.score(0, *pieces)).ell)

    async def exceeds() -> Scored:
        result: Scored = await client.score(0, *pieces[:1], Piece("", (*last, last[0]), vocab))
        return result

    assert client.run(fills) == close(reference.nll(reference.prompt() + before, last))
    with pytest.raises(EngineError, match="context"):
        client.run(exceeds)


def test_an_empty_segment_is_refused(serve: Any, words_model: Any, vocab: str) -> None:
    client = serve(words_model)

    async def scenario() -> None:
        await client.score(0, Piece("", (), vocab), prompt=PROMPT)

    with pytest.raises(EngineError, match="nothing to score"):
        client.run(scenario)
