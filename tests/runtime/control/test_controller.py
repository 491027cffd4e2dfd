"""What holds for every policy, whatever the order of events."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atts_runtime.control import (
    POLICIES,
    Admit,
    Call,
    ChainId,
    Controller,
    Decided,
    Draft,
    Drafted,
    Event,
    Failed,
    Finish,
    Fork,
    Grade,
    Graded,
    Hold,
    Keep,
    Knobs,
    Limits,
    ProtocolError,
    Score,
    Scored,
    TakenOver,
    TakeOver,
)
from tests.runtime.control.driving import Answer, Driver, World, examples, orders, worlds

every_policy = pytest.mark.parametrize("policy", POLICIES)
every_order_free_policy = pytest.mark.parametrize("policy", [n for n, policy in POLICIES.items() if policy.order_free])


# Chains and calls


@every_policy
@examples
@given(world=worlds())
def test_every_chain_finishes_exactly_once_and_nothing_stays_open(policy: str, world: World) -> None:
    driver = Driver(policy, world).run()
    assert Counter(finish.chain for finish in driver.finishes) == Counter(world.all_chains())
    assert driver.controller.done
    assert driver.open == {}


@every_policy
@examples
@given(world=worlds())
def test_the_controller_is_done_with_the_last_finish_and_not_before(policy: str, world: World) -> None:
    finished = 0
    for step in Driver(policy, world).run().steps:
        finished += sum(isinstance(command, Finish) for command in step.commands)
        assert step.done == (finished == world.questions * world.chains)


@every_policy
@examples
@given(world=worlds())
def test_nothing_is_said_about_a_chain_after_its_finish(policy: str, world: World) -> None:
    over: set[ChainId] = set()
    for entry in Driver(policy, world).run().timeline():
        if isinstance(entry, Admit):
            continue
        assert entry.chain not in over
        if isinstance(entry, Finish):
            over.add(entry.chain)


@every_policy
@examples
@given(world=worlds())
def test_no_call_is_issued_twice_and_a_turn_goes_draft_score_takeover(policy: str, world: World) -> None:
    driver = Driver(policy, world).run()
    numbers = [call.call for call in driver.calls]
    assert len(numbers) == len(set(numbers))
    turns: dict[ChainId, dict[int, list[type[Call]]]] = defaultdict(lambda: defaultdict(list))
    for call in driver.calls:
        turns[call.chain][call.turn].append(type(call))
    action = driver.policy.action
    attempts = world.knobs.attempts if action.retries else 1
    pipeline: list[type[Call]] = ([Draft] * driver.policy.drafts + [Score] * driver.policy.scores) * attempts
    if driver.policy.gate.judges != "nothing" or not driver.policy.drafts:
        pipeline += [TakeOver] * action.takes_over
    pipeline += [Grade] * (driver.policy.vote.grades != "nothing")
    for chain, kinds_by_turn in turns.items():
        assert list(kinds_by_turn) == list(range(len(kinds_by_turn))), f"turns of {chain} out of order"
        assert len(kinds_by_turn) <= world.limits.turns
        for kinds in kinds_by_turn.values():
            assert kinds == pipeline[: len(kinds)]
    for finish in driver.finishes:
        assert finish.turns == len(turns[finish.chain])


@every_policy
@examples
@given(world=worlds())
def test_a_chain_has_at_most_one_open_call(policy: str, world: World) -> None:
    busy: set[ChainId] = set()
    for entry in Driver(policy, world).run().timeline():
        if isinstance(entry, Answer):
            busy.remove(entry.chain)
        elif isinstance(entry, Call):
            assert entry.chain not in busy
            busy.add(entry.chain)


# Events


def history(world: World, policy: str, chain: ChainId, verdicts: dict[tuple[int, int], Decided]) -> Iterator[object]:
    """What happens to a chain, call numbers left out, once its verdicts are known."""
    limits, made = world.limits, world.recipe(policy)

    def called(kind: type[Call], turn: int, attempt: int = 0) -> tuple[Event, tuple[object, ...]]:
        event = world.outcome(kind, chain, turn, attempt=attempt)
        return event, (kind, turn, attempt, event)

    for turn in range(limits.turns):
        event: Event | None = None
        drafts: list[Event] = []
        decided: Decided | None = None
        while made.drafts and (decided is None or decided.outcome == "redraft"):
            attempt = len(drafts)
            event, entry = called(Draft, turn, attempt)
            yield entry
            drafts.append(event)
            if made.scores and not isinstance(event, Failed):
                scored, entry = called(Score, turn, attempt)
                yield entry
                event = scored if isinstance(scored, Failed) else event
            if isinstance(event, Failed) or made.gate.judges == "nothing":
                break
            yield (decided := verdicts[turn, attempt])
        if decided is not None and decided.outcome == "keep":
            tried = [verdicts[turn, attempt].ell for attempt in range(len(drafts))]
            best = tried.index(min(tried))
            event = drafts[best]
            if best + 1 < len(drafts):
                yield Keep(chain, turn, best)
        elif decided is not None and decided.outcome == "fork":
            assert decided.source is not None
            assert decided.upto is not None
            yield Fork(chain, turn, ChainId(chain.question, decided.source), decided.upto)
            event = Drafted(-1, answered=False, ended=False)
        elif event is None or (decided is not None and decided.taken_over):
            event, entry = called(TakeOver, turn)
            yield entry
        if isinstance(event, Failed):
            yield Finish(chain, turn + 1, "failed", event.reason)
            return
        assert isinstance(event, Drafted | TakenOver)
        if event.answered or event.ended or turn + 1 == limits.turns:
            weighed = None
            if made.vote.grades != "nothing" and event.answer is not None:
                graded, entry = called(Grade, turn)
                yield entry
                assert isinstance(graded, Graded)
                weighed = math.exp(-graded.ell)
            reason = "answered" if event.answered else "ended" if event.ended else "turns"
            yield Finish(chain, turn + 1, reason, weight=weighed)
            return


@every_policy
@examples
@given(world=worlds())
def test_no_event_is_lost_each_moves_its_chain_along_the_table(policy: str, world: World) -> None:
    driver = Driver(policy, world).run()
    verdicts: dict[ChainId, dict[tuple[int, int], Decided]] = {chain: {} for chain in world.all_chains()}
    for decided in driver.decided:
        at = decided.turn, decided.attempt
        assert at not in verdicts[decided.chain]
        assert decided.ell == (world.ell(decided.chain, *at) if driver.policy.scores else None)
        verdicts[decided.chain][at] = decided
    seen: dict[ChainId, list[object]] = {chain: [] for chain in world.all_chains()}
    for entry in driver.timeline():
        match entry:
            case Answer(_, call):
                assert seen[call.chain].pop() == call
                attempt = call.attempt if isinstance(call, Draft | Score) else 0
                event = world.outcome(type(call), call.chain, call.turn, attempt=attempt)
                seen[call.chain].append((type(call), call.turn, attempt, event))
            case Draft() | Score() | TakeOver() | Grade() | Keep() | Fork() | Decided() | Finish():
                seen[entry.chain].append(entry)
    for chain in world.all_chains():
        assert seen[chain] == list(history(world, policy, chain, verdicts[chain]))


@every_policy
@examples
@given(world=worlds())
def test_a_failed_call_ends_its_chain_at_once_with_the_reason(policy: str, world: World) -> None:
    for step in Driver(policy, world).run().steps:
        failed = [c for c in step.commands if isinstance(c, Finish) and c.reason == "failed"]
        if isinstance(step.event, Failed):
            assert step.call is not None
            assert failed == [Finish(step.call.chain, step.call.turn + 1, "failed", step.event.reason)]
            assert step.commands[0] == failed[0]
        else:
            assert not failed


def bad_events(driver: Driver) -> Iterator[Event]:
    """Events that no driver may send now: unknown and answered calls, and wrong kinds for an open one."""
    answers = {Draft: Drafted, Score: Scored, TakeOver: TakenOver, Grade: Graded}
    for number in {-1, 0, len(driver.calls)} - driver.open.keys():
        yield Drafted(number, answered=False, ended=False)
        yield Scored(number, 1.0)
        yield TakenOver(number, answered=False, ended=False)
        yield Failed(number, "late")
    answered = [step.call.call for step in driver.steps if step.call is not None]
    if answered:
        yield Failed(answered[-1], "again")
        yield Scored(answered[-1], 1.0)
    for number, call in list(driver.open.items())[:2]:
        if not isinstance(call, Grade):
            yield Graded(number, 1.0)
        for kind in {Drafted, Scored, TakenOver} - {answers[type(call)]}:
            yield Scored(number, 1.0) if kind is Scored else kind(number, True, True)


@every_policy
@settings(examples, max_examples=10)
@given(world=worlds())
def test_an_event_for_no_open_call_or_of_the_wrong_kind_is_refused_and_changes_nothing(
    policy: str, world: World
) -> None:
    driver = Driver(policy, world)
    while True:
        for event in bad_events(driver):
            with pytest.raises(ProtocolError):
                driver.controller.handle(event)
        if not driver.open:
            break
        driver.answer(driver.pick(list(driver.open)))
    assert driver.steps == Driver(policy, world).run().steps


# Order


@every_policy
@examples
@given(world=worlds())
def test_the_same_order_of_events_gives_the_same_commands(policy: str, world: World) -> None:
    assert Driver(policy, world).run().steps == Driver(policy, world).run().steps


@every_order_free_policy
@examples
@given(world=worlds(), order=orders())
def test_verdicts_and_ends_do_not_depend_on_the_order_of_events(policy: str, world: World, order: bytes) -> None:
    one, other = Driver(policy, world).run(), Driver(policy, world).run(order)
    assert set(one.decided) == set(other.decided)
    assert set(one.finishes) == set(other.finishes)


# Holds and admission


@every_policy
@examples
@given(world=worlds())
def test_every_hold_is_followed_by_a_call_or_the_finish_of_its_chain(policy: str, world: World) -> None:
    held: set[ChainId] = set()
    for entry in Driver(policy, world).run().timeline():
        if isinstance(entry, Hold):
            held.add(entry.chain)
        elif isinstance(entry, Call | Finish):
            held.discard(entry.chain)
    assert held == set()


@every_policy
@examples
@given(world=worlds())
def test_a_chain_without_an_open_call_has_said_what_it_waits_for(policy: str, world: World) -> None:
    for_verdict = "barrier" if policy == "barrier" else "bank"
    driver = Driver(policy, world).run()
    busy: set[ChainId] = set()
    over: set[ChainId] = set()
    undecided: set[ChainId] = set()
    admitted: set[int] = set()
    holds: dict[ChainId, Hold] = {}
    turns: dict[ChainId, int] = defaultdict(int)
    for step in driver.steps:
        if step.call is not None:
            busy.remove(step.call.chain)
            judged = Scored if driver.policy.scores else Drafted
            if isinstance(step.event, judged) and driver.policy.gate.judges != "nothing":
                undecided.add(step.call.chain)
        for command in step.commands:
            match command:
                case Admit(question):
                    admitted.add(question)
                case Hold(chain):
                    assert chain not in busy
                    holds[chain] = command
                case Decided(chain):
                    undecided.remove(chain)
                case Finish(chain):
                    over.add(chain)
                    holds.pop(chain, None)
                case Draft() | Score() | TakeOver() | Grade():
                    busy.add(command.chain)
                    turns[command.chain] = command.turn
                    holds.pop(command.chain, None)
        for chain in set(world.all_chains()) - busy - over:
            cause = for_verdict if chain in undecided else "barrier" if chain.question in admitted else "admission"
            assert (holds[chain].turn, holds[chain].cause) == (turns[chain], cause)
            assert holds[chain].cause != "barrier" or policy == "barrier"


@every_policy
@examples
@given(world=worlds())
def test_questions_in_flight_never_exceed_the_limit_and_none_waits_while_there_is_room(
    policy: str, world: World
) -> None:
    driver = Driver(policy, world).run()
    limit = world.limits.questions_in_flight
    alive = dict.fromkeys(range(world.questions), world.chains)
    admits: list[int] = []
    in_flight: set[int] = set()
    banked = driver.policy.pre_sample != "all"
    for step in driver.steps:
        for command in step.commands:
            match command:
                case Admit(question):
                    assert alive[question]
                    in_flight.add(question)
                    admits.append(question)
                    assert limit is None or len(in_flight) <= limit
                case Finish(chain):
                    alive[chain.question] -= 1
                    if not alive[chain.question]:
                        in_flight.discard(chain.question)
                case Decided():
                    banked = True
                case Draft() | Score() | TakeOver() | Grade():
                    pre_sample = not banked and command.turn == 0
                    assert command.chain.question in in_flight or pre_sample
        waiting = [q for q in alive if alive[q] and q not in admits]
        assert not (banked and waiting) or len(in_flight) == limit
    assert admits == sorted(set(admits))
    for finish in driver.finishes:  # a question misses its turn only if none of its pre-samples came in
        assert finish.chain.question in admits or (not banked or finish.reason == "failed")


@every_policy
@examples
@given(world=worlds())
def test_a_question_in_flight_always_has_a_call_open(policy: str, world: World) -> None:
    """Its chains never all wait for one another."""
    in_flight: Counter[int] = Counter()
    busy: Counter[int] = Counter()
    for step in Driver(policy, world).run().steps:
        if step.call is not None:
            busy[step.call.chain.question] -= 1
        for command in step.commands:
            match command:
                case Admit(question):
                    in_flight[question] += world.chains
                case Finish(chain):
                    in_flight[chain.question] -= 1
                case Draft() | Score() | TakeOver() | Grade():
                    busy[command.chain.question] += 1
        assert all(busy[question] for question, chains in in_flight.items() if chains > 0)


# What the settings say


@every_policy
@examples
@given(world=worlds())
def test_calls_carry_the_limits_and_replace_reaches_every_takeover_of_a_policy_that_drafts(
    policy: str, world: World
) -> None:
    driver = Driver(policy, world).run()
    for call in driver.calls:
        match call:
            case Draft(max_tokens=tokens):
                assert tokens == world.limits.draft_tokens
            case TakeOver(max_tokens=tokens, replace=replace):
                assert tokens == world.limits.takeover_tokens
                assert replace == (world.replaces and driver.policy.drafts)


@pytest.mark.parametrize(("policy", "kind"), [("target-only", TakeOver), ("draft-only", Draft)])
@examples
@given(world=worlds())
def test_a_single_model_makes_one_kind_of_call_and_decides_nothing(policy: str, kind: type[Call], world: World) -> None:
    driver = Driver(policy, world).run()
    assert {type(call) for call in driver.calls} == {kind}
    assert driver.decided == []


@pytest.mark.parametrize(("questions", "chains"), [(0, 1), (1, 0), (-1, 2), (2, -1)], ids=lambda value: str(value))
def test_a_run_without_questions_or_chains_is_refused(questions: int, chains: int) -> None:
    policy = POLICIES["draft-only"](Knobs(alpha=0.5))
    with pytest.raises(ValueError, match="a run needs questions and chains"):
        Controller(policy, Limits(1, 1, 1), questions=questions, chains=chains)


@pytest.mark.parametrize("name", ["turns", "draft_tokens", "takeover_tokens", "questions_in_flight"])
@examples
@given(value=st.integers(max_value=0))
def test_limits_below_one_are_refused(name: str, value: int) -> None:
    sizes = {"turns": 1, "draft_tokens": 1, "takeover_tokens": 1, "questions_in_flight": 1}
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        Limits(**{**sizes, name: value})


@examples
@given(alpha=st.floats(max_value=0) | st.floats(min_value=1) | st.just(float("nan")))
def test_alpha_must_lie_strictly_between_0_and_1(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must lie strictly between 0 and 1"):
        Knobs(alpha=alpha)


@examples
@given(budget=st.integers(max_value=-1))
def test_a_negative_budget_is_refused(budget: int) -> None:
    with pytest.raises(ValueError, match="budget must not be negative"):
        Knobs(alpha=0.4, budget=budget)


@pytest.mark.parametrize("ell", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_is_refused(ell: float) -> None:
    with pytest.raises(ValueError, match="score must be finite"):
        Scored(0, ell)


def test_a_failure_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="a failure needs a reason"):
        Failed(0, "")
