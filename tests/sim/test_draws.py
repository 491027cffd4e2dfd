"""Draws belong to what they decide."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_sim.draws import logistic, normal, uniform

keys = st.lists(st.integers(0, 2**40), max_size=4).map(tuple)


@given(st.integers(), st.text(max_size=8), keys)
def test_the_same_is_drawn_for_the_same(seed: int, what: str, about: tuple[int, ...]) -> None:
    assert uniform(seed, what, *about) == uniform(seed, what, *about)
    assert 0 < uniform(seed, what, *about) < 1
    assert math.isfinite(normal(seed, what, *about))


def test_draws_are_uniform_and_neighbours_are_unlike() -> None:
    values = [uniform(1, "x", i, j) for i in range(100) for j in range(100)]
    assert sum(values) / 1e4 == pytest.approx(0.5, abs=0.015)  # five standard errors
    assert sum(value**2 for value in values) / 1e4 == pytest.approx(1 / 3, abs=0.015)
    assert len(set(values)) == len(values)
    products = [(a - 0.5) * (b - 0.5) for a, b in pairwise(values)]
    assert sum(products) / len(products) == pytest.approx(0.0, abs=5 / 12 / 100)
    assert uniform(1, "x", 3) != uniform(2, "x", 3) != uniform(2, "y", 3)


@given(st.floats(-800, 800))
def test_the_logistic_function_is_symmetric_and_never_overflows(x: float) -> None:
    assert logistic(x) + logistic(-x) == pytest.approx(1.0, abs=1e-12)
