"""Segments that finish in another order than they were admitted: scores whose durations know about them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from atts_runtime.conformal import Fallback, SealedBank, smoothed


class Arrival(NamedTuple):
    """A finished segment: its place in the order of admission, and its score."""

    index: int
    score: float


def burst(rng: np.random.Generator, size: int, rho: float) -> list[Arrival]:
    """Segments that start together, in order of completion. Score and log duration correlate by `rho`, both normal."""
    score, slowness = _correlated(rng, size, rho)
    return [Arrival(int(i), float(score[i])) for i in np.argsort(slowness)]


def stream(rng: np.random.Generator, size: int, rho: float, *, in_flight: int, sigma: float = 0.5) -> Iterator[Arrival]:
    """Segments of which `in_flight` run at a time, in order of completion: each that ends admits the next. Durations
    are log-normal with deviation `sigma`, as spread as lengths of reasoning segments are."""
    score, slowness = _correlated(rng, size, rho)
    duration = np.exp(sigma * slowness)
    running = [(duration[i], i) for i in range(min(in_flight, size))]
    heapq.heapify(running)
    admitted = len(running)
    while running:
        now, i = heapq.heappop(running)
        yield Arrival(i, float(score[i]))
        if admitted < size:
            heapq.heappush(running, (now + duration[admitted], admitted))
            admitted += 1


def p_value_or_u(reference: SealedBank | Fallback, score: float, u: float) -> float:
    """The p-value against a cohort; without one the tie-breaker, which takes over at the nominal rate blindly."""
    return u if isinstance(reference, Fallback) else smoothed(reference.counts(score), u)


def _correlated(rng: np.random.Generator, size: int, rho: float) -> tuple[np.ndarray, np.ndarray]:
    score, other = rng.standard_normal((2, size))
    return score, rho * score + np.sqrt(1 - rho**2) * other
