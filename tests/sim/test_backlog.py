"""A queue that grows is told from one that does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_sim.backlog import backlog

waits = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)).map(lambda ends: (min(ends), max(ends))), max_size=20)


@given(waits, st.floats(0.1, 12))
def test_the_mean_is_that_of_the_halves_and_of_the_time_waited(pairs: list[tuple[float, float]], until: float) -> None:
    found = backlog(pairs, until)
    assert found is not None
    waited = sum(max(0.0, min(end, until) - min(start, until)) for start, end in pairs)
    assert found.mean == pytest.approx(waited / until, rel=1e-9, abs=1e-9)
    assert found.mean == pytest.approx((found.first_half + found.second_half) / 2, rel=1e-9, abs=1e-9)


def test_a_queue_that_grows_evenly_is_three_times_as_long_in_the_second_half() -> None:
    found = backlog([(second, 1000.0) for second in range(1000)], 1000.0)
    assert found is not None
    assert found.second_half == pytest.approx(3 * found.first_half, rel=0.01)


def test_a_steady_queue_is_as_long_in_both_halves() -> None:
    found = backlog([(second, second + 5.0) for second in range(-5, 1000)], 1000.0)
    assert found is not None
    assert found.first_half == pytest.approx(found.second_half, rel=0.01)


def test_no_time_has_no_backlog() -> None:
    assert backlog([], 0.0) is None
