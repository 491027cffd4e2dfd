"""The law of a smoothed p-value in fractions: over equally likely counts, and over the tie-breaker analytically."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import product

from atts_runtime.conformal import Counts, smoothed


def tie_patterns(n: int) -> Iterator[tuple[int, ...]]:
    """Every way in which n + 1 sorted scores can tie with their neighbours, up to the values themselves."""
    for steps in product((0, 1), repeat=n):
        yield tuple(sum(steps[:i]) for i in range(n + 1))


def exactly_smoothed(counts: Counts, u: Fraction) -> Fraction:
    """The p-value without rounding: a fraction goes in and, since only arithmetic is done with it, comes out."""
    p_value: object = smoothed(counts, u)  # type: ignore[arg-type]
    assert isinstance(p_value, Fraction)
    return p_value


def unfair_levels(equally_likely: Iterable[Counts]) -> dict[Fraction, Fraction]:
    """The levels a with P(smoothed p <= a) other than a, and that probability; none if p is exactly uniform.

    For given counts the p-value is uniform on an interval. The mixture's distribution function is linear between
    the ends of these intervals, so that it is enough to look at them.
    """
    times = Counter(equally_likely)
    intervals = [(_at_zero(counts), exactly_smoothed(counts, Fraction(1)), often) for counts, often in times.items()]
    levels = {end for low, high, _ in intervals for end in (low, high)} | {Fraction(0), Fraction(1)}
    reached = {
        a: sum(often * min(max((a - low) / (high - low), Fraction(0)), Fraction(1)) for low, high, often in intervals)
        / Fraction(times.total())
        for a in levels
    }
    return {a: probability for a, probability in reached.items() if probability != a}


def _at_zero(counts: Counts) -> Fraction:
    """The p-value's limit as the tie-breaker goes to 0, which it never is."""
    return 2 * exactly_smoothed(counts, Fraction(1, 2)) - exactly_smoothed(counts, Fraction(1))
