"""One bank a key: keys do not see each other, and each keeps the exact laws of a bank of its own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import permutations, product
from math import factorial, prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atts_runtime.conformal import Bank, Mondrian
from tests.runtime.conformal.exact import unfair_levels


@settings(deadline=None)
@given(stream=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3))), window=st.none() | st.integers(1, 3))
def test_each_key_ranks_as_if_its_scores_were_the_only_ones(stream: list[tuple[str, int]], window: int | None) -> None:
    together = Mondrian(lambda: Bank(window=window))
    apart: dict[str, Bank] = defaultdict(lambda: Bank(window=window))
    for key, score in stream:
        assert together[key].counts(score) == apart[key].counts(score)
        together[key].add(score)
        apart[key].add(score)
    assert {key: list(together[key]) for key in apart} == {key: list(bank) for key, bank in apart.items()}
    assert len(together) == len(apart)


def test_a_key_gets_its_bank_once() -> None:
    made: list[Bank] = []

    def make() -> Bank:
        made.append(Bank())
        return made[-1]

    banks = Mondrian(make)
    assert len(banks) == 0
    first, second = banks["a"], banks["b"]
    assert made == [first, second]
    assert banks["a"] is first
    assert len(banks) == 2


def streams(pattern: str) -> Iterator[list[tuple[str, int]]]:
    """The pattern's categories with every order of distinct scores within each; all are equally likely.

    Categories differ as tasks do: each next one is stranger by a score, so that a shared bank would not be fair.
    """
    names = sorted(set(pattern))
    orders = [permutations(range(at, at + pattern.count(name))) for at, name in enumerate(names)]
    for chosen in product(*orders):
        rest = {name: iter(order) for name, order in zip(names, chosen, strict=True)}
        yield [(name, next(rest[name])) for name in pattern]


def interleavings(pattern: str) -> list[str]:
    return sorted({"".join(order) for order in permutations(pattern)})


@pytest.mark.parametrize(
    "pattern", [p for counts in ("aab", "aabb", "aaabb", "abc", "aabbc") for p in interleavings(counts)]
)
def test_in_every_interleaving_ranks_are_uniform_within_and_independent_across_categories(pattern: str) -> None:
    """Every sequence of ranks comes from exactly one choice of the categories' orders."""
    law = Counter[tuple[int, ...]]()
    for stream in streams(pattern):
        banks = Mondrian()
        ranks = []
        for key, score in stream:
            ranks.append(banks[key].counts(score).greater)
            banks[key].add(score)
        law[tuple(ranks)] += 1
    earlier = [pattern[:at].count(key) for at, key in enumerate(pattern)]
    assert set(law) == set(product(*(range(n + 1) for n in earlier)))
    assert set(law.values()) == {1}
    assert law.total() == prod(factorial(pattern.count(name)) for name in set(pattern))


@pytest.mark.parametrize("pattern", ["aabb", "bbaa", "abab", "baba"])
def test_one_bank_for_categories_that_differ_is_unfair_to_both(pattern: str) -> None:
    """Why keys exist: pooled, the last score of the stranger category is never the tamest, that of the other never
    the strangest."""
    pooled = []
    for stream in streams(pattern):
        bank = Bank([score for _, score in stream[:-1]])
        pooled.append(bank.counts(stream[-1][1]))
    assert unfair_levels(pooled)
