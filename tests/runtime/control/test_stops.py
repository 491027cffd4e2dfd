"""Stop rules: a question ends when its vote is decided, its tokens are spent or its time is up, and not before."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.control import (
    POLICIES,
    ChainId,
    Command,
    Controller,
    Draft,
    Drafted,
    Finish,
    Knobs,
    Limits,
    ProtocolError,
    Stopped,
    TakenOver,
    TakeOver,
    recipe,
)
from atts_runtime.control.stops import leads
from atts_runtime.control.votes import weight
from atts_runtime.errors import InputError
from tests.runtime.control.driving import Driver, World, examples, quiet, worlds

ANSWERING = st.sampled_from([bytes([203, 206]), bytes([203, 204]), bytes([0, 203, 204]), bytes([0, 203, 0, 206, 205])])
"""Fates of drafts: in a quiet world 0 goes on, 203 to 206 answer, two of them alike."""


@st.composite
def answering(draw: st.DrawFn) -> World:
    """A world whose chains soon answer, often alike."""
    world = draw(worlds(failures=False))
    pattern = draw(ANSWERING)
    fates = bytes(pattern[byte % len(pattern)] for byte in world.fates)
    return replace(world, fates=fates)


def voted(driver: Driver, upto: int) -> dict[int, Counter[str]]:
    """Votes by question after so many steps, told by the events."""
    answers: dict[ChainId, str | None] = {}
    votes: dict[int, Counter[str]] = {q: Counter() for q in range(driver.world.questions)}
    for step in driver.steps[:upto]:
        if step.call is not None and isinstance(step.event, Drafted | TakenOver):
            answers[step.call.chain] = step.event.answer
        for command in step.commands:
            if isinstance(command, Finish) and command.reason not in ("stopped", "failed"):
                answer = answers[command.chain]
                if answer is not None:
                    votes[command.chain.question][answer] += 1
    return votes


@examples
@given(world=answering(), policy=st.sampled_from(["draft-only", "async-marginal", "target-only", "barrier"]))
def test_a_majority_stops_its_question_exactly_when_no_chain_under_way_can_change_it(world: World, policy: str) -> None:
    driver = Driver(replace(world.recipe(policy), stops=recipe(policy, early_stop="majority").stops), world).run()
    assert driver.controller.done
    alive = dict.fromkeys(range(world.questions), world.chains)
    for place, step in enumerate(driver.steps):
        ended = [c for c in step.commands if isinstance(c, Finish)]
        stopped = {c.chain.question for c in ended if c.reason == "stopped"}
        for finish in ended:
            alive[finish.chain.question] -= 1
        votes = voted(driver, place + 1)
        for question, left in alive.items():
            stopping = sum(c.reason == "stopped" and c.chain.question == question for c in ended)
            counts = [count for _, count in votes[question].most_common()] + [0, 0]
            if question in stopped:
                assert counts[0] - counts[1] > stopping
                assert not left
            elif left:
                assert counts[0] - counts[1] <= left
    for finish in driver.finishes:
        assert finish.detail == ("majority" if finish.reason == "stopped" else None)


@given(first=st.integers(0, 30), second=st.integers(0, 30))
def test_how_sure_a_lead_is_is_the_integral_of_the_beta_density(first: int, second: int) -> None:
    """Expanded by the binomial theorem and integrated term by term, in fractions."""
    a, b = first + 1, second + 1
    terms = [Fraction((-1) ** k * comb(b - 1, k), a + k) for k in range(b)]
    whole = sum(terms)
    below = sum(term * Fraction(1, 2 ** (a + k)) for k, term in enumerate(terms))
    assert leads(first, second) == pytest.approx(float(1 - below / whole), abs=1e-12)


@examples
@given(world=answering(), level=st.sampled_from([0.6, 0.9, 0.95]))
def test_adaptive_consistency_stops_exactly_when_it_is_sure(world: World, level: float) -> None:
    world = replace(world, knobs=replace(world.knobs, beta_level=level))
    driver = Driver(recipe("draft-only", early_stop="beta"), world).run()
    alive = dict.fromkeys(range(world.questions), world.chains)
    for place, step in enumerate(driver.steps):
        ended = [c for c in step.commands if isinstance(c, Finish)]
        for finish in ended:
            alive[finish.chain.question] -= 1
        stopped = {c.chain.question for c in ended if c.reason == "stopped"}
        votes = voted(driver, place + 1)
        for question, left in alive.items():
            counts = [count for _, count in votes[question].most_common()] + [0, 0]
            sure = counts[0] > 0 and leads(counts[0], counts[1]) >= level
            if question in stopped:
                assert sure
            elif left:
                assert not sure


@examples
@given(world=worlds(), policy=st.sampled_from(list(POLICIES)), budget=st.integers(11, 90))
def test_a_token_budget_is_never_exceeded_in_any_order(world: World, policy: str, budget: int) -> None:
    world = replace(world, knobs=replace(world.knobs, token_budget=budget))
    driver = Driver(policy, world).run()
    assert driver.controller.done
    written: Counter[int] = Counter()
    for step in driver.steps:
        if step.call is not None and isinstance(step.event, Drafted | TakenOver):
            written[step.call.chain.question] += step.event.tokens
    assert all(tokens <= budget for tokens in written.values())
    for finish in driver.finishes:
        assert finish.reason != "stopped" or finish.detail == "tokens"


def test_a_chain_is_stopped_only_where_its_next_piece_might_exceed_the_budget() -> None:
    """Two chains of 1 token a turn: five pieces fit into 5 tokens, the sixth does not."""
    world = quiet(questions=1, chains=2, turns=4)
    driver = Driver("draft-only", replace(world, knobs=replace(world.knobs, token_budget=5))).run()
    assert sum(isinstance(call, Draft) for call in driver.calls) == 5
    assert [finish.reason for finish in driver.finishes] == ["stopped", "stopped"]


@examples
@given(world=worlds(), policy=st.sampled_from(list(POLICIES)), after=st.integers(0, 20), nth=st.integers(0, 3))
def test_when_a_question_s_time_is_up_its_chains_are_over_and_their_calls_void(
    world: World, policy: str, after: int, nth: int
) -> None:
    world = replace(world, knobs=replace(world.knobs, deadline_s=9.0))
    driver = Driver(policy, world)
    wanted = nth % world.questions
    for _ in range(after):
        if driver.open:
            driver.answer(driver.pick(list(driver.open)))
    wakes = {c.question: c.after_s for c in driver.commands if type(c).__name__ == "Wake"}
    assert set(wakes.values()) <= {9.0}
    before = dict(driver.open)
    if wanted not in wakes or not any(isinstance(s.event, Drafted | TakenOver) for s in driver.steps):
        return
    commands = driver.wake(wanted)
    over = {f.chain for f in driver.finishes}
    assert over >= {ChainId(wanted, i) for i in range(world.chains)}
    assert all(f.detail == "deadline" for f in commands if isinstance(f, Finish) and f.chain.question == wanted)
    for number, call in before.items():
        if call.chain.question == wanted:
            assert not driver.controller.awaits(number)
            with pytest.raises(ProtocolError):
                driver.controller.handle(TakenOver(number, False, False))
    assert not driver.wake(wanted)  # a second time there is nobody left
    driver.run()
    assert driver.controller.done
    assert Counter(f.chain for f in driver.finishes) == Counter(world.all_chains())


def test_a_deadline_shorter_than_a_segment_is_refused() -> None:
    world = quiet(questions=2, chains=2, turns=2)
    driver = Driver("draft-only", replace(world, knobs=replace(world.knobs, deadline_s=0.5)))
    with pytest.raises(InputError, match=r"the deadline of 0.5 s is shorter than one segment takes; raise deadline_s"):
        driver.wake(1)


@pytest.mark.parametrize("policy", ["draft-only", "async-marginal"])
def test_confidence_weighs_a_vote_by_the_piece_that_holds_the_answer(policy: str) -> None:
    """Scored already where its gate scored it; else the target is asked."""
    world = replace(quiet(questions=1, chains=2, turns=1), fates=bytes([203, 0, 0] * 2))
    world = replace(world, knobs=replace(world.knobs, alpha=1e-6))
    driver = Driver(recipe(policy, vote="confidence"), world).run()
    graded = [call for call in driver.calls if type(call).__name__ == "Grade"]
    assert len(graded) == (2 if policy == "draft-only" else 0)
    for finish in driver.finishes:
        assert finish.weight == pytest.approx(weight(world.ell(finish.chain, 0)), abs=1e-12)


def test_a_takeover_s_answer_is_graded_for_the_target_has_not_scored_it() -> None:
    world = replace(quiet(questions=1, chains=1, turns=1), fates=bytes([0, 0, 203]))
    world = replace(world, knobs=replace(world.knobs, threshold=0.1), strangeness=bytes([9]))
    driver = Driver(recipe("threshold", vote="confidence"), world).run()
    assert [type(call).__name__ for call in driver.calls] == ["Draft", "Score", "TakeOver", "Grade"]
    assert any(isinstance(call, TakeOver) for call in driver.calls)
    assert driver.finishes[0].weight == pytest.approx(weight(world.ell(ChainId(0, 0), 0)), abs=1e-12)


def test_a_chain_that_runs_out_of_tokens_may_decide_the_vote_of_those_that_start_with_it() -> None:
    """Of four chains two have answered alike, and two start their next turn together, at the barrier. One of these may
    not write on; the other could then change nothing, so it is over before its own start."""
    fates = bytes(12) + bytes([203, 0, 0] * 4)
    world = replace(quiet(questions=1, chains=4, turns=2), fates=fates, knobs=Knobs(0.25, budget=0, token_budget=4))
    driver = Driver(recipe("barrier", early_stop="majority"), world).run()
    assert driver.controller.done
    assert Counter(f.chain for f in driver.finishes) == Counter(world.all_chains())
    over = {f.chain: place for place, c in enumerate(driver.commands) if isinstance(f := c, Finish)}
    calls = [(place, c.chain) for place, c in enumerate(driver.commands) if isinstance(c, Draft | TakeOver)]
    assert all(place < over[chain] for place, chain in calls)


def test_a_failed_call_gives_its_tokens_back() -> None:
    """One of two chains fails while it drafts; the other one's four pieces then fit into 5 tokens."""
    world = quiet(questions=1, chains=2, turns=4)
    fates = bytes([255]) + bytes(len(world.fates) - 1)
    world = replace(world, fates=fates, failures=True, limits=replace(world.limits, draft_tokens=2))
    driver = Driver("draft-only", replace(world, knobs=replace(world.knobs, token_budget=5))).run()
    assert [finish.reason for finish in driver.finishes] == ["failed", "turns"]


def test_a_call_of_a_chain_that_an_earlier_session_stopped_gives_its_tokens_back() -> None:
    """One of two chains is over by its record; the other one's four pieces then fit into 5 tokens."""
    policy = recipe("draft-only")(Knobs(0.25, token_budget=5))
    controller = Controller(policy, Limits(4, draft_tokens=2, takeover_tokens=2), questions=1, chains=2)
    stopped, draft = (command for command in controller.start() if isinstance(command, Draft))
    out = controller.handle(Stopped(stopped.call, "tokens"))
    out: list[Command] = [draft]
    for _ in range(4):
        (draft,) = (command for command in out if isinstance(command, Draft))
        out = controller.handle(Drafted(draft.call, False, False, None, 1))
    assert [command.reason for command in out if isinstance(command, Finish)] == ["turns"]
