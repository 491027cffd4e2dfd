"""A frozen bank's takeovers follow the beta-binomial law, exactly: by enumeration over all orders of the scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import permutations

import pytest

from atts_runtime.conformal import Bank, SealedBank, laws, plain

SIZES = [(n, m) for n in range(6) for m in range(6) if 0 < n + m <= 6]
# Products such as 0.29 * 100 and 1.1 * 3 round the other way than the quotients that p-values are.
AWKWARD = [0.1, 0.2, 0.3, 0.1 + 0.2, 0.7 - 0.1, 1 / 3, 0.29, 0.57, 0.58, 1 - 0.9, 1 / 3 + 1 / 3, 5e-324, 1 - 2**-53]


def levels(n: int) -> list[float]:
    """Every level that a p-value in a bank of n can attain, its neighbours, one between each two, and awkward ones."""
    attained = [k / (n + 1) for k in range(1, n + 1)]
    beside = [math.nextafter(a, to) for a in attained for to in (0.0, 1.0)]
    between = [(k + 0.5) / (n + 1) for k in range(n + 1)]
    return sorted({*attained, *beside, *between, *AWKWARD})


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("make", [Bank, SealedBank])
def test_takeovers_against_a_frozen_bank_are_exactly_beta_binomial(
    make: Callable[[tuple[int, ...]], Bank | SealedBank], n: int, m: int
) -> None:
    p_values = Counter[tuple[float, ...]]()
    for order in permutations(range(n + m)):
        bank = make(order[:n])
        p_values[tuple(sorted(plain(bank.counts(score)) for score in order[n:]))] += 1
    for alpha in levels(n):
        takeovers = Counter[int]()
        for ps, times in p_values.items():
            takeovers[sum(p <= alpha for p in ps)] += times
        k = laws.smallest_ranks(n, alpha)
        for count in range(m + 1):
            exactly = Fraction(takeovers[count], math.factorial(n + m))
            assert laws.beta_binomial_pmf(count, m, k, n) == exactly, (alpha, count)


@pytest.mark.parametrize("n", range(1, 6))
def test_takeovers_against_one_bank_are_right_on_average_but_come_together(n: int) -> None:
    for k in range(1, n + 1):
        law = [laws.beta_binomial_pmf(count, 2, k, n) for count in range(3)]
        rate = Fraction(k, n + 1)
        assert sum(count * chance for count, chance in enumerate(law)) == 2 * rate
        assert law[2] > rate**2  # two scores that share a bank share its luck
