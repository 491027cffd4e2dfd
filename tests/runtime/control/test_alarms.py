"""Monitors that ring are heard: each alarm is told with the chain that set it off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from atts_runtime.conformal import Alarm, tie_breaker
from atts_runtime.conformal.watch import AdmissionWatch, CompletionWatch
from atts_runtime.control import POLICIES, Alarmed, ChainId, Failed, Finish, Scored
from tests.runtime.control.driving import Driver, World, quiet


def drive(world: World) -> Driver:
    return Driver("async-adaptive", world).run()


def alarms_of(driver: Driver) -> list[tuple[ChainId, int, Alarm]]:
    return [(c.chain, c.turn, c.alarm) for c in driver.commands if isinstance(c, Alarmed)]


def alarms_by_hand(driver: Driver) -> Iterator[tuple[ChainId, int, Alarm]]:
    """What the two watches say to the scores in order of arrival, in a world where every chain scores every turn."""
    admission, completion = AdmissionWatch(100.0, 0), CompletionWatch(100.0)
    arrived: dict[tuple[int, int], list[float]] = {}
    for step in driver.steps:
        if step.call is not None and isinstance(step.event, Scored):
            chain, turn, ell = step.call.chain, step.call.turn, step.event.ell
            scores = arrived.setdefault((chain.question, turn), [])
            scores.append(ell)
            alarms = completion.watch(chain.question, turn, ell, tie_breaker(0, chain, turn))
            if len(scores) == driver.world.chains:
                alarms += admission.watch(chain.question, turn, scores)
            for alarm in alarms:
                yield chain, turn, alarm


@pytest.mark.parametrize(("questions", "chains", "name"), [(1, 60, "completion"), (60, 1, "admission")])
def test_scores_that_rise_in_order_of_arrival_or_of_admission_ring_and_the_chain_is_told(
    questions: int, chains: int, name: str
) -> None:
    driver = drive(quiet(questions, chains, turns=1, strangeness=bytes(range(60))))
    alarmed = alarms_of(driver)
    assert alarmed == list(alarms_by_hand(driver))
    assert {alarm.key for _, _, alarm in alarmed} == {f"{name}/turn 0"}
    assert {alarm.kind for _, _, alarm in alarmed} == {"ville", "cusum"}


def test_later_turns_have_monitors_of_their_own() -> None:
    rising = bytes(value for i in range(60) for value in (0, i))
    driver = drive(quiet(1, 60, turns=2, strangeness=rising))
    alarmed = alarms_of(driver)
    assert alarmed == list(alarms_by_hand(driver))
    assert "completion/turn 1" in {alarm.key for _, _, alarm in alarmed}


@pytest.mark.parametrize("policy", [name for name, policy in POLICIES.items() if not policy.monitors])
def test_policies_without_monitors_never_ring(policy: str) -> None:
    driver = Driver(policy, quiet(1, 60, turns=1, strangeness=bytes(range(60)))).run()
    assert driver.finishes
    assert not any(isinstance(command, Alarmed) for command in driver.commands)


def test_a_chain_that_leaves_sets_off_the_alarm_of_a_question_that_waited_for_it_alone() -> None:
    """Of the two chains of each question the second fails to score, after the first has."""
    fates = bytes(255 * (call % 6 == 4) for call in range(6 * 60))  # draft, score, takeover of each chain
    rising = bytes(question for question in range(60) for _ in range(2))
    world = replace(quiet(60, 2, turns=1, strangeness=rising), fates=fates, failures=True)
    watch = AdmissionWatch(100.0, 0)
    expected = [(ChainId(q, 1), 0, a) for q in range(60) for a in watch.watch(q, 0, [world.ell(ChainId(q, 0), 0)])]
    driver = drive(world)
    assert {alarm.kind for _, _, alarm in expected} == {"ville", "cusum"}
    assert alarms_of(driver) == expected
    for step in driver.steps:
        if any(isinstance(command, Alarmed) for command in step.commands):
            assert isinstance(step.event, Failed)
            assert step.call is not None
            finish = step.commands.index(Finish(step.call.chain, 1, "failed", step.event.reason))
            assert all(at < finish for at, command in enumerate(step.commands) if isinstance(command, Alarmed))
