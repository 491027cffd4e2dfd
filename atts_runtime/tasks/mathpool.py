"""A pool of math-verify processes with a deadline on every check and a bound on memory.

Computer algebra can run for ever (``9^{9^{9^9}}``) or fill the memory, and no thread can be stopped, so every check
happens in a process that may be killed and is replaced. The processes run `mathworker` as a script rather than through
multiprocessing, whose spawn would import the caller's main module again and whose pools do not survive a killed worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import selectors
import subprocess
import sys
import threading
import weakref
from pathlib import Path

__all__ = ["LIMIT_S", "MEMORY_BYTES", "WORKERS", "MathPool"]

LIMIT_S = 5.0  # math-verify's own default for one comparison
WORKERS = 2
MEMORY_BYTES = 1 << 30
"""Address space of one worker; with math-verify imported it holds about 67 MB."""

_SCRIPT = Path(__file__).with_name("mathworker.py")
_GRACE_S = 2.0  # a worker ends itself at its limit; this much later it is killed
_START_S = 120.0  # importing sympy, on a machine that is busy with models
_CHECKS_A_WORKER = 5000  # then it makes room for a fresh one: sympy's caches only grow


class MathPool:
    """Answers whether math-verify accepts one answer where another is the reference.

    Args:
        limit_s: seconds that one check may take.
        workers: checks at once; a further one waits for a worker. Processes start with the first check that needs one.
        memory_bytes: address space of each worker, so that all of them stay below ``workers`` times as much.

    Safe to call from any thread. The deadline needs POSIX timers.
    """

    def __init__(self, limit_s: float = LIMIT_S, workers: int = WORKERS, memory_bytes: int = MEMORY_BYTES) -> None:
        self._workers = [_Worker(limit_s, memory_bytes) for _ in range(workers)]
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()  # the one used last is warm
        for worker in reversed(self._workers):
            self._idle.put(worker)

    def ask(self, reference: str, found: str) -> bool | None:
        """The verdict; None where math-verify failed or the check ran into its deadline or memory limit.

        Raises RuntimeError if a worker cannot start: a run whose every verdict is unknown would help nobody.
        """
        worker = self._idle.get()
        try:
            return worker.ask(reference, found)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End all workers; a later check starts another. Called by itself when the object goes away."""
        for worker in self._workers:
            worker.close()


class _Worker:
    """One process: started by the first question, replaced after it died or has served long enough."""

    def __init__(self, limit_s: float, memory_bytes: int) -> None:
        self._limit_s, self._memory_bytes = limit_s, memory_bytes
        self._process: subprocess.Popen[str] | None = None
        self._finalizer: weakref.finalize[[subprocess.Popen[str]], _Worker] | None = None
        self._lock = threading.Lock()  # against `close` from another thread
        self._served = 0

    def ask(self, reference: str, found: str) -> bool | None:
        process = self._process
        if process is None or process.poll() is not None or self._served >= _CHECKS_A_WORKER:
            process = self._start()
        self._served += 1
        reply = _exchange(process, json.dumps([reference, found]), self._limit_s + _GRACE_S)
        if not reply:
            self.close()
            return None
        verdict: bool | None = json.loads(reply)
        return verdict

    def close(self) -> None:
        with self._lock:
            if self._finalizer is not None:
                self._finalizer()
            self._process = self._finalizer = None

    def _start(self) -> subprocess.Popen[str]:
        self.close()
        process = subprocess.Popen(
            [sys.executable, "-P", str(_SCRIPT), str(self._limit_s), str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the run, which may want to finish its checks
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            encoding="ascii",
        )
        with self._lock:
            self._process, self._finalizer, self._served = process, weakref.finalize(self, _end, process), 0
        if not _exchange(process, None, _START_S):
            self.close()
            raise RuntimeError("the answer checker did not start; `python -c 'import math_verify'` says why")
        return process


def _exchange(process: subprocess.Popen[str], request: str | None, within_s: float) -> str:
    """One line out (unless None), one line back; empty when the process is gone or silent for too long."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if request is not None:
            process.stdin.write(request + "\n")
            process.stdin.flush()
        # A reply is a few bytes written at once: once any of it is there, all of it is.
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            return process.stdout.readline() if selector.select(within_s) else ""
    except (OSError, ValueError):  # the pipe is broken, or `close` closed it meanwhile
        return ""


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()
