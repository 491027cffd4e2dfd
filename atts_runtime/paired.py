"""Two policies on the same questions and seeds: by how much accuracy differs, and whether that shows a loss.

Questions are what is drawn, chains of one are not independent, so whole questions are resampled (Efron & Tibshirani
1993): the interval is the percentile interval of the mean difference over `RESAMPLES` draws of as many questions. Where
no question came out worse, resampling cannot see the losses that others may have: a share of up to 1 - .025^(1/n) of
questions (Clopper & Pearson 1934) may yet be lost, so the interval reaches so much further down, times what there is to
lose; likewise up, where none came out better.

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
    deltas = np.array([ours[q] - theirs[q] for q in shared])
    draws = np.random.default_rng(seed).integers(len(shared), size=(RESAMPLES, len(shared)))
    low, high = (float(x) for x in np.quantile(deltas[draws].mean(axis=1), (0.025, 0.975)))
    n = len(shared)
    unseen = 1 - 0.025 ** (1 / n)
    if deltas.min() >= 0:
        low -= unseen * float(np.mean([theirs[q] for q in shared]))
    if deltas.max() <= 0:
        high += unseen * float(np.mean([1 - theirs[q] for q in shared]))
    return Difference(float(deltas.mean()), low, high, margin, n)
