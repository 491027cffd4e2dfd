"""What the engine counts while it runs is what its forward passes fed, each token charged to one call."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from atts_runtime.engines.base import Demand, EngineError, Piece, Usage
from atts_runtime.engines.kv import ROW_ALIGN, aligned, aligned_time, row_time
from atts_runtime.profiler import Counts, Fed, ModelSpec, step
from tests.runtime.engines.conftest import PROMPT, Client, Serve

OTHER = "8 (z)+9 (y)-7 (x)\n\n"


def spec_of(client: Client) -> ModelSpec:
    return ModelSpec.from_config(client.worker.lm.model.config, bytes_per_weight=4, bytes_per_kv_element=4)


def fed_by(client: Client) -> list[Counts]:
    """What each watched pass fed, logits left out."""
    spec = spec_of(client)
    return [
        step(spec, [Fed(len(ids), start, 0) for ids, start in zip(p.fed, p.starts, strict=True)]) for p in client.passes
    ]


def demands(usages: Iterable[Usage]) -> list[Demand]:
    found = [demand for usage in usages for demand in (usage.prefill, usage.own)]
    assert None not in found
    return [demand for demand in found if demand is not None]


async def conversation(client: Client) -> list[Usage]:
    """Chains that share prompts, write, are scored, are written over by others, and go on."""
    a, b, c = await client.together(
        client.generate(0, n=9), client.generate(1, n=5), client.generate(2, n=7, prompt=OTHER)
    )
    scored = await client.together(client.score(0, a.piece), client.score(1, b.piece))
    other = Piece("+3-1", tuple(client.worker.lm.encode("+3-1")), client.worker.lm.vocab)
    more = await client.together(client.generate(0, a.piece, other, n=6), client.generate(1, b.piece, n=4))
    again = await client.score(0, a.piece, other)
    last = await client.generate(0, a.piece, other, n=3)
    await client.engine.settled()
    return [reply.usage for reply in (a, b, c, *scored, *more, again, last)]


def test_every_token_that_was_fed_is_charged_to_one_call(serve: Serve, tiny_target: Path) -> None:
    async def scenario(client: Client) -> None:
        usages = await conversation(client)
        stats, steps, spec = client.engine.stats(), client.engine.steps(), spec_of(client)
        assert stats.phases is not None
        assert steps is not None
        passes = fed_by(client)
        logits = 2 * spec.width * spec.vocab * int(steps.column("logit_rows").sum())
        flops = sum(counts.flops for counts in passes) + logits
        assert sum(demand.flops for demand in demands(usages)) == flops
        assert sum(demand.flops for demand in stats.phases.values()) == flops
        assert int(steps.column("flops").sum()) == flops
        tokens = sum(len(ids) for p in client.passes for ids in p.fed)
        assert sum(demand.tokens for demand in demands(usages)) == tokens
        assert sum(demand.tokens for demand in stats.phases.values()) == tokens

    serve(scenario, tiny_target)


def test_a_steps_bytes_are_shared_among_its_calls(serve: Serve, tiny_target: Path) -> None:
    async def scenario(client: Client) -> None:
        usages = await conversation(client)
        steps, spec = client.engine.steps(), spec_of(client)
        assert steps is not None
        head = spec.bytes_per_weight * spec.vocab * spec.width * int((steps.column("logit_rows") > 0).sum())
        moved = math.fsum(counts.bytes for counts in fed_by(client)) + head
        assert float(steps.column("bytes").sum()) == pytest.approx(moved, rel=1e-12)
        assert math.fsum(demand.bytes for demand in demands(usages)) == pytest.approx(moved, rel=1e-12)

    serve(scenario, tiny_target)


def test_phases_tell_context_from_segments_and_from_drawn_tokens(serve: Serve, tiny_target: Path) -> None:
    async def scenario(client: Client) -> None:
        prompt = client.engine.prompt_tokens(PROMPT)
        written = await client.generate(0, n=6)
        own, prefill = written.usage.own, written.usage.prefill
        assert own is not None
        assert prefill is not None
        assert prefill.tokens == prompt
        assert own.tokens == written.usage.tokens_new - 1  # the first came from the prompt's logits, the last is unfed
        scored = await client.score(1, written.piece)
        assert scored.usage.prefill is not None
        assert scored.usage.own is not None
        assert scored.usage.prefill.tokens == 0  # the prompt is kept
        assert scored.usage.own.tokens == len(written.piece.ids)
        phases = client.engine.stats().phases
        assert phases is not None
        assert phases["score"] == Demand(
            scored.usage.own.tokens, scored.usage.own.flops, scored.usage.own.bytes, phases["score"].seconds
        )

    serve(scenario, tiny_target)


def test_a_segment_scored_after_new_context_pays_for_both_apart(serve: Serve, tiny_target: Path) -> None:
    async def scenario(client: Client) -> None:
        written = await client.generate(0, n=6)
        before = Piece("5-2", tuple(client.worker.lm.encode("5-2")), client.worker.lm.vocab)
        scored = await client.score(2, before, written.piece)
        assert scored.usage.prefill is not None
        assert scored.usage.own is not None
        assert scored.usage.prefill.tokens == len(before.ids) == scored.usage.tokens_prefilled
        assert scored.usage.own.tokens == len(written.piece.ids)

    serve(scenario, tiny_target)


def test_what_dropped_calls_needed_stays_in_the_engines_total(serve: Serve, tiny_target: Path) -> None:
    async def scenario(client: Client) -> None:
        long = asyncio.ensure_future(client.generate(0, n=400))
        while not client.worker.stats.decode_steps:
            await asyncio.sleep(0.001)
        kept = await client.generate(1, n=5)
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)
        await client.engine.settled()
        stats = client.engine.stats()
        assert stats.phases is not None
        assert kept.usage.own is not None
        assert kept.usage.prefill is not None
        total = sum(demand.flops for demand in stats.phases.values())
        assert total > kept.usage.own.flops + kept.usage.prefill.flops

    serve(scenario, tiny_target)


def test_padding_is_executed_and_not_demanded(serve: Serve, tiny_target: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.generate(0, n=5)
        stats = client.engine.stats()
        assert stats.phases is not None
        assert stats.flops_executed is not None
        assert stats.flops_executed > sum(demand.flops for demand in stats.phases.values())

    serve(scenario, tiny_target)


def test_an_engines_clocks_close_on_the_time_between_resets(serve: Serve, tiny_target: Path) -> None:
    """Busy and idle are measured apart; together they leave no second out."""

    async def scenario(client: Client) -> None:
        await client.engine.reset()
        began_s = time.perf_counter()
        await client.generate(0, n=8)
        await asyncio.sleep(0.2)
        await client.score(1, Piece("1+2", tuple(client.worker.lm.encode("1+2")), client.worker.lm.vocab))
        await asyncio.sleep(0.2)
        stats, wall_s = client.engine.stats(), time.perf_counter() - began_s
        assert stats.idle_s is not None
        assert stats.idle_s > 0.35
        assert stats.busy_s + stats.idle_s == pytest.approx(wall_s, abs=0.05)

    serve(scenario, tiny_target)


def test_the_log_of_steps_has_each_pass_in_order(serve: Serve, tiny_target: Path) -> None:
    async def scenario(client: Client) -> None:
        await conversation(client)
        steps, stats = client.engine.steps(), client.engine.stats()
        assert steps is not None
        assert len(steps) == len(client.passes) == stats.steps
        assert steps.column("rows").tolist() == [len(p.fed) for p in client.passes]
        assert steps.column("append").tolist() == [float(p.append) for p in client.passes]
        assert steps.column("new_tokens").tolist() == [sum(map(len, p.fed)) for p in client.passes]
        assert steps.column("longest_kept").tolist() == [
            max(s + len(ids) for ids, s in zip(p.fed, p.starts, strict=True)) for p in client.passes
        ]
        alone, last = client.worker.lm.groups_rows, client.passes[-1]
        assert not last.append
        kept = [start + 1 for start in last.starts]
        pairs = sum(map(row_time, kept)) if alone else aligned(len(kept), ROW_ALIGN) * aligned_time(max(kept))
        assert steps.column("pairs_executed")[-1] == pairs
        assert steps.column("groups")[-1] == (len(set(map(row_time, kept))) if alone else 1)
        starts, durations = steps.column("t_start_s"), steps.column("duration_s")
        assert (durations > 0).all()
        assert (starts[1:] >= starts[:-1] + durations[:-1] - 1e-9).all()
        assert float(durations.sum()) <= stats.busy_s

    serve(scenario, tiny_target)


def test_uncounted_the_text_is_the_same(serve: Serve, tiny_target: Path) -> None:
    async def scenario(client: Client) -> None:
        counted = await client.generate(0, n=12)
        await client.engine.reset(counted=False)
        bare = await client.generate(0, n=12)
        assert bare.piece.text == counted.piece.text
        assert counted.usage.own is not None
        assert (bare.usage.prefill, bare.usage.own) == (None, None)
        stats = client.engine.stats()
        assert (stats.phases, stats.flops_executed, client.engine.steps()) == (None, None, None)

    serve(scenario, tiny_target)


@pytest.mark.parametrize("first", [True, False])
def test_a_call_that_outlives_a_reset_is_answered_and_charged_nothing_of_before(
    serve: Serve, tiny_target: Path, first: bool
) -> None:
    async def scenario(client: Client) -> None:
        await client.engine.reset(counted=first)
        long = asyncio.ensure_future(client.generate(0, n=300))
        await client.generate(1, n=4)
        await client.engine.reset(counted=True)
        usage = (await long).usage
        assert usage.tokens_new > 10
        await client.engine.settled()
        stats = client.engine.stats()
        assert stats.phases is not None
        total = sum(demand.flops for demand in stats.phases.values())
        assert total > 0
        assert usage.own is None or 0 <= usage.own.flops <= total + 10**12

    serve(scenario, tiny_target)


def test_a_call_that_is_answered_without_a_step_demands_nothing(serve: Serve, tiny_target: Path) -> None:
    async def scenario(client: Client) -> None:
        first = await client.generate(0, n=1)
        again = await client.generate(0, n=1, seed=(7,))
        assert first.usage.own == Demand()
        assert again.usage.prefill == again.usage.own == Demand()
        with pytest.raises(EngineError):
            await client.generate(3, n=0)

    serve(scenario, tiny_target)
