"""Claims about integrals over windows and about which energy is believed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.profiler.windows import STALE_S, Points, Spans, energy_between

steps = st.lists(st.floats(0.01, 2.0), min_size=3, max_size=30)
levels = st.floats(-1e6, 1e6)


def points(*samples: tuple[float, float]) -> Points:
    series = Points()
    for t_s, value in samples:
        series.add(t_s, value)
    return series


@st.composite
def series_and_cut(draw: st.DrawFn) -> tuple[Points, Spans, list[float]]:
    """The same times as readings and as means between them, with three instants inside."""
    times = [0.0, *itertools.accumulate(draw(steps))]
    readings, means = Points(), Spans()
    for t_s in times:
        readings.add(t_s, draw(levels))
    for begin_s, end_s in itertools.pairwise(times):
        means.add(begin_s, end_s, draw(levels))
    cuts = sorted(draw(st.tuples(*[st.floats(0, times[-1])] * 3)))
    return readings, means, cuts


@given(series_and_cut())
def test_integrals_of_adjoining_windows_add_up(case: tuple[Points, Spans, list[float]]) -> None:
    readings, means, (low, middle, high) = case
    for series in (readings, means):
        parts = [series.integral(low, middle), series.integral(middle, high)]
        whole = series.integral(low, high)
        assert sum(part.value for part in parts if part) == pytest.approx(whole.value if whole else 0.0, abs=1e-3)
        assert sum(part.covered_s for part in parts if part) == pytest.approx(high - low)


def test_readings_join_by_straight_lines_and_means_hold_over_their_span() -> None:
    line = points((0.0, 0.0), (2.0, 4.0))
    assert line.integral(0.5, 1.0).value == pytest.approx(0.75)
    assert line.integral(-5.0, 9.0).covered_s == 2.0
    steps = Spans()
    steps.add(0.0, 1.0, 3.0)
    steps.add(2.0, 3.0, 5.0)  # a hole before it
    over = steps.integral(0.5, 2.5)
    assert (over.value, over.covered_s, over.mean) == pytest.approx((4.0, 1.0, 4.0))


def test_without_samples_in_the_window_there_is_no_integral() -> None:
    assert Points().integral(0.0, 1.0) is None
    assert points((0.0, 1.0)).integral(0.0, 1.0) is None
    assert points((0.0, 1.0), (1.0, 1.0)).integral(2.0, 3.0) is None
    assert points((0.0, 1.0), (1.0, 1.0)).integral(1.0, 0.0) is None
    assert Spans().integral(0.0, 1.0) is None


def test_the_counter_comes_before_power() -> None:
    energy = energy_between(points((0.0, 10.0), (2.0, 210.0)), points((0.0, 1.0), (2.0, 1.0)), 0.5, 1.5, "measured")
    assert (energy.joules, energy.provenance, energy.covered_s) == (pytest.approx(100.0), "counter", 1.0)
    assert energy.doubts == ()


@given(st.lists(st.tuples(st.floats(0.01, 2.0), st.floats(0.0, 1e6)), min_size=2, max_size=30), st.booleans())
def test_energy_is_never_negative_nor_zero_without_a_doubt(samples: list[tuple[float, float]], metered: bool) -> None:
    counter = Points()
    for t_s, joules in zip(itertools.accumulate(step for step, _ in samples), samples, strict=True):
        counter.add(t_s, joules[1])
    power = points((0.0, 100.0), (60.0, 100.0)) if metered else Points()
    energy = energy_between(counter, power, 0.0, 60.0, "fake")
    if energy.provenance == "counter":
        assert energy.joules > 0
    else:
        assert energy.doubts
        assert (energy.joules is None) == (not metered)
        assert energy.joules is None or energy.joules >= 0


def test_a_counter_that_stood_still_within_the_window_or_across_its_edge_is_stale() -> None:
    flat = STALE_S + 0.5
    counter = points((0.0, 0.0), (1.0, 100.0), (1.0 + flat, 100.0), (2.0 + flat, 200.0))
    power = points((0.0, 100.0), (2.0 + flat, 100.0))
    inside = energy_between(counter, power, 0.0, 2.0 + flat, "fake")
    edge = energy_between(counter, power, 0.0, 1.2, "fake")
    before = energy_between(counter, power, 0.0, 0.9, "fake")
    assert [energy.provenance for energy in (inside, edge, before)] == ["power", "power", "counter"]
    assert "stale" in inside.doubts[0]
    assert inside.joules == pytest.approx(100.0 * (2.0 + flat))


def test_a_counter_that_does_not_cover_the_window_leaves_it_to_power() -> None:
    whole, stopped, late = (
        points((0.0, 0.0), (10.0, 900.0)),
        points((0.0, 0.0), (4.0, 400.0)),
        points((6.0, 0.0), (10.0, 400.0)),
    )
    power = points((0.0, 100.0), (10.0, 100.0))
    for counter in (stopped, late):
        energy = energy_between(counter, power, 0.0, 10.0, "fake")
        assert (energy.joules, energy.provenance, energy.covered_s) == (pytest.approx(1000.0), "power", 10.0)
        assert energy.doubts == ("energy counter: readings cover 4.000 of 10.000 s",)
    assert energy_between(whole, power, 0.0, 10.0, "fake").provenance == "counter"
    assert energy_between(stopped, power, 0.0, 4.0, "fake").joules == pytest.approx(400.0)  # of what it covers it tells
    assert energy_between(stopped, power, 0.0, 4.2, "fake").provenance == "counter"  # a step's length does not matter


def test_without_readings_that_cover_the_window_energy_is_unknown() -> None:
    stopped, power = points((0.0, 0.0), (4.0, 400.0)), points((0.0, 100.0), (9.0, 100.0))
    energy = energy_between(stopped, power, 0.0, 10.0, "fake")
    assert (energy.joules, energy.provenance, energy.covered_s) == (None, None, 0.0)
    assert energy.doubts == (
        "energy counter: readings cover 4.000 of 10.000 s",
        "power: readings cover 9.000 of 10.000 s",
    )


def test_a_doubted_counter_without_power_leaves_energy_unknown() -> None:
    energy = energy_between(points((0.0, 5.0), (1.0, 3.0)), Points(), 0.0, 1.0, "fake")
    assert (energy.joules, energy.provenance) == (None, None)
    assert [doubt.split(":")[0] for doubt in energy.doubts] == ["energy counter", "power"]
