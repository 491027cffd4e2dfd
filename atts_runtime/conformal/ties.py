"""Seeded tie-breakers: a function of what is decided, not of when."""

from __future__ import annotations

import random
from collections.abc import Hashable
from functools import lru_cache


@lru_cache(maxsize=1 << 16, typed=True)
def tie_breaker(seed: int, *about: Hashable) -> float:
    """Uniform on (0, 1]; the same for the same seed and `about`, in whatever order verdicts fall.

    What was drawn is kept, as seeding a generator takes far longer than all else that a verdict needs, and a sweep
    draws the same for each of its points.
    """
    return 1.0 - random.Random("/".join(str(part) for part in (seed, *about))).random()
