"""Verdicts on queues that are known to keep up, or not to."""

from __future__ import annotations

import pytest

from atts_sim.saturation import grows, saturation


def served(arrived: list[float], service_s: float) -> list[float]:
    """Ends of questions that one server takes in turn."""
    ends, free = [], 0.0
    for time in arrived:
        free = max(free, time) + service_s
        ends.append(free)
    return ends


ARRIVED = [float(i + 1) for i in range(60)]


def test_all_at_once_is_closed_and_names_the_busier_engine() -> None:
    found = saturation([0.0] * 4, [1.0, 2.0, 3.0, 4.0], {"draft": 0.3, "target": 0.9}, admission_s=0.0)
    assert (found.verdict, found.bottleneck) == ("closed", "target")


@pytest.mark.parametrize(("admission_s", "bottleneck"), [(5.0, "questions_in_flight"), (0.0, "latency")])
def test_where_no_engine_is_full_something_else_holds_it_up(admission_s: float, bottleneck: str) -> None:
    assert saturation([0.0], [9.0], {"draft": 0.3}, admission_s=admission_s).bottleneck == bottleneck


@pytest.mark.parametrize(
    ("service_s", "verdict"), [(0.5, "stable"), (0.97, "saturated"), (1.3, "overloaded"), (5.0, "overloaded")]
)
def test_a_queue_with_regular_arrivals(service_s: float, verdict: str) -> None:
    ends = served(ARRIVED, service_s)
    busy = service_s * len(ARRIVED) / ends[-1]
    assert saturation(ARRIVED, ends, {"target": busy}, admission_s=0.0).verdict == verdict


def test_the_order_of_ends_does_not_matter() -> None:
    ends = served(ARRIVED, 1.3)
    assert grows(ARRIVED, ends) == grows(ARRIVED, ends[::-1])


def test_a_few_arrivals_say_nothing() -> None:
    assert saturation([0.0, 1.0], [9.0, 99.0], {"target": 1.0}, admission_s=0.0).verdict is None
