"""Whether the machine is at its own pace: a fixed piece of work, timed before and after what is to be measured.

A virtual machine's neighbours slow it down by up to a half for seconds or minutes, and it sees nothing of them: no
load, no stolen time. What runs meanwhile says more of them than of the program, so `undisturbed` waits until they are
calm and makes again what ended in their noise. It goes by this work alone and not by what was measured, so that it
favours no result.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

SLOW = 1.1  # times the fastest, from which on the machine counts as disturbed
LONGEST_WAIT_S = 60.0
_TRIES = 3
_TRIALS = 15


class Pace:
    """How much slower the machine is than at its fastest so far."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._weights, self._rows = (rng.random(shape, dtype=np.float32) for shape in ((256, 256), (16, 256)))
        self._fastest_s = math.inf
        for _ in range(5):
            self.now()

    def now(self) -> float:
        """1: as fast as ever. Takes a quarter of a second."""
        self._fastest_s = min(self._fastest_s, taken := statistics.median(self._trial() for _ in range(_TRIALS)))
        return taken / self._fastest_s

    def _trial(self) -> float:
        """Seconds of small products and of Python, which an engine's steps are made of."""
        start, rows = time.perf_counter(), self._rows
        for _ in range(400):
            rows = np.tanh(rows @ self._weights)
        sum(i * i for i in range(100_000))
        return time.perf_counter() - start


def undisturbed(pace: Pace, make: Callable[[], None], discard: Callable[[], None]) -> None:
    """Make it while the machine is at its pace, up to three times; says so where it never was."""
    for attempt in range(_TRIES):
        until = time.monotonic() + LONGEST_WAIT_S
        while pace.now() > SLOW and time.monotonic() < until:
            time.sleep(1.0)
        make()
        if pace.now() <= SLOW:
            return
        if attempt < _TRIES - 1:
            discard()
    print("made beside others on this machine, three times", file=sys.stderr)
