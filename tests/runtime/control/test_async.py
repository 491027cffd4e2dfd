"""Asynchronous policies: one wait for the bank, none after it, and verdicts that are exact p-values."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.control import (
    POLICIES,
    Admit,
    ChainId,
    Decided,
    Draft,
    Failed,
    Finish,
    Hold,
    Knobs,
    Limits,
    Score,
    Scored,
)
from tests.runtime.control.driving import MAX_CHAINS, MAX_QUESTIONS, Driver, World, examples, worlds

ASYNC = ["async-marginal", "async-conditional"]

every_async_policy = pytest.mark.parametrize("policy", ASYNC)


def bank_mates(policy: str, world: World, chain: ChainId) -> list[ChainId]:
    """The chains whose pre-samples fill the bank of `chain`, itself included; none without a bank."""
    scope = POLICIES[policy].pre_sample
    return [c for c in world.all_chains() if scope == "all" or (scope == "question" and c.question == chain.question)]


def pre_samples(policy: str, world: World, chain: ChainId) -> list[float]:
    """The bank of `chain` once it is sealed."""
    return [
        world.ell(c, 0)
        for c in bank_mates(policy, world, chain)
        if not any(isinstance(world.outcome(kind, c, 0), Failed) for kind in (Draft, Score))
    ]


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "barrier"])
@examples
@given(world=worlds(limited=False), nth=st.integers(0, MAX_QUESTIONS * MAX_CHAINS - 1), eager=st.booleans())
def test_once_its_bank_is_sealed_a_chain_runs_to_its_end_while_all_other_calls_are_withheld(
    policy: str, world: World, nth: int, eager: bool
) -> None:
    driver = Driver(policy, world)
    chain = world.all_chains()[nth % len(world.all_chains())]
    mates = bank_mates(policy, world, chain)
    while awaited := [
        number
        for number, call in driver.open.items()
        if call.turn == 0 and call.chain in mates and isinstance(call, Draft | Score)
    ]:
        driver.answer(driver.pick(list(driver.open) if eager else awaited))
    while chain not in [finish.chain for finish in driver.finishes]:
        (own,) = [number for number, call in driver.open.items() if call.chain == chain]
        driver.answer(own)
    assert driver.run().controller.done


@every_async_policy
@examples
@given(world=worlds())
def test_the_bank_costs_no_extra_drafts_or_scores(policy: str, world: World) -> None:
    driver = Driver(policy, world).run()
    drafts = [(call.chain, call.turn) for call in driver.calls if isinstance(call, Draft)]
    scores = [(call.chain, call.turn) for call in driver.calls if isinstance(call, Score)]
    assert len(drafts) == sum(finish.turns for finish in driver.finishes)
    drafted = [(c, t) for c, t in drafts if not isinstance(world.outcome(Draft, c, t), Failed)]
    assert Counter(scores) == Counter(drafted)


@every_async_policy
@examples
@given(world=worlds())
def test_no_first_turn_is_decided_before_the_whole_bank_is_in_and_then_all_are_at_once(
    policy: str, world: World
) -> None:
    driver = Driver(policy, world).run()
    missing = set(world.all_chains())
    undecided: set[ChainId] = set()
    for step in driver.steps:
        if step.call is not None and step.call.turn == 0:
            if isinstance(step.event, Scored):
                undecided.add(step.call.chain)
            if isinstance(step.event, Scored | Failed):
                missing.discard(step.call.chain)
        for command in step.commands:
            if isinstance(command, Decided) and command.turn == 0:
                assert missing.isdisjoint(bank_mates(policy, world, command.chain))
                undecided.remove(command.chain)
        for chain in undecided:
            assert not missing.isdisjoint(bank_mates(policy, world, chain))
    assert not undecided


@every_async_policy
@examples
@given(world=worlds())
def test_a_chain_waits_for_the_bank_at_most_once_and_before_its_first_verdict(policy: str, world: World) -> None:
    held: set[ChainId] = set()
    decided: set[ChainId] = set()
    for entry in Driver(policy, world).run().timeline():
        match entry:
            case Hold(chain, turn, "bank"):
                assert turn == 0
                assert chain not in held | decided
                held.add(chain)
            case Hold(_, _, cause):
                assert cause == "admission"
                assert policy != "async-marginal" or world.limits.questions_in_flight is not None
            case Decided(chain):
                decided.add(chain)


@every_async_policy
@examples
@given(world=worlds())
def test_a_verdict_is_the_p_value_against_the_pre_samples_without_the_segment_itself(policy: str, world: World) -> None:
    for decided in Driver(policy, world).run().decided:
        bank = pre_samples(policy, world, decided.chain)
        if decided.turn == 0:
            bank.remove(decided.ell)
        p_value = (1 + sum(other >= decided.ell for other in bank)) / (len(bank) + 1)
        assert decided.p_value == p_value
        assert decided.alpha == world.knobs.alpha
        assert decided.taken_over == (p_value <= world.knobs.alpha)


@every_async_policy
@examples
@given(world=worlds(failures=False, ties=False))
def test_without_ties_the_takeovers_of_a_bank_are_alpha_of_it_rounded_down(policy: str, world: World) -> None:
    alpha = world.knobs.alpha
    takeovers: Counter[int] = Counter()
    for decided in Driver(policy, world).run().decided:
        if decided.turn == 0:
            takeovers[0 if policy == "async-marginal" else decided.chain.question] += decided.taken_over
    assert len(takeovers) == (1 if policy == "async-marginal" else world.questions)
    n = world.chains * (world.questions if policy == "async-marginal" else 1)
    # The p-values are the floats nearest to 1/n, ..., n/n; one that rounds to alpha itself counts as at most alpha.
    within = math.floor(Fraction(alpha) * n)
    within += within < n and (within + 1) / n == alpha
    assert within == sum(k / n <= alpha for k in range(1, n + 1))
    assert set(takeovers.values()) == {within}


@examples
@given(world=worlds())
def test_with_one_question_in_flight_the_marginal_bank_still_covers_all_and_only_one_goes_on(world: World) -> None:
    limits = Limits(world.limits.turns, 1, 1, questions_in_flight=1)
    driver = Driver("async-marginal", replace(world, limits=limits))
    assert [(type(c), c.chain, c.turn) for c in driver.calls] == [(Draft, c, 0) for c in world.all_chains()]
    assert not any(isinstance(command, Admit) for command in driver.commands)
    while driver.open:
        driver.answer(driver.pick(list(driver.open)))
        if driver.decided:
            assert len({call.chain.question for call in driver.open.values()}) == (not driver.controller.done)
    first = [decided for decided in driver.decided if decided.turn == 0]
    assert sorted(d.ell for d in first) == sorted(pre_samples("async-marginal", world, ChainId(0, 0)))


@every_async_policy
@pytest.mark.parametrize("stage", [Draft, Score])
@examples
@given(world=worlds(failures=False, limited=False), nth=st.integers(0, MAX_QUESTIONS * MAX_CHAINS - 1))
def test_the_last_pre_sample_awaited_releases_the_bank_by_failing(
    policy: str, stage: type[Draft | Score], world: World, nth: int
) -> None:
    """The bank is then made of the others, each of which was waiting for it."""
    driver = Driver(policy, world)
    last = world.all_chains()[nth % len(world.all_chains())]
    others = {chain for chain in bank_mates(policy, world, last) if chain != last}

    def answer(chains: set[ChainId], *kinds: type[Draft | Score]) -> None:
        while due := [n for n, c in driver.open.items() if c.chain in chains and c.turn == 0 and isinstance(c, kinds)]:
            driver.answer(driver.pick(due))

    answer(others, Draft, Score)
    if stage is Score:
        answer({last}, Draft)
    assert not any(decided.chain in others for decided in driver.decided)
    (number,) = [n for n, call in driver.open.items() if call.chain == last]
    commands = driver.controller.handle(Failed(number, "lost"))
    assert commands[0] == Finish(last, 1, "failed", "lost")
    assert {command.chain for command in commands if isinstance(command, Decided)} == others


@pytest.mark.parametrize("policy", ASYNC)
def test_a_bank_of_one_takes_over_nothing_and_its_chain_never_waits(policy: str) -> None:
    """Against no others p is 1."""
    driver = Driver(policy, world_where(failed=[], questions=1, chains=1, alpha=0.99)).run()
    assert [(d.p_value, d.taken_over) for d in driver.decided if d.turn == 0] == [(1.0, False)]
    assert not any(isinstance(command, Hold) and command.cause == "bank" for command in driver.commands)


@examples
@given(world=worlds(), bank=st.lists(st.floats(0, 300), min_size=1, max_size=9))
def test_against_a_bank_made_before_nobody_waits_and_every_verdict_is_its_plain_p_value(
    world: World, bank: list[float]
) -> None:
    driver = Driver("async-marginal", replace(world, knobs=replace(world.knobs, bank=tuple(bank)))).run()
    assert driver.controller.done
    assert not any(isinstance(command, Hold) and command.cause == "bank" for command in driver.commands)
    for decided in driver.decided:
        at_least = sum(ell >= decided.ell for ell in bank)
        assert decided.p_value == pytest.approx((1 + at_least) / (len(bank) + 1))
        assert decided.bank == "given"


def test_a_question_whose_pre_samples_all_failed_is_not_admitted() -> None:
    driver = Driver("async-marginal", world_where(failed=[0, 2], questions=4, chains=2)).run()
    assert [command.question for command in driver.commands if isinstance(command, Admit)] == [1, 3]
    assert driver.controller.done


def test_a_run_whose_pre_samples_all_failed_ends_without_a_verdict() -> None:
    driver = Driver("async-marginal", world_where(failed=[0, 1], questions=2, chains=2)).run()
    assert {type(command) for command in driver.commands} == {Draft, Finish}
    assert driver.controller.done


def world_where(*, failed: list[int], questions: int, chains: int, alpha: float = 0.4) -> World:
    """Two turns, one question in flight, and no first segment of a chain of the `failed` questions."""
    fates = b"".join((bytes([255]) if q in failed else bytes(1)) * 6 * chains for q in range(questions))
    return World(
        questions,
        chains,
        Limits(2, 1, 1, questions_in_flight=1),
        Knobs(alpha),
        False,
        fates,
        strangeness=bytes(2 * questions * chains),
        order=bytes(1),
        ties=False,
        scale=1.0,
        failures=True,
    )
