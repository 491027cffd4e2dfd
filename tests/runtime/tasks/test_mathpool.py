"""The pool of math-verify processes: what never ends is cut off, its process replaced, and nobody else waits for it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atts_runtime.tasks import mathpool
from atts_runtime.tasks.mathpool import MathPool

ENDLESS = "9^{9^{9^{9}}}"


@pytest.fixture(scope="module")
def pool() -> Iterator[MathPool]:
    made = MathPool(workers=1)
    yield made
    made.close()


@pytest.fixture
def hasty() -> Iterator[MathPool]:
    """Its deadline is long for an ordinary check and short for an endless one."""
    made = MathPool(limit_s=2.0)
    yield made
    made.close()


def pids(pool: MathPool) -> list[int | None]:
    return [None if worker._process is None else worker._process.pid for worker in pool._workers]


def test_what_the_parent_holds_is_not_held_against_a_check() -> None:
    held = b"1" * (300 << 20)
    small = MathPool(workers=1, memory_bytes=500 << 20)
    try:
        assert small.ask("x+1", "x+2") is False
    finally:
        small.close()
    assert len(held) == 300 << 20


def test_math_verify_decides(pool: MathPool) -> None:
    assert pool.ask("2x+2", "2(x+1)") is True
    assert pool.ask("2x+2", "2(x-1)") is False


def test_an_endless_check_is_unknown_and_the_next_one_is_answered(hasty: MathPool) -> None:
    assert hasty.ask("2x+2", "2(x+1)") is True
    before = pids(hasty)
    assert hasty.ask(ENDLESS, "1") is None
    assert hasty.ask("2x+2", "2(x+1)") is True
    assert pids(hasty) != before


def test_while_one_check_hangs_another_is_answered(hasty: MathPool) -> None:
    with ThreadPoolExecutor(2) as threads:
        hung = threads.submit(hasty.ask, ENDLESS, "1")
        assert threads.submit(hasty.ask, "2x+2", "2(x+1)").result() is True
        assert hung.result() is None


def test_a_worker_that_does_not_end_itself_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deaf = tmp_path / "deaf.py"
    deaf.write_text('import time\nprint("ready", flush=True)\ntime.sleep(60)\n')
    monkeypatch.setattr(mathpool, "_SCRIPT", deaf)
    monkeypatch.setattr(mathpool, "_GRACE_S", 0.1)
    pool = MathPool(limit_s=0.1, workers=1)
    assert pool.ask("1", "2") is None
    assert pids(pool) == [None]


def test_a_check_that_fills_the_memory_is_unknown() -> None:
    pool = MathPool(workers=1, memory_bytes=96 << 20)
    assert pool.ask("x" * (48 << 20), "1") is None
    assert pool.ask("2x+2", "2(x+1)") is True
    pool.close()


def test_a_process_killed_between_checks_is_replaced(pool: MathPool) -> None:
    assert pool.ask("x+x", "2x") is True
    process = pool._workers[0]._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert pool.ask("y+y", "2y") is True


def test_a_process_serves_a_bounded_number_of_checks(pool: MathPool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pool.ask("x+x", "2x") is True
    before = pids(pool)
    monkeypatch.setattr(mathpool, "_CHECKS_A_WORKER", 1)
    assert pool.ask("y+y", "2y") is True
    assert pids(pool) != before


def test_a_closed_pool_checks_again_when_asked(pool: MathPool) -> None:
    assert pool.ask("x+x", "2x") is True
    pool.close()
    assert pids(pool) == [None]
    assert pool.ask("y+y", "2y") is True


def test_a_process_that_cannot_start_is_an_error_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="did not start"):
        MathPool().ask("x+x", "2x")


def test_answers_are_never_evaluated_as_code(pool: MathPool, tmp_path: Path) -> None:
    target = tmp_path / "created"
    code = f"__import__('pathlib').Path('{target}').touch()"
    assert pool.ask(code, "1") is not True
    assert pool.ask("1", code) is not True
    assert not target.exists()


def test_checks_from_many_threads_keep_their_own_replies() -> None:
    pool = MathPool()
    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(lambda n: pool.ask(f"{n}x", f"x \\cdot {n - n % 2}"), range(1, 17)))
    pool.close()
    assert verdicts == [n % 2 == 0 for n in range(1, 17)]
