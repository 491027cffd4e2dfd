"""KV is kept between a chain's turns, so that a turn costs only what is new, within the budget given for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from atts_runtime.control.events import ChainId
from atts_runtime.engines.base import Piece, Usage

PLENTY = 10**6  # a budget: without one, KV is counted only now and then
PROMPTS = [f"{10 + i} (a)+{20 + i} (b)-{11 + i}\n\n" for i in range(6)]


def test_a_conversation_computes_nothing_twice(serve: Any, tiny_draft: Path, tiny_target: Path) -> None:
    """Draft and target in turn: each feeds what the other wrote, and the one id that it drew but never fed."""
    turns = 4

    async def scenario(draft: Any, target: Any) -> None:
        pieces: list[Piece] = []
        usages: list[Usage] = []
        for turn in range(turns):
            drafted = await draft.generate(0, *pieces, n=10, seed=(turn, 0))
            taken = pieces[-1:]
            encoded = sum(len(piece.ids_in(draft.worker.lm.vocab, draft.worker.lm.encode)) for piece in taken)
            assert drafted.usage.tokens_prefilled == encoded + (turn > 0)
            pieces.append(drafted.piece)

            scored = await target.score(0, *pieces)
            new = pieces[-1].ids_in(target.worker.lm.vocab, target.worker.lm.encode)
            assert scored.usage.tokens_prefilled == (turn > 0)
            assert scored.usage.tokens_new == len(new)

            taken_over = await target.generate(0, *pieces, n=5, seed=(turn, 1))
            assert taken_over.usage.tokens_prefilled == 0
            assert taken_over.usage.tokens_cached > scored.usage.tokens_cached
            pieces.append(taken_over.piece)
            usages += [drafted.usage, scored.usage, taken_over.usage]
        assert all(usage.tokens_recomputed == 0 for usage in usages)
        # Each id went through each model once.
        for client in (draft, target):
            fed = sum(len(row) for p in client.passes for row in p.fed)
            ids = [piece.ids_in(client.worker.lm.vocab, client.worker.lm.encode) for piece in pieces]
            whole = client.engine.prompt_tokens("37 (a)+45 (b)-28 (c)+91\n\n") + sum(map(len, ids))
            unseen = 1 if client is target else len(ids[-1]) + 1
            assert fed == whole - unseen

    serve(scenario, tiny_draft, tiny_target)


def test_a_replaced_segment_is_not_counted_as_recomputed(serve: Any, tiny_draft: Path, tiny_target: Path) -> None:
    async def scenario(draft: Any, target: Any) -> None:
        first = (await draft.generate(0, n=10)).piece
        rejected = (await draft.generate(0, first, n=20, seed=(1,))).piece
        await target.score(0, first)
        await target.score(0, first, rejected)
        taken = await target.generate(0, first, n=8, temperature=0.0)
        assert taken.usage.tokens_recomputed <= 1  # the id before the segment, for the logits it gives
        after = await draft.generate(0, first, taken.piece, n=5)
        assert after.usage.tokens_recomputed == 0
        assert after.usage.tokens_prefilled > 0

    serve(scenario, tiny_draft, tiny_target)


def test_a_questions_chains_compute_their_prompt_once(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        prompt_tokens = client.engine.prompt_tokens(PROMPTS[0])
        drafts = await asyncio.gather(*(client.generate(i, prompt=PROMPTS[0], n=4) for i in range(5)))
        piece = drafts[0].piece
        scores = await asyncio.gather(*(client.score(10 + i, piece, prompt=PROMPTS[0]) for i in range(5)))
        late = await client.generate(20, prompt=PROMPTS[0], n=4)
        from_scratch = [row for p in client.passes for row, start in zip(p.fed, p.starts, strict=True) if start == 0]
        assert [len(row) for row in from_scratch] == [prompt_tokens]
        for result in (*drafts, *scores, late):
            assert result.usage.tokens_cached == prompt_tokens
            assert result.usage.tokens_prefilled == 0
        # Appends fed the prompt once and the segment five times; the rest went through decode steps.
        await client.engine.settled()
        assert client.engine.stats().prefilled_tokens == prompt_tokens + 5 * len(piece.ids)

    serve(scenario, tiny_target)


def test_chains_wait_for_a_prompt_that_takes_several_passes(serve: Any, tiny_target: Path) -> None:
    """None starts from half of it, to compute the other half for itself."""

    async def scenario(client: Any) -> None:
        client.worker.lm.step_tokens = 4
        prompt_tokens = client.engine.prompt_tokens(PROMPTS[0])
        assert prompt_tokens > 12
        results = await client.together(*(client.generate(i, prompt=PROMPTS[0], n=3) for i in range(5)))
        assert all(result.usage.tokens_prefilled == 0 for result in results)
        assert sum(len(row) for p in client.passes for row in p.fed if p.append) == prompt_tokens

    serve(scenario, tiny_target)


def test_chains_that_share_a_prompt_share_its_memory(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        piece = Piece("", (), client.worker.lm.vocab, eos=True)
        await asyncio.gather(*(client.score(i, piece) for i in range(5)))
        await client.engine.settled()
        assert client.engine.stats().kv_tokens == client.engine.prompt_tokens("37 (a)+45 (b)-28 (c)+91\n\n")

    serve(scenario, tiny_target, kv_budget_tokens=PLENTY)


async def conversation(client: Any, chain: int) -> tuple[list[float], int]:
    """Scores of three turns, on a chain that reads along, and tokens recomputed."""
    pieces: list[Piece] = []
    ells, recomputed = [], 0
    for turn in range(3):
        generated = await client.generate(chain, *pieces, prompt=PROMPTS[chain], n=9, seed=(chain, turn))
        pieces.append(generated.piece)
        scored = await client.score(100 + chain, *pieces, prompt=PROMPTS[chain])
        ells.append(scored.ell)
        recomputed += generated.usage.tokens_recomputed + scored.usage.tokens_recomputed
    return ells, recomputed


def test_a_budget_evicts_idle_chains_and_changes_no_score(serve: Any, tiny_target: Path) -> None:
    budget = 60

    async def free(client: Any) -> list[tuple[list[float], int]]:
        results = list(await asyncio.gather(*(conversation(client, chain) for chain in range(6))))
        assert client.engine.stats().evictions == 0
        return results

    async def tight(client: Any) -> list[tuple[list[float], int]]:
        results = list(await asyncio.gather(*(conversation(client, chain) for chain in range(6))))
        await client.engine.settled()
        stats = client.engine.stats()
        assert stats.evictions > 0
        assert stats.kv_tokens <= budget < stats.kv_peak_tokens
        return results

    plenty, little = serve(free, tiny_target), serve(tight, tiny_target, kv_budget_tokens=budget)
    for (expected, none), (ells, recomputed) in zip(plenty, little, strict=True):
        assert none == 0
        assert recomputed > 0
        assert ells == pytest.approx(expected, abs=1e-5)


def test_kv_never_exceeds_its_budget_while_the_engine_is_idle(serve: Any, tiny_target: Path) -> None:
    budget = 50

    async def scenario(client: Any) -> None:
        pieces: dict[int, list[Piece]] = {}
        for turn in range(3):
            for chain in range(5):
                mine = pieces.setdefault(chain, [])
                result = await client.generate(chain, *mine, prompt=PROMPTS[chain], n=6, seed=(chain, turn))
                mine.append(result.piece)
                await client.engine.settled()
                assert client.engine.stats().kv_tokens <= budget

    serve(scenario, tiny_target, kv_budget_tokens=budget)


@pytest.mark.parametrize("budget", [0, 5, 25])
def test_a_budget_too_small_for_one_chain_still_serves(serve: Any, tiny_target: Path, budget: int) -> None:
    """A prompt that a call waits for is kept until the call has it."""

    async def scenario(client: Any) -> list[tuple[list[float], int]]:
        return list(await asyncio.gather(*(conversation(client, chain) for chain in range(3))))

    expected = serve(scenario, tiny_target)
    for (ells, _), (right, _) in zip(serve(scenario, tiny_target, kv_budget_tokens=budget), expected, strict=True):
        assert ells == pytest.approx(right, abs=1e-5)


def test_release_drops_a_chains_kv(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        prompt_tokens = client.engine.prompt_tokens(PROMPTS[0])
        first = (await client.generate(0, prompt=PROMPTS[0], n=12)).piece
        await client.score(1, first, prompt=PROMPTS[0])
        await client.engine.settled()
        assert client.engine.stats().kv_tokens == prompt_tokens + (prompt_tokens + 11) + (prompt_tokens + 12)
        client.engine.release(ChainId(0, 0))
        client.engine.release(ChainId(0, 5))  # unknown: nothing to drop
        await client.engine.settled()
        await client.engine.settled()
        assert client.engine.stats().kv_tokens == prompt_tokens + (prompt_tokens + 12)
        again = await client.generate(0, first, prompt=PROMPTS[0], n=3)
        assert again.usage.tokens_cached == prompt_tokens
        assert again.usage.tokens_prefilled == 12

    serve(scenario, tiny_target, kv_budget_tokens=PLENTY)


def test_stats_are_a_snapshot(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        before = client.engine.stats()
        await client.generate(0)
        await client.engine.settled()
        after = client.engine.stats()
        assert before.steps == 0
        assert after.steps == len(client.passes)
        assert after.decode_rows == sum(len(p.fed) for p in client.passes if not p.append)
        assert after.busy_s > 0

    serve(scenario, tiny_target)


def test_reset_forgets_chains_and_totals(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        first = await client.generate(0)
        await client.engine.reset()
        await client.engine.settled()
        assert client.engine.stats().steps == 0
        assert client.engine.stats().kv_tokens == 0
        again = await client.generate(0)
        assert again.piece == first.piece
        assert client.engine.stats().steps > 0

    serve(scenario, tiny_target)
