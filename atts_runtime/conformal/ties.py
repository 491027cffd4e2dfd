"""Seeded tie-breakers: a function of what is decided, not of when."""

from __future__ import annotations

import random


def tie_breaker(seed: int, *about: object) -> float:
    """Uniform on (0, 1]; the same for the same seed and `about`, in whatever order verdicts fall."""
    return 1.0 - random.Random("/".join(str(part) for part in (seed, *about))).random()
