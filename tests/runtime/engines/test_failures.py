"""What goes wrong is an EngineError for the calls it touches, and never a call that hangs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from atts_runtime.control.events import ChainId
from atts_runtime.engines.base import EngineError, GenerateCall, Piece, ScoreCall
from atts_runtime.engines.transformers import TransformersEngine
from atts_runtime.errors import InputError
from tests.runtime.engines.watching import Pass, watch

CALL = GenerateCall(ChainId(0, 0), "37 (a)+45\n\n", (), 5, 1.0, None, (0,))


def breaks_at(client: Any, count: int) -> None:
    """Let the pass numbered `count`, and that one only, raise."""
    passes = 0

    def failing(_: Pass) -> None:
        nonlocal passes
        passes += 1
        if passes == count:
            raise RuntimeError("the device is gone")

    watch(client.worker.lm, failing)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_failing_pass_fails_the_open_calls_and_the_same_calls_succeed_next(
    serve: Any, tiny_target: Path, count: int
) -> None:
    """In the pass that computes the prompt, in one that appends a segment, and in decode steps."""

    async def calls(client: Any, text: Piece) -> list[Any]:
        return await client.together(
            client.generate(0, n=8), client.generate(1, text, n=8), client.score(2, text), return_exceptions=True
        )

    async def scenario(client: Any) -> None:
        text = Piece("82 = ", tuple(client.worker.lm.encode("82 = ")), client.worker.lm.vocab)
        expected = await calls(client, text)
        await client.engine.reset()
        breaks_at(client, count)
        failed = await calls(client, text)
        errors = [error for error in failed if isinstance(error, Exception)]
        assert errors
        for error in errors:
            assert isinstance(error, EngineError)
            assert error.retryable
            assert "the device is gone" in str(error)
        again = await calls(client, text)
        assert [r.piece for r in again[:2]] == [r.piece for r in expected[:2]]
        assert again[2].ell == expected[2].ell

    serve(scenario, tiny_target)


def test_a_dropped_call_whose_row_cannot_be_parked_holds_nothing_up(
    serve: Any, tiny_target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(client: Any) -> None:
        def broken(*_: Any) -> None:
            raise RuntimeError("out of memory")

        with monkeypatch.context() as patch:
            dropped = asyncio.create_task(client.generate(0, n=400))
            while client.worker.stats.decode_steps < 3:
                await asyncio.sleep(0.001)
            patch.setattr("atts_runtime.engines.kv.KvBuffer.park", broken)
            dropped.cancel()
            await asyncio.wait([dropped])
            while client.worker.has_work:
                await asyncio.sleep(0.001)
        assert (await client.generate(0, n=5)).piece.ids

    serve(scenario, tiny_target)


@pytest.mark.parametrize("method", ["reserve", "put", "park", "move"])
def test_running_out_of_memory_between_passes_fails_the_calls_too(
    serve: Any, tiny_target: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def scenario(client: Any) -> None:
        expected = await asyncio.gather(*(client.generate(i, n=4 + i) for i in range(3)))
        await client.engine.reset()

        def broken(*_: Any) -> None:
            raise RuntimeError("out of memory")

        with monkeypatch.context() as patch:
            patch.setattr(f"atts_runtime.engines.kv.KvBuffer.{method}", broken)
            failed = await client.together(*(client.generate(i, n=4 + i) for i in range(3)), return_exceptions=True)
        assert any(isinstance(error, EngineError) for error in failed)
        again = await asyncio.gather(*(client.generate(i, n=4 + i) for i in range(3)))
        assert [r.piece for r in again] == [r.piece for r in expected]

    serve(scenario, tiny_target)


def test_a_prompt_finished_in_the_pass_that_fails_is_computed_again(
    serve: Any, tiny_target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What breaks is the call before it in the batch; nobody may wait for the prompt in vain."""

    async def scenario(client: Any) -> None:
        text = Piece("82 = 54", tuple(client.worker.lm.encode("82 = 54")), client.worker.lm.vocab)
        await client.score(1, text)

        def broken(*_: Any) -> None:
            raise RuntimeError("out of memory")

        with monkeypatch.context() as patch:
            patch.setattr("atts_runtime.engines.jobs.ScoreJob.result", broken)
            first, second = await client.together(
                client.score(2, text), client.generate(3, prompt="5\n\n"), return_exceptions=True
            )
        assert isinstance(first, EngineError)
        assert isinstance(second, EngineError)
        assert (await client.generate(3, prompt="5\n\n")).piece.ids

    serve(scenario, tiny_target)


def test_an_impossible_call_is_an_error_of_its_own(serve: Any, tiny_target: Path) -> None:
    """It is not retryable, and the call beside it does not notice."""

    async def scenario(client: Any) -> None:
        text = Piece("82", tuple(client.worker.lm.encode("82")), client.worker.lm.vocab)
        empty = Piece("", (), text.vocab)
        beside = asyncio.create_task(client.generate(0, n=60))
        impossible = {
            "empty segment": client.score(1, text, empty),
            "nothing to score": client.score(2),
            "max_tokens": client.generate(3, n=0),
            "non-negative": client.generate(4, seed=(-1,)),
        }
        for reason, call in impossible.items():
            with pytest.raises(EngineError, match=reason) as caught:
                await call
            assert not caught.value.retryable
        assert len((await beside).piece.ids) == 60

    serve(scenario, tiny_target)


def test_a_score_of_a_model_with_nan_weights_is_an_error(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        piece = (await client.generate(0)).piece
        with torch.no_grad():
            client.worker.lm.model.lm_head.weight.fill_(float("nan"))
        with pytest.raises(EngineError, match="nan"):
            await client.score(1, piece)

    serve(scenario, tiny_target)


def test_a_token_of_probability_zero_has_no_score(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        with torch.no_grad():
            client.worker.lm.model.lm_head.weight[7].fill_(0.0)
            client.worker.lm.model.lm_head.weight[7, 0] = float("-inf")
        with pytest.raises(EngineError, match="inf"):
            await client.score(1, Piece("", (7,), client.worker.lm.vocab))

    serve(scenario, tiny_target)


def test_close_ends_the_thread_and_the_calls_in_flight(tiny_target: Path) -> None:
    async def main() -> None:
        engine = TransformersEngine(str(tiny_target), name="tiny", device="cpu", threads=1, max_rows=2)
        await engine.start()
        thread = engine._thread
        assert thread is not None
        calls = [GenerateCall(ChainId(0, i), CALL.prompt, (), 900, 1.0, None, (i,)) for i in range(4)]
        open_calls = [asyncio.create_task(engine.generate(call)) for call in calls]
        while not engine.stats().decode_steps:
            await asyncio.sleep(0.001)
        late = [asyncio.create_task(engine.generate(CALL)) for _ in range(3)]
        await asyncio.sleep(0)
        await engine.close()
        assert not thread.is_alive()
        results = await asyncio.gather(*open_calls, *late, return_exceptions=True)
        assert all(isinstance(error, EngineError) for error in results)
        await engine.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_calls_that_race_with_close_are_all_answered(tiny_target: Path) -> None:
    async def main() -> None:
        for delay in range(10):
            engine = TransformersEngine(str(tiny_target), name="tiny", device="cpu", threads=1)
            await engine.start()
            calls = [asyncio.create_task(engine.generate(CALL)) for _ in range(5)]
            for _ in range(delay):
                await asyncio.sleep(0)
            await engine.close()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(r, EngineError) or r.piece.ids for r in results)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_an_engine_that_is_not_running_refuses_calls(tiny_target: Path, tmp_path: Path) -> None:
    async def refused(engine: TransformersEngine) -> None:
        with pytest.raises(EngineError, match=r"not started|closed"):
            await engine.generate(CALL)
        with pytest.raises(EngineError, match=r"not started|closed"):
            await engine.score(ScoreCall(CALL.chain, CALL.prompt, (Piece("8", (4,), "?"),)))
        with pytest.raises(EngineError, match=r"not started|closed"):
            await engine.reset()
        engine.release(CALL.chain)

    async def main() -> None:
        engine = TransformersEngine(str(tiny_target), name="tiny", device="cpu", threads=1)
        await refused(engine)
        await engine.start()
        await engine.close()
        await refused(engine)
        absent = TransformersEngine(str(tmp_path / "absent"), name="absent", device="cpu", threads=1)
        with pytest.raises(InputError):
            await absent.start()
        await refused(absent)
        await absent.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_an_engine_outlives_the_event_loop_that_started_it(tiny_target: Path) -> None:
    """A call whose loop is gone is dropped; the next loop's calls are answered."""
    engine = TransformersEngine(str(tiny_target), name="tiny", device="cpu", threads=1)

    async def leave() -> None:
        await engine.start()
        call = asyncio.create_task(engine.generate(GenerateCall(ChainId(0, 1), CALL.prompt, (), 500, 1.0, None, (0,))))
        await asyncio.sleep(0.01)
        call.cancel()

    async def come_back() -> None:
        assert (await engine.generate(CALL)).piece.ids
        await engine.close()

    asyncio.run(leave())
    asyncio.run(asyncio.wait_for(come_back(), 30))
