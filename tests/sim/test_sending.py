"""Calls reach an engine in a process of its own one after the other, and its scores are remembered by text."""

from __future__ import annotations

import math

import pytest

from atts_runtime.control import ChainId, Scored
from atts_runtime.records import CallRecord
from atts_sim.affine import AffineCost
from atts_sim.calls import EngineCall, EngineSpec, Paged
from atts_sim.clock import ARRIVAL, Clock
from atts_sim.desk import Request
from atts_sim.mixed_reference import MixedReference
from atts_sim.remembering import KnownTexts, Remembering
from atts_sim.sending import Distant, Sender, Sending, fit_sending

PAGED = EngineSpec(8, 64, paged=Paged(4, None))
STEP_S = 1.0


def score(chain: int, ell: float, tokens: int = 3) -> tuple[Request, list[float]]:
    """A score of a segment after 8 tokens, and when it is answered."""
    answered: list[float] = []

    def done(call: EngineCall) -> None:
        assert call.t_end_s is not None
        answered.append(call.t_end_s)

    made = Request(
        "score", ChainId(0, chain), 0, 0, 8, 8 + tokens, 8, 1 << 30, tokens, False, done,
        role="target", event=Scored(chain, ell), written=None,
    )  # fmt: skip
    return made, answered


def engine(clock: Clock) -> MixedReference:
    return MixedReference(clock, PAGED, AffineCost(STEP_S))


def test_the_driver_s_process_sends_one_call_after_the_other() -> None:
    clock = Clock()
    distant = Distant(engine(clock), Sender(clock, Sending(0.25, 0.5)))
    calls = [score(chain, chain) for chain in range(3)]
    for request, _ in calls:
        distant.submit(request)
    clock.run()
    assert [request.t_start_s for request, _ in calls] == [0.75, 1.75, 1.75]  # the first has a pass for itself
    assert [times for _, times in calls] == [[1.75], [2.75], [2.75]]


def test_a_call_that_nobody_waits_for_any_more_is_stopped_on_its_way() -> None:
    for cancelled_s, steps in ((0.5, 0), (1.0, 1)):
        clock = Clock()
        distant = Distant(engine(clock), Sender(clock, Sending(0.25, 0.5)))
        request, answered = score(0, 1.0)
        distant.submit(request)
        clock.call(cancelled_s, ARRIVAL, lambda number, made=distant, of=request: made.cancel(of))  # type: ignore[misc]
        clock.run()
        assert len(answered) == steps  # within its only pass nobody tells the engine
        assert distant.totals.steps == steps


def test_what_sending_takes_is_told_by_when_calls_start() -> None:
    """Bursts of twelve calls to an engine at rest, whose passes take 4 ms."""
    calls = []
    for burst in range(20):
        begin = burst * 0.1
        first = begin + 1.9e-3
        for at in range(12):
            passes = math.ceil(at * 0.8e-3 / 4e-3 - 1e-9)
            start = first + passes * 4e-3
            calls.append(CallRecord(0, "draft", "draft", t_queued_s=begin, t_start_s=start, t_end_s=begin + 0.05))
    found = fit_sending([calls])
    assert found.call_s == pytest.approx(0.8e-3, abs=2e-4)
    assert found.call_s + found.way_s == pytest.approx(1.9e-3, abs=2e-4)


def test_a_segment_that_several_chains_write_is_scored_once() -> None:
    clock = Clock()
    inner = engine(clock)
    remembering = Remembering(clock, inner, KnownTexts(frozenset({(0, 1.5), (0, 2.5)}), {}))
    alike, another, drawn = [score(chain, 1.5) for chain in range(3)], score(3, 2.5), score(4, 3.5)
    for request, _ in (*alike, another, drawn):
        remembering.submit(request)
    clock.run()
    assert [times for _, times in alike] == [[STEP_S]] * 3
    assert another[1] == [STEP_S]
    assert drawn[1] == [0.0]  # the run never asked for it: the target had written it itself
    assert inner.totals.steps == 1
    assert [request.remembered for request, _ in (*alike, another, drawn)] == [False, True, True, False, True]
    late, answered = score(5, 1.5)
    remembering.submit(late)
    clock.run()
    assert answered == [STEP_S]  # it came then, and had not to wait
    assert inner.totals.steps == 1


def test_what_another_chain_wrote_alike_need_not_be_fed() -> None:
    """In whole blocks of 4 tokens, as the recorded run had it."""
    for cached, fed in ((0, 11), (3, 11), (6, 7)):
        clock = Clock()
        inner = engine(clock)
        request, _ = score(0, 1.5)
        texts = KnownTexts(frozenset({(0, 1.5)}), {(ChainId(0, 0), 0, "score"): cached})
        Remembering(clock, inner, texts).submit(request)
        clock.run()
        assert inner.totals.prefilled_tokens == fed
        assert request.tokens_cached == 11 - fed


def test_a_score_that_the_run_computed_anew_is_fed_whole_and_leaves_what_is_cached_as_it_was() -> None:
    """A prompt of two blocks of 4, the second of which holds the token before the segment."""
    for anew, fed in (frozenset[tuple[ChainId, int]](), 9), (frozenset({(ChainId(0, 1), 0)}), 13):
        clock = Clock()
        inner = engine(clock)
        known = KnownTexts(frozenset((0, ell) for ell in (1.5, 2.5, 3.5)), {}, anew)
        remembering, told = Remembering(clock, inner, known), []
        for chain, (ell, tokens) in enumerate(((1.5, 3), (2.5, 5), (3.5, 3))):
            remembering.submit(score(chain, ell, tokens)[0])
            clock.run()
            told.append(inner.totals.prefilled_tokens)
        assert told == [11, 11 + fed, 11 + fed + 7]


def test_where_the_one_who_asked_is_stopped_the_next_asks() -> None:
    clock = Clock()
    inner = engine(clock)
    remembering = Remembering(clock, inner, KnownTexts(frozenset({(0, 1.5)}), {}))
    (first, no_answer), (second, answered), (third, also) = (score(chain, 1.5) for chain in range(3))
    for request in (first, second, third):
        remembering.submit(request)
    remembering.cancel(third)
    remembering.cancel(first)
    clock.run()
    assert (no_answer, answered, also) == ([], [STEP_S], [])


def test_a_call_that_ends_at_a_stop_string_has_a_row_in_one_more_pass() -> None:
    """Which vLLM's core has begun when the front end sees the string; not so at an end of text, or a call's length."""
    for tokens, ends, passes in ((3, False, 4), (3, True, 3), (5, False, 5)):
        clock = Clock()
        spec = EngineSpec(8, 64, paged=Paged(4, None, lengths={"draft": 5}))
        asked = MixedReference(clock, spec, AffineCost(STEP_S))
        call = EngineCall("draft", ChainId(0, 0), 0, 0, 8, 8, 8, 8, tokens, ends, lambda done: None)
        asked.submit(call)
        clock.run()
        assert call.t_end_s == tokens * STEP_S
        assert asked.totals.steps == passes
        assert asked.totals.kv_tokens == 0
