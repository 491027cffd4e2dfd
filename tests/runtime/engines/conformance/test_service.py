"""How every engine serves: slots, costs, totals."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from atts_runtime.engines.base import EngineError, Generated, Piece, Scored
from tests.runtime.engines.conformance.conftest import PROMPT, ROWS


def test_a_cancelled_call_frees_its_slot_at_once(serve: Any, words_model: Any) -> None:
    """With every row taken by long texts and then cancelled, one more call decodes alone."""
    client = serve(words_model)

    async def scenario() -> tuple[int, Generated]:
        calls = [asyncio.ensure_future(client.generate(i, n=900, temperature=1.0)) for i in range(ROWS)]
        while client.engine.stats().decode_rows < 2 * ROWS:
            await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
        for call in calls:
            with contextlib.suppress(asyncio.CancelledError):
                await call
        await client.engine.settled()
        before = client.engine.stats().decode_rows
        generated = await client.generate(100, n=8)
        await client.engine.settled()
        return client.engine.stats().decode_rows - before, generated

    rows, generated = client.run(scenario)
    assert len(generated.piece.ids) == 8
    assert rows <= 8


def test_a_cancelled_score_leaves_the_chain_usable(serve: Any, plain: Any, words_model: Any) -> None:
    client, reference = serve(words_model), plain(words_model)

    async def scenario() -> tuple[tuple[int, ...], Scored]:
        piece = (await client.generate(0, n=30)).piece
        call = asyncio.ensure_future(client.score(1, piece))
        await asyncio.sleep(0)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        return piece.ids, await client.score(1, piece)

    ids, scored = client.run(scenario)
    assert scored.ell == pytest.approx(reference.nll(reference.prompt(), ids), abs=1e-4)


def test_every_call_says_when_it_ran_and_what_it_needed(serve: Any, words_model: Any) -> None:
    client = serve(words_model)

    async def scenario() -> list[Any]:
        first = await client.generate(0, n=20)
        other = Piece("82 (b)-28: 2-8=4'", (1,), "another vocabulary")
        scored = await client.score(0, first.piece, other)
        second = await client.generate(0, first.piece, other, n=20)
        await client.engine.settled()
        return [(first, scored, second), client.engine.stats(), client.engine.steps()]

    calls, stats, steps = client.run(scenario)
    usages = [call.usage for call in calls]
    assert all(usage.t_queued_s <= usage.t_start_s <= usage.t_end_s for usage in usages)
    assert [usage.tokens_new for usage in usages] == [20, 14, 20]
    assert stats.busy_s > 0
    assert stats.steps > 0
    if steps is None:  # a server elsewhere does not show its steps
        assert {usage.own for usage in usages} == {None} == {stats.phases}
        return
    assert all(usage.own.flops > 0 and usage.own.bytes > 0 for usage in usages)
    charged = sum(usage.prefill.flops + usage.own.flops for usage in usages)
    assert charged == sum(demand.flops for demand in stats.phases.values())
    assert stats.flops_executed > 0.9 * charged  # more where batches are padded
    assert len(steps) == stats.steps


def test_a_reset_engine_has_done_nothing(serve: Any, words_model: Any) -> None:
    client = serve(words_model)

    async def scenario() -> list[Any]:
        await client.generate(0, n=20)
        await client.engine.settled()
        before = client.engine.stats()
        await client.engine.reset(counted=False)
        return [before, client.engine.stats(), await client.generate(0, n=2), client.engine.steps()]

    before, after, generated, steps = client.run(scenario)
    assert before.steps > 0
    assert (after.steps, after.prefilled_tokens, after.decode_rows) == (0, 0, 0)
    assert generated.usage.tokens_cached <= client.engine.prompt_tokens(PROMPT)  # which may be charged apart
    assert (generated.usage.own, steps) == (None, None)


def test_it_knows_its_model(serve: Any, plain: Any, words_model: Any) -> None:
    client, reference = serve(words_model), plain(words_model)
    engine = client.engine
    assert engine.max_context_tokens == 1024
    assert engine.prompt_tokens("37 (a)+45\n\n") == len(reference.prompt("37 (a)+45\n\n"))
    if engine.spec is None:  # a server elsewhere does not tell
        assert (engine.placement, engine.uncounted is not None) == (None, True)
        return
    assert (engine.spec.layers, engine.spec.width, engine.spec.heads, engine.spec.kv_heads) == (2, 64, 2, 1)
    assert (engine.placement.device, engine.placement.dtype) == ("cpu", "float32")


def test_a_released_chain_can_come_back(serve: Any, words_model: Any) -> None:
    client = serve(words_model)

    async def scenario() -> list[tuple[int, ...]]:
        first = (await client.generate(0, n=6)).piece
        client.engine.release(client_chain := call_chain(0))
        again = (await client.generate(0, n=6)).piece
        client.engine.release(client_chain)
        client.engine.release(call_chain(99))
        return [first.ids, again.ids]

    first, again = client.run(scenario)
    assert first == again


def call_chain(index: int) -> Any:
    from atts_runtime.control.events import ChainId

    return ChainId(0, index)


def test_an_engine_that_was_not_started_says_so(words_model: Any) -> None:
    from tests.runtime.engines.conformance.conftest import Client, embedded

    client = Client(embedded(words_model), asyncio.new_event_loop())
    with pytest.raises(EngineError, match="not started"):
        asyncio.run(client.generate())
    client.loop.close()
