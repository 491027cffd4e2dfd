"""Random numbers that belong to what they decide, not to when: a function of the seed and of what is drawn.

So two simulations that differ in policy, alpha or number of chains draw the same for the same chain and turn (common
random numbers), and their difference is that of what was changed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from hashlib import blake2b
from statistics import NormalDist

_MASK = (1 << 64) - 1
_NORMAL = NormalDist()


@lru_cache(maxsize=4096)
def _stream(seed: int, what: str) -> int:
    return int.from_bytes(blake2b(f"{seed}/{what}".encode(), digest_size=8).digest(), "big")


def uniform(seed: int, what: str, *about: int) -> float:
    """Uniform on (0, 1), by SplitMix64's mixing function (Steele, Lea and Flood, OOPSLA 2014) over the numbers."""
    state = _stream(seed, what)
    for number in about:
        state = _mix((state ^ number) & _MASK)
    return ((_mix(state) >> 11) + 0.5) / (1 << 53)


def normal(seed: int, what: str, *about: int) -> float:
    """Standard normal."""
    return _NORMAL.inv_cdf(uniform(seed, what, *about))


def logistic(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _mix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)
