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
def test_exchanging_the_two_turns_the_interval_round(pairs: list[tuple[float, float]]) -> None:
    """Up to what may be lost unseen, which depends on how right the reference is."""
    found, turned = of(pairs), of([(b, a) for a, b in pairs])
    if any(a > b for a, b in pairs) and any(a < b for a, b in pairs):
        assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low), abs=1e-9)
    assert found.mean == pytest.approx(-turned.mean, abs=1e-12)


def test_few_questions_without_a_loss_do_not_show_that_none_would_come() -> None:
    """Of n questions without a loss, a share of up to 1 - .025^(1/n) may still be lost (Clopper & Pearson)."""
    for n, verdict in ((8, "not shown"), (180, "not shown"), (190, "lossless")):
        found = of([(1.0, 1.0)] * n)
        assert (found.mean, found.high) == (0.0, 0.0)
        assert found.low == pytest.approx(0.025 ** (1 / n) - 1, abs=1e-12)
        assert found.verdict == verdict


def test_losses_gains_and_what_lies_between() -> None:
    assert of([(0.0, 1.0)] * 30).verdict == "worse"
    assert of([(0.0, 1.0)] * 20 + [(1.0, 0.0)] * 20).verdict == "not shown"
    assert of([(1.0, 0.2)] * 60 + [(0.1, 0.2)] * 2).verdict == "better"
    small = [(0.9 + 0.01 * (i % 3 - 1), 0.9) for i in range(60)]
    assert of(small, margin=0.02).verdict == "lossless"
    assert of(small, margin=0.001).verdict == "not shown"


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """60 questions, true difference 0.05; 400 studies, of which 95% are to be covered: binomial, 1e-6 either side."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        theirs = rng.beta(4, 2, 60)
        ours = np.clip(theirs + 0.05 + rng.normal(0, 0.1, 60), -1, 2)
        found = difference(dict(enumerate(ours)), dict(enumerate(theirs)), margin=0.02)
        assert found is not None
        covered += found.low <= 0.05 <= found.high
    assert 350 <= covered <= 398


def test_only_questions_that_both_have_count_and_without_any_nothing_is_known() -> None:
    assert difference({0: 1.0}, {1: 1.0}, margin=0.02) is None
    found = difference({0: 1.0, 1: 0.0}, {1: 1.0, 2: 1.0}, margin=0.02)
    assert found is not None
    assert (found.questions, found.mean) == (1, -1.0)


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1, float("nan")])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(InputError, match="margin must lie strictly between 0 and 1"):
        difference({}, {}, margin=margin)
