"""The best row and the Pareto front."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from atts_sim.objective import Objective, front
from atts_sim.row import Row


def row(point: int = 0, error: str | None = None, **figures: Any) -> Row:
    named = {name.replace("__", "."): value for name, value in figures.items()}
    return Row(point, f"f{point}", {}, named, error=error)


def test_bounds_and_unknown_figures_make_a_row_inadmissible() -> None:
    wanted = Objective("makespan_s", 1, (("accuracy", 0.8),), (("usd", 2.0),))
    assert wanted.score(row(makespan_s=3.0, accuracy=0.8, usd=2.0)) == 3.0
    assert wanted.misses(row(makespan_s=3.0, accuracy=0.7, usd=3.0)) == ["accuracy >= 0.8", "usd <= 2"]
    assert wanted.score(row(makespan_s=3.0, accuracy=0.9)) is None
    assert wanted.score(row(accuracy=0.9, usd=1.0)) is None
    assert wanted.score(row(makespan_s=3.0, accuracy=0.9, usd=1.0, error="no")) is None
    assert wanted.score(row(makespan_s=3.0, accuracy=0.9, usd=1.0, verdict="saturated")) is None
    assert Objective("accuracy", -1).score(row(accuracy=0.9)) == -0.9


def test_admissible_rows_are_ranked_and_those_alike_stay_in_order() -> None:
    rows = [row(i, accuracy=a) for i, a in enumerate([0.5, 0.9, 0.7, 0.9])] + [row(4), row(5, "no", accuracy=1.0)]
    assert [one.point for one in Objective("accuracy", -1).ranked(reversed(rows))] == [1, 3, 2, 0]


points = st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=30)


@given(points)
def test_nothing_beats_the_front_and_something_on_it_beats_the_rest(figures: list[tuple[int, int, int]]) -> None:
    rows = [row(i, accuracy=a, latency_s__p95=t, usd=c) for i, (a, t, c) in enumerate(figures)]
    edge = front(rows)

    def beats(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
        return one != other and one[0] >= other[0] and one[1] <= other[1] and one[2] <= other[2]

    members = [f for f, member in zip(figures, edge.members, strict=True) if member]
    assert members
    for f, member in zip(figures, edge.members, strict=True):
        assert member == (not any(beats(other, f) for other in figures))
        assert member or any(beats(other, f) for other in members)


def test_what_is_not_known_is_left_out_of_the_front_and_saturation_is_never_on_it() -> None:
    rows = [
        row(0, answered=0.5, latency_s__p95=3.0, device_s=1.0),
        row(1, answered=0.9, latency_s__p95=1.0, device_s=1.0, verdict="saturated"),
        row(2, error="no"),
    ]
    edge = front(rows)
    assert [name for name, _ in edge.figures] == ["answered", "latency_s.p95", "device_s"]
    assert edge.members == (True, False, False)
    assert front([row(0, error="no")]).members == (False,)
