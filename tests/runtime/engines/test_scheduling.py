"""Calls share forward passes, join and leave between them, and end each in its own time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_more_calls_than_rows_all_finish_and_never_share_more_rows(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        lengths = [12, 3, 7, 1, 9, 5]
        results = await client.together(*(client.generate(i, n=n) for i, n in enumerate(lengths)))
        assert [len(result.piece.ids) for result in results] == lengths
        rows = [len(p.fed) for p in client.passes if not p.append]
        assert max(rows) == 2
        # A row that is free is filled at once: the first token of each call comes from the prompt's own logits.
        assert sum(rows) == sum(lengths) - len(lengths)
        assert len(rows) < sum(rows)

    serve(scenario, tiny_target, max_rows=2)


def test_a_short_call_does_not_wait_for_a_long_one(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        order = []

        async def call(chain: int, n: int) -> None:
            await client.generate(chain, n=n)
            order.append(n)

        await client.together(call(0, 60), call(1, 4), call(2, 25))
        assert order == [4, 25, 60]

    serve(scenario, tiny_target)


def test_a_call_joins_while_another_runs(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        long = asyncio.create_task(client.generate(0, n=400))
        await until(lambda: client.worker.stats.decode_steps > 3)
        short = await client.generate(1, n=5)
        await client.score(2, short.piece)
        assert not long.done()
        await long
        assert {len(p.fed) for p in client.passes if not p.append} == {1, 2}

    serve(scenario, tiny_target)


def test_calls_on_one_chain_take_turns(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        alone = [(await client.generate(9, n=n, seed=(n,))).piece for n in (6, 3, 8)]
        together = await client.together(*(client.generate(0, n=n, seed=(n,)) for n in (6, 3, 8)))
        assert [result.piece for result in together] == alone

    serve(scenario, tiny_target)


def test_cancelling_a_call_frees_its_row_and_the_others_go_on(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        fresh = (await client.generate(9, n=6, seed=(0,))).piece
        running = asyncio.create_task(client.generate(0, n=900, seed=(0,)))
        await until(lambda: len(client.worker._rows) == 1 and client.worker.stats.decode_steps > 8)
        waiting = asyncio.create_task(client.generate(1, n=6, seed=(0,)))
        given_up = asyncio.create_task(client.generate(2, n=900))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        given_up.cancel()
        running.cancel()
        assert (await waiting).piece == fresh
        for task in (running, given_up):
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: not client.worker.has_work)
        assert client.worker.stats.decode_steps < 900
        # The cancelled chain is still good: its KV was parked as far as it had got.
        again = await client.generate(0, n=6, seed=(0,))
        assert again.piece == fresh

    serve(scenario, tiny_target, max_rows=1)


def test_cancelling_a_score_between_its_passes_leaves_the_chain_good(serve: Any, plain: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        piece = (await client.generate(9, n=300)).piece
        expected = plain(tiny_target).nll(plain(tiny_target).prompt(), piece.ids)
        client.worker.lm.step_tokens = 4
        client.passes.clear()
        score = asyncio.create_task(client.score(0, piece))
        await until(lambda: len(client.passes) > 2)
        score.cancel()
        again = await client.score(0, piece)
        assert again.ell == pytest.approx(expected, abs=1e-5)
        with pytest.raises(asyncio.CancelledError):
            await score

    serve(scenario, tiny_target)


def test_a_chain_released_while_it_generates_still_answers(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        expected = (await client.generate(0, n=50)).piece
        call = asyncio.create_task(client.generate(0, n=50))
        await asyncio.sleep(0.005)
        client.engine.release((0, 0))
        assert (await call).piece == expected

    serve(scenario, tiny_target)


def test_the_event_loop_beats_on_while_torch_computes(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        call = asyncio.create_task(client.generate(0, n=300))
        beats = 0
        while not call.done():
            await asyncio.sleep(0.001)
            beats += 1
        assert beats > 10

    serve(scenario, tiny_target)


def test_usage_times_are_in_order(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        results = await asyncio.gather(*(client.generate(i, n=5) for i in range(4)))
        results.append(await client.score(5, results[0].piece))
        for usage in (result.usage for result in results):
            assert 0 < usage.t_queued_s <= usage.t_start_s <= usage.t_end_s

    serve(scenario, tiny_target, max_rows=2)
