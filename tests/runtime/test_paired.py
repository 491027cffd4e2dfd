"""Paired differences: what an interval supports, and when it must say that it cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.errors import InputError
from atts_runtime.paired import Difference, difference

shares = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40)


def of(pairs: list[tuple[float, float]], margin: float = 0.02) -> Difference:
    ours, theirs = ({q: pair[side] for q, pair in enumerate(pairs)} for side in (0, 1))
    found = difference(ours, theirs, margin=margin)
    assert found is not None
    return found


@given(pairs=shares)
def test_the_interval_holds_the_mean_and_is_the_same_each_time(pairs: list[tuple[float, float]]) -> None:
    found = of(pairs)
    assert found.mean == pytest.approx(np.mean([a - b for a, b in pairs]), abs=1e-12)
    assert found.low <= found.mean + 1e-12
    assert found.high >= found.mean - 1e-12
    assert found == of(pairs)


@given(pairs=shares)
def test_the_interval_is_never_narrower_than_that_of_the_questions_alone(pairs: list[tuple[float, float]]) -> None:
    """In the mean over what is drawn: the one question more only widens it. Within the noise of resampling."""
    found, deltas = of(pairs), np.array([a - b for a, b in pairs])
    draws = np.random.default_rng(1).integers(len(pairs), size=(4000, len(pairs)))
    low, high = np.quantile(deltas[draws].mean(axis=1), (0.025, 0.975))
    noise = 0.3 * (high - low) + 2 / (1 + len(pairs)) * np.abs(deltas).max() + 1e-9
    assert found.low <= low + noise
    assert found.high >= high - noise


def test_few_questions_without_a_loss_do_not_show_that_none_would_come() -> None:
    """Of n questions without a loss, a share of up to 1 - .025^(1/n) may still be lost (Clopper & Pearson)."""
    for n, verdict in ((8, "not shown"), (180, "not shown"), (190, "lossless")):
        found = of([(1.0, 1.0)] * n)
        assert (found.mean, found.high) == (0.0, 0.0)
        assert found.low == pytest.approx(0.025 ** (1 / n) - 1, abs=1e-12)
        assert found.verdict == verdict


def test_one_small_loss_among_few_questions_shows_no_more_than_none_does() -> None:
    pairs = [(1.0, 1.0)] * 14 + [(0.95, 1.0), (1.0, 0.95)]
    assert of(pairs).low < -0.1
    assert of(pairs).verdict == "not shown"


def test_losses_gains_and_what_lies_between() -> None:
    assert of([(0.0, 1.0)] * 30).verdict == "worse"
    assert of([(0.0, 1.0)] * 20 + [(1.0, 0.0)] * 20).verdict == "not shown"
    assert of([(1.0, 0.2)] * 60 + [(0.1, 0.2)] * 2).verdict == "better"
    small = [(0.9 + 0.01 * (i % 3 - 1), 0.9) for i in range(400)]
    assert of(small, margin=0.02).verdict == "lossless"
    assert of(small, margin=0.001).verdict == "not shown"


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """60 questions, true difference 0.05; 400 studies, of which 95% are to be covered: binomial, 1e-6. More is
    due to the question that is added."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        theirs = rng.beta(4, 2, 60)
        ours = np.clip(theirs + 0.05 + rng.normal(0, 0.1, 60), -1, 2)
        found = difference(dict(enumerate(ours)), dict(enumerate(theirs)), margin=0.02)
        assert found is not None
        covered += found.low <= 0.05 <= found.high
    assert covered >= 350


def test_only_questions_that_both_have_count_and_without_any_nothing_is_known() -> None:
    assert difference({0: 1.0}, {1: 1.0}, margin=0.02) is None
    found = difference({0: 1.0, 1: 0.0}, {1: 1.0, 2: 1.0}, margin=0.02)
    assert found is not None
    assert (found.questions, found.mean) == (1, -1.0)


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1, float("nan")])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(InputError, match="margin must lie strictly between 0 and 1"):
        difference({}, {}, margin=margin)
