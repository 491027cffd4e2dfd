"""Two policies on the same questions and seeds: by how much accuracy differs, and whether that shows a loss.

Questions are what is drawn, chains of one are not independent, so whole questions are resampled (Efron & Tibshirani
1993): the interval is the percentile interval of the mean difference over `RESAMPLES` draws of as many questions. What
was not seen cannot be drawn, so each end is taken with one question more, on which all is lost that can be, or gained;
and where no question came out worse, a share of up to 1 - .025^(1/n) of them may yet be lost (Clopper & Pearson 1934),
so that the interval reaches at least so much further down, times what there is to lose; likewise up.

*Lossless* is a claim of non-inferiority: it stands only where the whole interval lies above the stated margin's loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from atts_runtime.errors import InputError

RESAMPLES = 10_000
Verdict = Literal["lossless", "worse", "better", "not shown"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean over questions of ours - theirs, its 95% interval, and what that supports at the `margin`: ``lossless`` (no
    loss of more than the margin), ``better`` (a gain), ``worse`` (a loss), or ``not shown``: too few questions to tell.
    `questions`: how many both have."""

    mean: float
    low: float
    high: float
    margin: float
    questions: int

    @property
    def verdict(self) -> Verdict:
        if self.low > 0:
            return "better"
        if self.low > -self.margin:
            return "lossless"
        return "worse" if self.high < 0 else "not shown"


def difference(
    ours: Mapping[int, float], theirs: Mapping[int, float], *, margin: float, seed: int = 0
) -> Difference | None:
    """Of shares in [0, 1] by question; None where no question has both. Raises InputError on a margin outside (0, 1).

    The same `seed` gives the same interval.
    """
    if not 0 < margin < 1:
        raise InputError(f"margin must lie strictly between 0 and 1, got {margin}")
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    n = len(shared)
    deltas = np.array([ours[q] - theirs[q] for q in shared])
    to_lose = float(np.mean([theirs[q] for q in shared]))
    picks = np.random.default_rng(seed).integers(n + 1, size=(RESAMPLES, n + 1))
    low = float(np.quantile(np.append(deltas, -to_lose)[picks].mean(axis=1), 0.025))
    high = float(np.quantile(np.append(deltas, 1 - to_lose)[picks].mean(axis=1), 0.975))
    mean, unseen = float(deltas.mean()), 1 - 0.025 ** (1 / n)
    if deltas.min() >= 0:
        low = min(low, mean - unseen * to_lose)
    if deltas.max() <= 0:
        high = max(high, mean + unseen * (1 - to_lose))
    low, high = min(low, mean), max(high, mean)
    return Difference(mean, low, high, margin, n)
