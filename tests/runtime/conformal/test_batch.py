"""Many scores ranked at once get the p-values that they would get one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atts_runtime.conformal import Bank, plain, plain_batch, smoothed, smoothed_batch

Ranking = Callable[[object, object], object]

few_values = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0])
scores = st.lists(few_values | st.floats(allow_nan=False, allow_infinity=False), max_size=12)
tied = st.lists(st.tuples(few_values, st.floats(0, 1, exclude_min=True)), max_size=12)


def plainly(bank: object, tested: object) -> object:
    return plain_batch(bank, tested)  # type: ignore[arg-type]


def smoothly(bank: object, tested: object) -> object:
    return smoothed_batch(bank, tested, np.full(np.shape(tested), 0.5))  # type: ignore[arg-type]


both = pytest.mark.parametrize("rank", [plainly, smoothly])


@settings(deadline=None)
@given(bank=scores, tested=scores)
def test_plain_p_values_are_the_same_in_a_batch_and_one_by_one(bank: list[float], tested: list[float]) -> None:
    batch = plain_batch(np.sort(bank), tested)
    assert batch.shape == (len(tested),)
    assert batch.tolist() == [plain(Bank(bank).counts(score)) for score in tested]


@settings(deadline=None)
@given(bank=scores, data=st.data())
def test_smoothed_p_values_are_the_same_in_a_batch_and_one_by_one(bank: list[float], data: st.DataObject) -> None:
    tested = data.draw(scores)
    ties = data.draw(st.lists(st.floats(0, 1, exclude_min=True), min_size=len(tested), max_size=len(tested)))
    batch = smoothed_batch(np.sort(bank), tested, ties)
    assert batch.shape == (len(tested),)
    assert batch.tolist() == [smoothed(Bank(bank).counts(s), u) for s, u in zip(tested, ties, strict=True)]


@settings(deadline=None)
@given(bank=st.lists(few_values, max_size=12), tested=tied)
def test_scores_that_tie_with_much_of_the_bank_are_told_apart_by_their_own_tie_breakers(
    bank: list[float], tested: list[tuple[float, float]]
) -> None:
    batch = smoothed_batch(np.sort(bank), [score for score, _ in tested], [u for _, u in tested])
    for p_value, (score, u) in zip(batch.tolist(), tested, strict=True):
        greater, equal = sum(s > score for s in bank), sum(s == score for s in bank)
        assert p_value == (greater + u * (equal + 1)) / (len(bank) + 1)


@settings(deadline=None)
@given(tested=tied)
def test_against_an_empty_bank_plain_is_1_and_smoothed_is_the_tie_breaker(tested: list[tuple[float, float]]) -> None:
    values, ties = [score for score, _ in tested], [u for _, u in tested]
    assert plain_batch(np.empty(0), values).tolist() == [1.0] * len(tested)
    assert smoothed_batch(np.empty(0), values, ties).tolist() == ties


def test_ranking_leaves_bank_scores_and_tie_breakers_as_they_were() -> None:
    bank, tested, ties = np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.5]), np.array([0.25, 1.0])
    plain_batch(bank, tested)
    smoothed_batch(bank, tested, ties)
    assert (bank.tolist(), tested.tolist(), ties.tolist()) == ([0.0, 1.0, 1.0], [1.0, 0.5], [0.25, 1.0])


@both
@pytest.mark.parametrize("bank", [[1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 1.0, 1.0, np.nextafter(1.0, 0.0)]])
def test_a_bank_out_of_order_is_refused(rank: Ranking, bank: list[float]) -> None:
    with pytest.raises(ValueError, match="sorted in ascending order"):
        rank(bank, [0.5])


@both
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_wherever_it_is(rank: Ranking, bad: float) -> None:
    for at in range(3):
        with pytest.raises(ValueError, match="must be finite"):
            rank([0.0, 1.0, 2.0], np.insert([0.5, 1.5], at, bad))
        with pytest.raises(ValueError, match="must be finite"):
            rank(np.insert([0.0, 1.0], at, bad), [0.5])


@both
@pytest.mark.parametrize("shaped", [0.5, [[0.5]], [[]]])
def test_anything_but_a_list_of_scores_is_refused(rank: Ranking, shaped: object) -> None:
    with pytest.raises(ValueError, match="one-dimensional"):
        rank([0.0, 1.0], shaped)
    with pytest.raises(ValueError, match="one-dimensional"):
        rank(shaped, [0.5])


@pytest.mark.parametrize("ties", [[], [0.5], [0.5, 0.5, 0.5], 0.5, [[0.5, 0.5]]])
def test_anything_but_one_tie_breaker_a_score_is_refused(ties: object) -> None:
    with pytest.raises(ValueError, match="one tie-breaker a score"):
        smoothed_batch(np.array([0.0, 1.0]), [0.5, 0.7], ties)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0.0, -0.1, np.nextafter(1.0, 2.0), np.nan, np.inf])
def test_a_tie_breaker_outside_0_1_is_refused_wherever_it_is(bad: float) -> None:
    for at in range(2):
        with pytest.raises(ValueError, match="tie-breakers must be in"):
            smoothed_batch(np.array([0.0, 1.0]), [0.5, 0.7], np.insert([0.5], at, bad))
