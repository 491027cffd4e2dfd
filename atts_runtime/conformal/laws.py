"""The laws that takeover counts follow, for documentation, tests and reports.

A frozen bank of n exchangeable scores without ties, tested with plain p-values at alpha, k = floor(alpha (n+1)):

    rate given the bank            Beta(k, n + 1 - k)
    takeovers among m new scores   beta-binomial(m; k, n + 1 - k)         (arXiv 2303.02770)

Online smoothed p-values are independent and uniform, so takeovers among m are binomial(m, alpha).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple


class Interval(NamedTuple):
    """A closed interval of rates or of counts."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def smallest_ranks(n: int, alpha: float) -> int:
    """k = floor(alpha (n + 1)): how many of the n + 1 ranks lead to a takeover."""
    _check(alpha, n)
    k = int(alpha * (n + 1))
    while (k + 1) / (n + 1) <= alpha:  # the product may round the other way than the quotient, which the p-value is
        k += 1
    while k > 0 and k / (n + 1) > alpha:
        k -= 1
    return k


def beta_binomial_pmf(takeovers: int, m: int, k: int, n: int) -> Fraction:
    """P(exactly `takeovers` of `m` new scores are among the k smallest ranks), exactly.

    It counts orders: of the n + m scores in descending order, the k-th bank score has `takeovers` new ones above.
    """
    if not 0 <= k <= n + 1:
        raise ValueError(f"k must lie between 0 and {n + 1}, got {k}")
    if not 0 <= takeovers <= m:
        return Fraction(0)
    if k == 0 or k == n + 1:
        return Fraction(int(takeovers == (0 if k == 0 else m)))
    ways = math.comb(takeovers + k - 1, takeovers) * math.comb(m - takeovers + n - k, m - takeovers)
    return Fraction(ways, math.comb(n + m, m))


def frozen_rate_interval(n: int, alpha: float, level: float = 0.95) -> Interval:
    """Central interval of the takeover rate given one frozen bank of n scores (Beta law)."""
    from scipy import stats

    k = smallest_ranks(n, alpha)
    tail = _tail(level)
    if k == 0 or k == n + 1:
        return Interval(float(k > 0), float(k > 0))
    return Interval(float(stats.beta.ppf(tail, k, n + 1 - k)), float(stats.beta.ppf(1 - tail, k, n + 1 - k)))


def takeovers_interval(m: int, alpha: float, level: float = 0.95, *, bank: int | None = None) -> Interval:
    """Central interval of the number of takeovers among m: binomial, or beta-binomial for one frozen bank of `bank`
    scores. At most (1 - level) / 2 of the law lies on either side."""
    from scipy import stats

    _check(alpha, m)
    tail = _tail(level)
    if bank is None:
        law = stats.binom(m, alpha)
    else:
        k = smallest_ranks(bank, alpha)
        if k == 0 or k == bank + 1:
            return Interval(float(m if k else 0), float(m if k else 0))
        law = stats.betabinom(m, k, bank + 1 - k)
    return Interval(float(law.ppf(tail)), float(law.ppf(1 - tail)))


def rate_interval(takeovers: int, m: int, level: float = 0.95) -> Interval:
    """Exact (Clopper-Pearson 1934) interval of a rate of which `takeovers` among `m` were seen."""
    from scipy import stats

    if not 0 <= takeovers <= m or m == 0:
        raise ValueError(f"{takeovers} takeovers among {m} decisions have no rate")
    tail = _tail(level)
    low = 0.0 if takeovers == 0 else float(stats.beta.ppf(tail, takeovers, m - takeovers + 1))
    high = 1.0 if takeovers == m else float(stats.beta.ppf(1 - tail, takeovers + 1, m - takeovers))
    return Interval(low, high)


def _tail(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"a level must lie strictly between 0 and 1, got {level!r}")
    return (1 - level) / 2


def _check(alpha: float, n: int) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie strictly between 0 and 1, got {alpha!r}")
    if n < 0:
        raise ValueError(f"a count must not be negative, got {n}")
