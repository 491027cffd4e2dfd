"""Verdicts on queues that are known to keep up, or not to."""

from __future__ import annotations

import pytest

from atts_sim.arrivals import Bursts
from atts_sim.saturation import saturation

ARRIVED = [float(i + 1) for i in range(60)]


def test_all_at_once_is_closed_and_names_the_busier_engine() -> None:
    found = saturation([0.0] * 4, {"draft": 0.3, "target": 0.9}, at_once_s=None, admission_s=0.0)
    assert (found.verdict, found.bottleneck, found.load) == ("closed", "target", None)


@pytest.mark.parametrize(("admission_s", "bottleneck"), [(5.0, "questions_in_flight"), (0.0, "latency")])
def test_where_no_engine_is_full_something_else_holds_it_up(admission_s: float, bottleneck: str) -> None:
    assert saturation([0.0], {"draft": 0.3}, at_once_s=None, admission_s=admission_s).bottleneck == bottleneck


@pytest.mark.parametrize(
    ("service_s", "verdict"), [(0.5, "stable"), (0.97, "stable"), (1.0, "saturated"), (5.0, "saturated")]
)
def test_one_server_keeps_up_with_a_question_a_second_where_it_takes_less_for_each(
    service_s: float, verdict: str
) -> None:
    found = saturation(ARRIVED, {"target": 1.0}, at_once_s=service_s * len(ARRIVED), admission_s=0.0)
    assert (found.verdict, found.load) == (verdict, pytest.approx(service_s))


def test_bursts_are_worked_off_until_the_next_one_would_come() -> None:
    times_s = Bursts(20, 60.0).times_s(40, 0)
    found = saturation(times_s, {"target": 1.0}, at_once_s=70.0, admission_s=0.0)  # 35 s each
    assert (found.verdict, found.load) == ("stable", pytest.approx(70 / 120))


def test_arrivals_at_one_later_time_say_nothing_of_their_pace() -> None:
    found = saturation([5.0] * 30, {"target": 1.0}, at_once_s=90.0, admission_s=0.0)
    assert (found.verdict, found.load) == (None, None)


def test_a_few_arrivals_say_nothing_unless_they_are_plainly_too_many() -> None:
    assert saturation([0.0, 10.0], {"target": 1.0}, at_once_s=9.0, admission_s=0.0).verdict is None
    assert saturation([0.0, 10.0], {"target": 1.0}, at_once_s=99.0, admission_s=0.0).verdict == "saturated"
