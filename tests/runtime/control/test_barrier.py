"""The synchronous baseline: nobody goes on before everybody is there, and exactly the worst B are taken over."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.control import (
    Call,
    ChainId,
    Decided,
    Draft,
    Drafted,
    Failed,
    Finish,
    Knobs,
    Score,
    TakenOver,
    TakeOver,
)
from tests.runtime.control.driving import MAX_CHAINS, Answer, Driver, World, examples, worlds


def lockstep(world: World) -> tuple[set[tuple[ChainId, int, bool]], Counter[tuple[int, int]]]:
    """The verdicts of a world played turn by turn, and how many takeovers each question's turn has."""
    verdicts = set()
    takeovers: Counter[tuple[int, int]] = Counter()
    for question in range(world.questions):
        live = [ChainId(question, i) for i in range(world.chains)]
        for turn in range(world.limits.turns):
            live = [
                c for c in live if not any(isinstance(world.outcome(kind, c, turn), Failed) for kind in (Draft, Score))
            ]
            budget = round(world.knobs.alpha * len(live)) if world.knobs.budget is None else world.knobs.budget
            takeovers[question, turn] = min(budget, len(live))
            staying = []
            for chain in live:
                ell = world.ell(chain, turn)
                worse = sum(
                    (world.ell(other, turn), -other.index) > (ell, -chain.index) for other in live if other != chain
                )
                taken_over = worse < budget
                verdicts.add((chain, turn, taken_over))
                last = world.outcome(TakeOver if taken_over else Draft, chain, turn)
                if isinstance(last, Drafted | TakenOver) and not (last.answered or last.ended):
                    staying.append(chain)
            live = staying
    return verdicts, takeovers


@examples
@given(world=worlds())
def test_nobody_drafts_before_everybody_ended_the_turn_and_no_verdict_comes_before_all_scores(world: World) -> None:
    """Within a question, turns and their two halves (up to the scores, from the verdicts on) never overlap."""
    now: dict[int, tuple[int, bool]] = defaultdict(lambda: (0, False))
    for entry in Driver("barrier", world).run().timeline():
        if isinstance(entry, Answer | Call | Decided):
            call = entry.call if isinstance(entry, Answer) else entry
            half = entry.turn, isinstance(call, Decided | TakeOver)
            assert half >= now[entry.chain.question]
            now[entry.chain.question] = half


@examples
@given(world=worlds())
def test_exactly_the_worst_b_of_the_live_chains_are_taken_over_and_ties_go_by_index(world: World) -> None:
    driver = Driver("barrier", world).run()
    verdicts, takeovers = lockstep(world)
    assert {(d.chain, d.turn, d.taken_over) for d in driver.decided} == verdicts
    assert len(driver.decided) == len(verdicts)
    assert Counter((d.chain.question, d.turn) for d in driver.decided if d.taken_over) == takeovers
    assert Counter((c.chain.question, c.turn) for c in driver.calls if isinstance(c, TakeOver)) == takeovers
    assert {(d.p_value, d.alpha) for d in driver.decided} <= {(None, None)}


@pytest.mark.parametrize("budget", [0, 1, MAX_CHAINS + 1])
@examples
@given(world=worlds(failures=False))
def test_a_budget_overrides_alpha_even_where_it_is_nothing(budget: int, world: World) -> None:
    driver = Driver("barrier", replace(world, knobs=Knobs(world.knobs.alpha, budget))).run()
    live = Counter((d.chain.question, d.turn) for d in driver.decided)
    taken_over = Counter((d.chain.question, d.turn) for d in driver.decided if d.taken_over)
    assert all(taken_over[turn] == min(budget, chains) for turn, chains in live.items())


@pytest.mark.parametrize("stage", [Draft, Score, TakeOver])
@examples
@given(world=worlds(failures=False, limited=False), question=st.integers(0, 3), index=st.integers(0, MAX_CHAINS - 1))
def test_the_last_chain_awaited_releases_its_question_by_failing(
    stage: type[Call], world: World, question: int, index: int
) -> None:
    if stage is TakeOver:
        world = replace(world, knobs=Knobs(alpha=0.4, budget=world.chains))
    driver = Driver("barrier", world)
    last = ChainId(question % world.questions, index % world.chains)
    others = [ChainId(last.question, i) for i in range(world.chains) if i != last.index]
    while due := [
        n
        for n, c in driver.open.items()
        if c.chain in others or (c.chain == last and not isinstance(c, stage) and c.turn == 0)
    ]:
        driver.answer(driver.pick(due))
    over = {finish.chain for finish in driver.finishes}
    ((number, call),) = [(n, c) for n, c in driver.open.items() if c.chain.question == last.question]
    assert (type(call), call.chain, call.turn) == (stage, last, 0)
    commands = driver.controller.handle(Failed(number, "lost"))
    assert commands[0] == Finish(last, 1, "failed", "lost")
    if stage is TakeOver:
        drafts = [c for c in commands[1:] if isinstance(c, Draft)]
        assert drafts == commands[1:]
        assert [(draft.chain, draft.turn) for draft in drafts] == [(c, 1) for c in others if c not in over]
    else:
        assert {c.chain for c in commands if isinstance(c, Decided)} == set(others)
