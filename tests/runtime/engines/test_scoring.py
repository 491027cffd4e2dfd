"""A score is the mean negative log-likelihood that a plain forward pass of the whole chain gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from atts_runtime.engines.base import Piece

TOLERANCE = 1e-5  # nats per token; float32 sums in another order


def close(ell: float) -> Any:
    return pytest.approx(ell, abs=TOLERANCE)


def test_scoring_segment_by_segment_equals_one_plain_forward_pass(serve: Any, plain: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> list[tuple[tuple[Piece, ...], float]]:
        pieces: tuple[Piece, ...] = ()
        scores = []
        for n in (9, 1, 4, 30):
            pieces = (*pieces, (await client.generate(1, *pieces, n=n)).piece)
            scores.append((pieces, (await client.score(2, *pieces)).ell))
        return scores

    reference = plain(tiny_target)
    for pieces, ell in serve(scenario, tiny_target):
        context = reference.prompt() + [i for piece in pieces[:-1] for i in piece.ids]
        assert ell == close(reference.nll(context, pieces[-1].ids))


def test_the_end_of_text_is_scored_as_a_token(serve: Any, plain: Any, tiny_ending: Path) -> None:
    reference = plain(tiny_ending)
    text = "82 (b)-28: 2-8=4'"
    ids = reference.encode(text)

    async def scenario(client: Any) -> tuple[float, float, float]:
        piece = Piece(text, tuple(ids), client.worker.lm.vocab)
        ended, empty = Piece(text, tuple(ids), piece.vocab, eos=True), Piece("", (), piece.vocab, eos=True)
        together = await client.score(0, ended)
        assert together.usage.tokens_new == len(ids) + 1
        text_alone = await client.score(1, piece)
        end_alone = await client.score(1, piece, empty)
        assert end_alone.usage.tokens_new == 1
        return together.ell, text_alone.ell, end_alone.ell

    together, text_alone, end_alone = serve(scenario, tiny_ending)
    context = reference.prompt()
    assert together == close(reference.nll(context, [*ids, reference.eos]))
    assert text_alone == close(reference.nll(context, ids))
    assert end_alone == close(reference.nll(context + ids, [reference.eos]))


def test_where_several_tokens_end_a_text_their_probabilities_add_up(
    serve: Any, plain: Any, tiny_ending: Path, variant: Callable[..., Path]
) -> None:
    """Chat models end on either of two tokens, and a piece does not say which one its model drew."""
    reference = plain(tiny_ending)
    ends = [reference.eos, reference.encode("\\boxed{")[0]]
    folder = variant(tiny_ending, "generation_config.json", eos_token_id=ends)

    async def scenario(client: Any) -> float:
        ell: float = (await client.score(0, Piece("", (), client.worker.lm.vocab, eos=True))).ell
        return ell

    log_p = reference.logits(reference.prompt())[-1].double().log_softmax(-1)
    assert serve(scenario, folder) == close(-float(torch.logsumexp(log_p[ends], 0)))


def test_a_segment_by_another_tokenizers_model_is_encoded_once_and_scored(
    serve: Any, plain: Any, tiny_draft: Path, tiny_target: Path
) -> None:
    """Draft, score, takeover, draft, score; both models score at the end."""

    async def scenario(draft: Any, target: Any) -> tuple[list[Piece], list[float]]:
        first = (await draft.generate(0, n=12)).piece
        ells = [(await target.score(0, first)).ell]
        taken = (await target.generate(0, first, n=6)).piece
        ells.append((await draft.score(0, first, taken)).ell)
        second = (await draft.generate(0, first, taken, n=17)).piece
        ells.append((await target.score(0, first, taken, second)).ell)
        return [first, taken, second], ells

    (first, taken, second), ells = serve(scenario, tiny_draft, tiny_target)
    small, large = plain(tiny_draft), plain(tiny_target)
    context = large.prompt() + large.encode(first.text)
    assert ells[0] == close(large.nll(large.prompt(), large.encode(first.text)))
    assert ells[1] == close(small.nll(small.prompt() + list(first.ids), small.encode(taken.text)))
    assert ells[2] == close(large.nll(context + list(taken.ids), large.encode(second.text)))


@pytest.mark.parametrize("context_tokens", range(14, 35, 2))
def test_a_score_that_takes_several_passes_counts_each_token_once(
    serve: Any, plain: Any, tiny_target: Path, context_tokens: int
) -> None:
    """Wherever the segment begins: before, at and after the border between two passes."""
    step = 16
    reference = plain(tiny_target)
    ids = reference.encode("37 (a)+45: 7+5=2' 3+4+1=8 = 82\n\n" * 4)
    before, segment = ids[:context_tokens], ids[context_tokens:]

    async def scenario(client: Any) -> tuple[float, int]:
        client.worker.lm.step_tokens = step
        vocab = client.worker.lm.vocab
        pieces = [Piece(reference.decode(part), tuple(part), vocab) for part in (before, segment)]
        scored = await client.score(0, *pieces)
        assert all(sum(map(len, p.fed)) <= step for p in client.passes)
        return scored.ell, scored.usage.tokens_new

    ell, tokens = serve(scenario, tiny_target)
    assert tokens == len(segment)
    assert ell == close(reference.nll(reference.prompt() + before, segment))


def test_scores_that_wait_together_share_a_pass(serve: Any, plain: Any, tiny_target: Path) -> None:
    reference = plain(tiny_target)
    texts = ["82"[: 1 + i % 2] + " = 54\n\n" * i for i in range(8)]

    async def scenario(client: Any) -> list[float]:
        await client.score(0, Piece("8", tuple(reference.encode("8")), client.worker.lm.vocab))
        client.passes.clear()
        pieces = [Piece(text, tuple(reference.encode(text)), client.worker.lm.vocab) for text in texts]
        scored = await client.together(*(client.score(i + 1, piece) for i, piece in enumerate(pieces)))
        assert len(client.passes) == 1
        return [s.ell for s in scored]

    for text, ell in zip(texts, serve(scenario, tiny_target), strict=True):
        assert ell == close(reference.nll(reference.prompt(), reference.encode(text)))
