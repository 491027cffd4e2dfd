"""The adaptive policy: sealed cohorts, an alpha that follows its decisions, and a cap, in any order of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atts_runtime.conformal import tie_breaker
from atts_runtime.control import (
    POLICIES,
    Call,
    ChainId,
    Controller,
    Decided,
    Draft,
    Event,
    Failed,
    Finish,
    Knobs,
    Limits,
    Score,
    Scored,
    Settled,
    TakenOver,
)
from tests.runtime.control.driving import Driver, World, examples, orders, quiet, worlds

ROUNDING = 1e-9

many = settings(examples, max_examples=100)  # one world in five has a cohort that is ready


@st.composite
def studies(draw: st.DrawFn, *, budget: bool = False) -> World:
    """Worlds with knobs that the policy takes; `budget` gives each a budget that it can keep."""
    world = draw(worlds())
    if budget and world.chains == 1:
        world = replace(world, chains=2, fates=2 * world.fates, strangeness=2 * world.strangeness)
    knobs = Knobs(
        draw(st.sampled_from([0.1, 0.25, 0.5, 0.9])),
        draw(st.integers(1, world.chains - 1)) if budget else None,
        tie_seed=draw(st.none() | st.integers(0, 9)),
        gamma=draw(st.sampled_from([0.1, 1.0])),
    )
    return replace(world, knobs=knobs)


def drive(world: World, order: bytes | None = None) -> Driver:
    return Driver("async-adaptive", world).run(order)


def by_hand(world: World, decided: Decided, others: list[float]) -> float:
    """The p-value of a decision against other scores."""
    seed, ell = world.knobs.tie_seed, decided.ell
    u = 1.0 if seed is None else tie_breaker(seed, decided.chain, decided.turn)
    return (sum(s > ell for s in others) + u * (1 + sum(s == ell for s in others))) / (len(others) + 1)


def pre_samples(world: World) -> list[float]:
    return [
        world.ell(chain, 0)
        for chain in world.all_chains()
        if not any(isinstance(world.outcome(kind, chain, 0), Failed) for kind in (Draft, Score))
    ]


def reference(world: World, question: int) -> range:
    """The questions whose same turn a later segment is compared with; the window of 32 is wider than any world."""
    return range(question - (world.limits.questions_in_flight or 1) + 1)


# What a segment is compared with


@examples
@given(world=studies())
def test_a_first_turn_has_its_exact_p_value_among_the_other_pre_samples(world: World) -> None:
    for decided in drive(world).decided:
        if decided.turn == 0:
            others = pre_samples(world)
            others.remove(decided.ell)
            assert (decided.p_value, decided.bank) == (by_hand(world, decided, others), "presample")


@many
@given(world=studies(), order=orders())
def test_insertion_order_is_admission_order_by_construction_whatever_finishes_first(world: World, order: bytes) -> None:
    """A segment with a cohort has the p-value that everything decided at that turn of the earlier questions gives it,
    among them what was still to finish had the order been another."""
    driver = drive(world, order)
    for decided in driver.decided:
        if decided.bank == "cohort":
            seen = reference(world, decided.chain.question)
            others = [d.ell for d in driver.decided if d.turn == decided.turn and d.chain.question in seen]
            assert decided.p_value == by_hand(world, decided, others)


@examples
@given(world=studies())
def test_a_segment_without_a_cohort_is_compared_with_all_pre_samples(world: World) -> None:
    for decided in drive(world).decided:
        if decided.turn > 0 and decided.bank != "cohort":
            assert decided.p_value == by_hand(world, decided, pre_samples(world))


@many
@given(world=studies())
def test_the_first_score_of_a_question_s_turn_says_for_all_of_them_whether_the_cohort_is_ready(world: World) -> None:
    scores: Counter[tuple[int, int]] = Counter()
    gone: Counter[tuple[int, int]] = Counter()
    labels: dict[tuple[int, int], str] = {}
    turns: dict[ChainId, int] = dict.fromkeys(world.all_chains(), 0)
    for step in drive(world).steps:
        if step.call is not None and isinstance(step.event, Scored):
            question, turn = cohort = step.call.chain.question, step.call.turn
            seen = [(q, turn) for q in reference(world, question)]
            if cohort not in labels and turn > 0:
                ready = all(scores[s] + gone[s] == world.chains for s in seen)
                thin = 1 / (1 + sum(scores[s] for s in seen)) > world.knobs.alpha
                labels[cohort] = "cold" if not seen else "late" if not ready else "thin" if thin else "cohort"
            scores[cohort] += 1
            turns[step.call.chain] = turn + 1
        for command in step.commands:
            if isinstance(command, Finish):
                for turn in range(turns[command.chain], world.limits.turns):
                    gone[command.chain.question, turn] += 1
            if isinstance(command, Decided) and command.turn > 0:
                assert command.bank == labels[command.chain.question, command.turn]


# Alpha


def alphas_by_hand(world: World, decisions: list[Decided], alpha: float) -> Iterator[float]:
    """alpha_t of each decision, from the verdicts of those before it."""
    offsets: Counter[Hashable] = Counter()
    for decided in decisions:
        keys = ("all", ("turn", decided.turn), ("question", decided.chain.question))
        yield alpha + sum(offsets[key] for key in keys)
        for key in keys:
            offsets[key] += world.knobs.gamma * (alpha - decided.taken_over)


@examples
@given(world=studies())
def test_alpha_t_follows_the_verdicts_in_the_order_in_which_they_fell(world: World) -> None:
    decisions = drive(world).decided
    for decided, alpha in zip(decisions, alphas_by_hand(world, decisions, world.knobs.alpha), strict=True):
        assert decided.alpha == pytest.approx(alpha, abs=ROUNDING)
        assert decided.taken_over == (decided.p_value <= decided.alpha)


@examples
@given(world=studies(budget=True))
def test_takeovers_in_flight_of_a_question_never_exceed_the_budget_and_alpha_is_its_share_of_the_chains(
    world: World,
) -> None:
    budget = world.knobs.budget
    assert budget is not None
    driver = drive(world)
    alphas = dict(zip(driver.decided, alphas_by_hand(world, driver.decided, budget / world.chains), strict=True))
    in_flight: set[ChainId] = set()
    for step in driver.steps:
        if step.call is not None and isinstance(step.event, TakenOver | Failed):
            in_flight.discard(step.call.chain)
        for command in step.commands:
            if isinstance(command, Decided):
                assert command.alpha == pytest.approx(alphas[command], abs=ROUNDING)
                holders = sum(chain.question == command.chain.question for chain in in_flight)
                assert command.taken_over == (command.p_value <= command.alpha and holders < budget)
                if command.taken_over:
                    in_flight.add(command.chain)
        for question in range(world.questions):
            assert sum(chain.question == question for chain in in_flight) <= budget


@pytest.mark.parametrize("budget", [0, 3, 4])
def test_a_budget_of_none_or_of_all_chains_is_refused(budget: int) -> None:
    with pytest.raises(ValueError, match="a budget lies strictly between 0 and the 3 chains"):
        Controller(POLICIES["async-adaptive"](Knobs(0.5, budget)), Limits(1, 1, 1), questions=2, chains=3)


# Verdicts of an earlier session


@dataclass(frozen=True)
class Settling(World):
    """A world in which some scores come with a verdict."""

    settled: dict[tuple[ChainId, int], Settled] = field(default_factory=dict)

    def outcome(self, kind: type[Call], chain: ChainId, turn: int, call: int = -1, attempt: int = 0) -> Event:
        event = super().outcome(kind, chain, turn, call, attempt)
        return event._replace(settled=self.settled.get((chain, turn))) if isinstance(event, Scored) else event


@examples
@given(world=studies(), order=orders(), share=st.sampled_from([1, 2, 3]))
def test_a_settled_verdict_stands_and_moves_alpha_whatever_the_order(world: World, order: bytes, share: int) -> None:
    first = drive(world)
    kept = [d for d in first.decided if (d.chain.question + d.chain.index) % share == 0]
    settled = {(d.chain, d.turn): Settled(d.taken_over, d.p_value, d.alpha, d.bank) for d in kept}
    settling = Settling(**vars(world), settled=settled)
    second = drive(settling, order)
    assert set(kept) <= set(second.decided)
    alphas = alphas_by_hand(world, second.decided, world.knobs.alpha)
    for decided, alpha in zip(second.decided, alphas, strict=True):
        if decided not in kept:
            assert decided.alpha == pytest.approx(alpha, abs=ROUNDING)
    if share == 1:
        assert set(second.finishes) == set(first.finishes)


def test_a_settled_verdict_stands_where_the_policy_would_come_to_the_other() -> None:
    world = quiet(questions=1, chains=4, turns=1)
    for taken_over in (False, True):
        settled = {(chain, 0): Settled(taken_over, 0.5, 0.25, "thin") for chain in world.all_chains()}
        driver = drive(Settling(**vars(world), settled=settled))
        assert {(d.taken_over, d.p_value, d.alpha, d.bank) for d in driver.decided} == {(taken_over, 0.5, 0.25, "thin")}


# Sizes


def test_the_first_question_may_finish_its_turn_last_of_many() -> None:
    """Long after every question that is compared with it."""
    world = quiet(questions=40, chains=1, turns=2)
    driver = Driver("async-adaptive", world)
    while driver.open:
        others = [number for number, call in driver.open.items() if call.chain.question > 0 or call.turn == 0]
        driver.answer((others or list(driver.open))[0])
    assert driver.controller.done
    assert [d.bank for d in driver.decided if d.turn == 1][-1] == "cold"
