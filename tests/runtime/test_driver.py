"""Claims about the asyncio driver, on scripted engines."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from atts_runtime import calls as calls_module
from atts_runtime.accuracy import by_question
from atts_runtime.answering import Answering
from atts_runtime.chain import ChainState
from atts_runtime.control import POLICIES, ChainId
from atts_runtime.control.votes import Vote
from atts_runtime.driver import Driver
from atts_runtime.engines.base import Engine
from atts_runtime.errors import InputError
from atts_runtime.profiler.spans import chain_spans, check_tiling
from atts_runtime.records import CallRecord, ChainRecord
from atts_runtime.session import roles
from tests.runtime.scripted import (
    Fault,
    Misbehaviour,
    ScriptedEngine,
    drive,
    pair,
    scripted,
    settings,
    task_of,
    untimed,
)

GUARDED = [name for name, policy in POLICIES.items() if policy.scores and policy.drafts]
ASYNC = ["async-marginal", "async-conditional"]
VICTIM = ChainId(1, 2)


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "_BACKOFF_S", 0.0)


def everybody(questions: int = 3, chains: int = 4) -> list[ChainId]:
    return [ChainId(q, i) for q in range(questions) for i in range(chains)]


def kinds(record: ChainRecord) -> list[tuple[int, str]]:
    return [(call.turn, call.kind) for call in record.calls]


# -- calls, verdicts, text


@pytest.mark.parametrize("takeover", ["continue", "resample"])
@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_finishes_every_chain_and_gives_all_of_them_back(policy: str, takeover: str) -> None:
    engines = pair()
    outcome = drive(settings(policy, takeover=takeover), engines)
    assert sorted(outcome.records) == everybody()
    for record in outcome.records.values():
        assert record.reason in ("answered", "ended", "turns")
        assert record.turns == record.calls[-1].turn + 1 <= 12
    for role in roles(settings(policy)).values():
        assert sorted(scripted(engines, role).released) == everybody()
        assert scripted(engines, role).open == 0


@pytest.mark.parametrize("policy", GUARDED)
def test_a_guarded_turn_is_a_draft_its_verdict_and_a_takeover_only_where_the_verdict_says_so(policy: str) -> None:
    taken = []
    for record in drive(settings(policy)).records.values():
        expected = []
        for turn in range(record.turns):
            score = record.call(turn, "score")
            assert score is not None
            assert score.ell is not None
            assert score.taken_over is not None
            taken.append(score.taken_over)
            attempts = sum(call.turn == turn and call.kind == "draft" for call in record.calls)
            expected += [(turn, "draft"), (turn, "score")] * attempts + [(turn, "takeover")] * score.taken_over
            rejected = [record.call(turn, "score", attempt) for attempt in range(attempts - 1)]
            assert all(call is not None and call.outcome == "redraft" for call in rejected)
        assert kinds(record) == expected
    assert len(set(taken)) == 1 + POLICIES[policy].action.takes_over


@pytest.mark.parametrize(("policy", "kind"), [("target-only", "takeover"), ("draft-only", "draft")])
def test_without_a_guard_a_turn_is_one_call(policy: str, kind: str) -> None:
    for record in drive(settings(policy)).records.values():
        assert kinds(record) == [(turn, kind) for turn in range(record.turns)]
        assert all(call.taken_over is None and call.ell is None for call in record.calls)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_call_belongs_to_the_engine_of_its_role(policy: str) -> None:
    engines = pair()
    config = settings(policy)
    records = drive(config, engines).records
    roles_of = {"draft": "draft", "score": "target", "takeover": "target", "grade": "target"}
    served = roles(config)
    calls = [(record.chain, call) for record in records.values() for call in record.calls]
    assert all(call.engine == roles_of[call.kind] for _, call in calls)
    for role in engines:
        assert scripted(engines, role).calls.total() == sum(served[call.engine] == role for _, call in calls)


@pytest.mark.parametrize("policy", ASYNC)
def test_async_verdicts_follow_from_p_value_and_alpha(policy: str) -> None:
    for record in drive(settings(policy, alpha=0.3)).records.values():
        for call in record.calls:
            if call.kind == "score":
                assert call.p_value is not None
                assert call.alpha == 0.3
                assert call.taken_over == (call.p_value <= 0.3)


def test_the_barrier_ranks_and_tests_nothing() -> None:
    records = drive(settings("barrier", budget=1)).records
    scores = [call for record in records.values() for call in record.calls if call.kind == "score"]
    assert all(call.p_value is None and call.alpha is None for call in scores)
    for question in range(3):
        first = [r.call(0, "score") for r in records.values() if r.question == question]
        assert sum(bool(call and call.taken_over) for call in first) == 1


@pytest.mark.parametrize("takeover", ["continue", "resample"])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_text_is_what_the_calls_wrote_and_resampling_replaces_what_was_taken_over(
    policy: str, takeover: str
) -> None:
    engines, config = pair(), settings(policy, takeover=takeover)
    served = roles(config)
    records = drive(config, engines).records

    def wrote(call: CallRecord, chain: ChainId) -> str:
        seed = (call.kind == "takeover") + 2 * call.attempt
        return scripted(engines, served[call.engine]).pieces[chain, call.turn, seed].text

    def text_of(record: ChainRecord, turns: int) -> str:
        """The text after so many turns."""
        text = ""
        for turn in range(turns):
            drafts = [call for call in record.calls if call.turn == turn and call.kind == "draft"]
            scores = [call for call in record.calls if call.turn == turn and call.kind == "score"]
            taken = record.call(turn, "takeover")
            outcome = scores[-1].outcome if scores else None
            if outcome == "fork":
                assert scores[-1].forked_from is not None
                source = records[ChainId(record.question, scores[-1].forked_from)]
                text = text_of(source, scores[-1].forked_upto or 0)
            elif drafts and not (taken and takeover == "resample"):
                ells = [score.ell for score in scores]
                kept = ells.index(min(ells)) if outcome == "keep" else -1
                text += wrote(drafts[kept], record.chain)
            if taken:
                text += wrote(taken, record.chain)
        return text

    for record in records.values():
        assert record.text == text_of(record, record.turns)


@pytest.mark.parametrize("takeover", ["continue", "resample"])
def test_a_takeover_sees_the_segment_only_where_it_continues_it(takeover: str) -> None:
    engines = pair()
    drive(settings("barrier", takeover=takeover), engines)
    target, draft = scripted(engines, "target"), scripted(engines, "draft")
    assert target.asked
    for call in target.asked:
        segment = draft.wrote[call.chain, call.seed[3]]
        assert any(piece is segment for piece in call.pieces) == (takeover == "continue")


def test_characters_and_tokens_are_those_of_the_piece() -> None:
    engines = pair()
    for record in drive(settings("async-marginal"), engines).records.values():
        for call in record.calls:
            writer = "target" if call.kind == "takeover" else "draft"
            piece = scripted(engines, writer).wrote[record.chain, call.turn]
            assert call.chars == len(piece.text)
            assert call.tokens_new == len(piece.ids) + (call.kind == "score" and piece.eos)


def test_every_generation_has_a_seed_of_its_own() -> None:
    engines = pair()
    drive(settings("async-marginal"), engines)
    seeds = [call.seed for role in engines for call in scripted(engines, role).asked]
    assert len(set(seeds)) == len(seeds) > 50


@pytest.mark.parametrize("policy", POLICIES)
def test_a_chain_is_right_when_its_answer_is_the_question_s(policy: str) -> None:
    config = settings(policy)
    truths = [question.answer for question in task_of(config).questions]
    records = drive(config).records.values()
    assert all(record.correct == (record.answer == truths[record.question]) for record in records)
    if policy == "target-only":
        assert all(record.correct for record in records)
    if policy == "draft-only":
        assert len({record.correct for record in records}) == 2


# -- answers


def one_chain(draft: list[tuple[str, bool]], target: list[tuple[str, bool]], **changes: Any) -> ChainRecord:
    """The only chain of a run in which the barrier takes over `budget` (default 1) segments a turn; a line a turn."""
    chain = ChainId(0, 0)
    engines = pair(
        draft={"writes": {(chain, turn): line for turn, line in enumerate(draft)}},
        target={"writes": {(chain, turn): line for turn, line in enumerate(target)}},
    )
    small = {"questions": 1, "chains": 1, "turns": len(draft), "budget": 1} | changes
    return drive(settings("barrier", **small), engines).records[chain]


def test_a_takeover_that_goes_on_withdraws_the_drafted_answer() -> None:
    record = one_chain(
        [("\\boxed{1}", True), ("so\n\n", False), ("\\boxed{2}", True)],
        [("no, \n\n", False), ("hm\n\n", False), ("", True)],
    )
    assert (record.turns, record.reason, record.answer) == (3, "answered", "2")
    withdrawn, without, kept = (record.call(turn, "takeover") for turn in range(3))
    assert withdrawn is not None
    assert without is not None
    assert kept is not None
    assert [withdrawn.answered, without.answered, kept.answered] == [False, False, True]


def test_a_takeover_that_ends_at_once_keeps_the_drafted_answer() -> None:
    record = one_chain([("\\boxed{1}", True), ("\\boxed{9}", True)], [("", True), ("", True)])
    assert (record.turns, record.reason, record.answer) == (1, "answered", "1")


def test_a_takeover_that_answers_anew_has_the_last_word() -> None:
    record = one_chain([("\\boxed{1}", True), ("", True)], [("no, \\boxed{3}", False), ("", True)])
    assert (record.turns, record.reason, record.answer) == (1, "answered", "3")


def test_a_takeover_may_finish_the_box_that_the_draft_began() -> None:
    record = one_chain([("\\boxed{1", False), ("", True)], [("2}", False), ("", True)])
    assert (record.turns, record.answer) == (1, "12")


def test_a_drafted_answer_that_stands_ends_the_chain() -> None:
    record = one_chain([("\\boxed{1}", False), ("\\boxed{2}", True)], [], budget=0)
    assert (record.turns, record.reason, record.answer) == (1, "answered", "1")


def test_a_withdrawn_answer_counts_only_when_no_other_follows() -> None:
    record = one_chain([("\\boxed{1}", True), ("so\n\n", False)], [("no, \n\n", False), ("hm\n\n", False)])
    assert (record.turns, record.reason, record.answer) == (2, "turns", "1")


def test_a_replaced_answer_is_gone_also_where_the_takeover_ends_at_once() -> None:
    record = one_chain([("\\boxed{1}", True), ("", True)], [("", True), ("", True)], takeover="resample")
    assert (record.turns, record.reason, record.answer, record.text) == (1, "ended", None, "")


def test_after_a_replaced_answer_a_box_may_still_span_two_takeovers() -> None:
    record = one_chain(
        [("\\boxed{1}", True), ("9}", False)], [("\\boxed{4", False), ("2}", False)], takeover="resample"
    )
    assert (record.turns, record.reason, record.answer) == (2, "answered", "42")


# -- faults


@pytest.mark.parametrize("kind", ["draft", "score", "takeover"])
def test_a_retryable_error_is_tried_again_until_it_works(kind: str) -> None:
    record = faulty(kind, Fault("retryable", method_of(kind), times=2), retries=2)[VICTIM]
    assert record.reason != "failed"
    first = next(call for call in record.calls if call.kind == kind)
    assert first.attempts == 3
    assert all(call.attempts == 1 for call in record.calls if call is not first)


@pytest.mark.parametrize("kind", ["draft", "score", "takeover"])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_lasting_error_fails_its_chain_after_the_retries_and_no_other(kind: str, retries: int) -> None:
    records = faulty(kind, Fault("retryable", method_of(kind)), retries=retries)
    failed = only_failure(records)
    assert failed.detail == f"{kind}: scripted retryable"
    assert (failed.calls[-1].kind, failed.calls[-1].attempts) == (kind, retries + 1)


@pytest.mark.parametrize("kind", ["draft", "score", "takeover"])
def test_an_error_that_is_not_retryable_is_not_tried_again(kind: str) -> None:
    failed = only_failure(faulty(kind, Fault("error", method_of(kind)), retries=5))
    assert failed.detail == f"{kind}: scripted error"
    assert failed.calls[-1].attempts == 1


def test_backoff_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def watched(delay: float) -> None:
        if delay:
            slept.append(delay)
        await sleep(0)

    monkeypatch.setattr(calls_module, "_BACKOFF_S", 0.5)
    monkeypatch.setattr(asyncio, "sleep", watched)
    faulty("draft", Fault("retryable", "generate"), retries=3)
    assert slept == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("first", [0, 1])
def test_under_every_policy_a_failed_chain_holds_up_nobody(policy: str, first: int) -> None:
    fault = {"faults": {VICTIM: Fault("error", "generate", first=first)}}
    recipe = POLICIES[policy]
    writer = "draft" if recipe.drafts and not recipe.one_model else "target"
    failed = only_failure(drive(settings(policy), pair(**{writer: fault})).records)
    assert failed.turns == 1 + failed.calls[-1].turn <= 1 + first
    assert failed.calls[-1].attempt == first or not recipe.action.retries or failed.turns == 1 + first


@pytest.mark.parametrize("retries", [0, 1])
def test_a_call_without_an_answer_fails_its_chain_by_timeout(retries: int) -> None:
    records = faulty("score", Fault("hang", "score"), retries=retries, call_timeout_s=0.75)
    failed = only_failure(records)
    assert failed.detail == "score: no answer within 0.75 s"
    assert failed.calls[-1].attempts == retries + 1


def test_an_answer_that_takes_long_to_compare_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is the engine's; what it has written stands, however long the vote takes."""
    vote = Answering.vote

    async def slow(self: Answering, question: int, chain: ChainState) -> str | None:
        if chain.record.chain == VICTIM:
            await asyncio.sleep(0.8)
        return await vote(self, question, chain)

    monkeypatch.setattr(Answering, "vote", slow)
    engines = pair()
    config = settings("draft-only", early_stop="beta", beta_level=0.999, call_timeout_s=0.75, retries=1)
    record = drive(config, engines).records[VICTIM]
    wrote = [scripted(engines, "draft").wrote[VICTIM, call.turn].text for call in record.calls]
    assert record.text == "".join(wrote)
    assert [call.attempts for call in record.calls] == [1] * len(wrote)


@pytest.mark.parametrize("what", ["nan", "infinite"])
@pytest.mark.parametrize("policy", GUARDED)
def test_a_score_that_is_no_number_fails_only_its_chain_and_leaves_a_line_of_json(
    policy: str, what: Misbehaviour
) -> None:
    fault = {"faults": {VICTIM: Fault(what, "score", first=1)}}
    failed = only_failure(drive(settings(policy), pair(target=fault)).records)
    assert failed.detail is not None
    assert "finite" in failed.detail
    assert failed.turns == 2 or POLICIES[policy].action.retries
    assert failed.calls[-1].taken_over is None
    assert ChainRecord.from_line(failed.to_line()) == failed


@pytest.mark.parametrize("policy", GUARDED)
def test_an_empty_segment_fails_only_its_chain(policy: str) -> None:
    fault = {"faults": {VICTIM: Fault("empty", "generate")}}
    engines = pair(target=fault) if POLICIES[policy].one_model else pair(draft=fault)
    failed = only_failure(drive(settings(policy), engines).records)
    assert failed.detail == "score: empty segment: there is nothing to score"


def test_a_failed_chain_keeps_its_verdicts_and_its_text_so_far() -> None:
    engines = pair(target={"faults": {VICTIM: Fault("error", "score", first=2)}})
    failed = only_failure(drive(settings("async-marginal"), engines).records)
    scores = [call for call in failed.calls if call.kind == "score"]
    assert [call.taken_over is None for call in scores] == [False, False, True]
    assert failed.text
    assert (failed.answer, failed.correct) == (None, False)
    assert VICTIM in scripted(engines, "draft").released


def test_a_fault_of_the_program_ends_the_run_and_leaves_nothing_running() -> None:
    config = settings("async-marginal")
    engines = pair(draft={"faults": {VICTIM: Fault("bug", "generate", first=1)}})

    async def run() -> None:
        driver = Driver(config, task_of(config), engines, on_finish=lambda _: None)
        with pytest.raises(KeyError, match="scripted bug"):
            await driver.run()
        assert_nothing_runs(engines)

    asyncio.run(run())


def test_a_record_that_cannot_be_kept_ends_the_run() -> None:
    config = settings("target-only")

    def full_disk(record: ChainRecord) -> None:
        raise OSError("no space left")

    async def run() -> None:
        engines = pair()
        with pytest.raises(OSError, match="no space left"):
            await Driver(config, task_of(config), engines, on_finish=full_disk).run()
        assert_nothing_runs(engines)

    asyncio.run(run())


def faulty(kind: str, fault: Fault, **changes: Any) -> dict[ChainId, ChainRecord]:
    """A run at the barrier, everything taken over, with a fault of `VICTIM` in calls of a kind."""
    role = "draft" if kind == "draft" else "target"
    config = settings("barrier", budget=4, **changes)
    return drive(config, pair(**{role: {"faults": {VICTIM: fault}}})).records


def method_of(kind: str) -> Any:
    return "score" if kind == "score" else "generate"


def only_failure(records: dict[ChainId, ChainRecord]) -> ChainRecord:
    assert sorted(records) == everybody()
    assert [chain for chain, record in records.items() if record.reason == "failed"] == [VICTIM]
    return records[VICTIM]


def assert_nothing_runs(engines: dict[str, Engine]) -> None:
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert all(scripted(engines, role).open == 0 for role in engines)


# -- cancellation


@pytest.mark.parametrize("after", [1, 5])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_cancelled_run_leaves_no_task_behind_and_has_kept_what_was_finished(policy: str, after: int) -> None:
    config = settings(policy)
    made = pair()
    engines = {role: made[of] for role, of in roles(config).items()}
    kept: list[ChainId] = []

    async def run() -> None:
        def keep(record: ChainRecord) -> None:
            kept.append(record.chain)
            if len(kept) == after:
                running.cancel()

        driver = Driver(config, task_of(config), engines, on_finish=keep)
        running = asyncio.create_task(driver.run())
        with pytest.raises(asyncio.CancelledError):
            await running
        assert_nothing_runs(engines)
        assert driver.progress.chains_done == len(kept)

    asyncio.run(run())
    assert after <= len(kept) < 12
    assert len(set(kept)) == len(kept)


def test_cancelling_reaches_calls_that_would_never_be_answered() -> None:
    config = settings("target-only")
    engines: dict[str, Engine] = {
        "target": ScriptedEngine("target", faults={chain: Fault("hang", "generate") for chain in everybody()})
    }

    async def run() -> None:
        running = asyncio.create_task(Driver(config, task_of(config), engines, on_finish=lambda _: None).run())
        while scripted(engines, "target").open < 12:
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert_nothing_runs(engines)

    asyncio.run(run())


# -- waits and times


def test_barrier_chains_wait_at_the_barrier_and_nowhere_else() -> None:
    outcome = drive(settings("barrier"))
    waits = [hold for record in outcome.records.values() for hold in record.holds_s if hold.cause != "admission"]
    assert {hold.cause for hold in waits} == {"barrier"}
    total = sum(hold.t_end_s - hold.t_start_s for hold in waits)
    assert total > 0
    assert outcome.driver.progress.stall_s == pytest.approx(total)


def test_async_marginal_chains_wait_for_the_bank_once_and_for_nothing_else() -> None:
    holds = [record.holds_s for record in drive(settings("async-marginal")).records.values()]
    assert {hold.cause for chain in holds for hold in chain} == {"bank"}
    assert all(len(chain) <= 1 for chain in holds)


@pytest.mark.parametrize("policy", POLICIES)
def test_holds_and_calls_of_a_chain_follow_one_another(policy: str) -> None:
    for record in drive(settings(policy, questions_in_flight=2)).records.values():
        spans = [(c.t_queued_s, c.t_end_s) for c in record.calls] + [(h.t_start_s, h.t_end_s) for h in record.holds_s]
        spans = sorted(spans, key=lambda span: (span[0], span[1] or 0.0))
        assert all(end is not None and end <= start for (_, end), (start, _) in pairwise(spans))
        assert spans[-1][1] is not None
        assert spans[-1][1] <= record.t_end_s


@pytest.mark.parametrize("policy", POLICIES)
def test_one_question_in_flight_means_that_questions_do_not_overlap(policy: str) -> None:
    records = drive(settings(policy, questions_in_flight=1)).records.values()
    spans = []
    for question in range(3):
        chains = [record for record in records if record.question == question]
        (admitted,) = {record.t_admitted_s for record in chains}
        assert admitted is not None
        spans.append((admitted, max(record.t_end_s for record in chains)))
        holds = [hold for record in chains for hold in record.holds_s if hold.cause == "admission"]
        assert question == 0 or holds
        assert all(hold.t_end_s >= admitted for hold in holds)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


@pytest.mark.parametrize("policy", POLICIES)
def test_calls_are_queued_then_started_then_ended_within_the_run(policy: str) -> None:
    outcome = drive(settings(policy))
    for record in outcome.records.values():
        for call in record.calls:
            assert call.t_start_s is not None
            assert call.t_end_s is not None
            assert 0 <= call.t_queued_s <= call.t_start_s <= call.t_end_s <= record.t_end_s <= outcome.wall_s


def test_an_engine_is_given_no_more_calls_than_its_rows_can_soon_take() -> None:
    engines = pair()
    drive(settings("target-only", chains=8, max_rows=2), engines)
    assert scripted(engines, "target").most_open == 8


# -- determinism and progress


@pytest.mark.parametrize("takeover", ["continue", "resample"])
@pytest.mark.parametrize("policy", [name for name, policy in POLICIES.items() if policy.order_free])
def test_the_order_of_completion_changes_nothing_but_times(policy: str, takeover: str) -> None:
    config = settings(policy, takeover=takeover, questions=8, questions_in_flight=4)
    one, other = drive(config, pair(order=1)).records, drive(config, pair(order=7)).records
    assert list(one) != list(other)
    assert {chain: untimed(record) for chain, record in one.items()} == {
        chain: untimed(record) for chain, record in other.items()
    }


def test_another_seed_gives_other_chains() -> None:
    texts = [
        {record.text for record in drive(settings("draft-only", seed=seed), pair()).records.values()} for seed in (0, 1)
    ]
    assert not texts[0] & texts[1]


@pytest.mark.parametrize("policy", GUARDED)
def test_progress_counts_chains_and_verdicts(policy: str) -> None:
    outcome = drive(settings(policy))
    verdicts = [call.taken_over for record in outcome.records.values() for call in record.calls if call.kind == "score"]
    progress = outcome.driver.progress
    assert (progress.chains, progress.chains_done) == (12, 12)
    assert (progress.decisions, progress.takeovers) == (len(verdicts), sum(map(bool, verdicts)))


# -- stopping


@pytest.mark.parametrize("policy", ["draft-only", "async-marginal", "barrier", "target-only"])
def test_stopped_chains_leave_nothing_running_and_their_calls_are_marked(policy: str) -> None:
    engines = pair(draft={"wrong": 0.0})
    records = drive(settings(policy, chains=8, early_stop="majority"), engines).records
    stopped = [record for record in records.values() if record.reason == "stopped"]
    assert stopped
    assert len(records) == 24
    assert all(scripted(engines, role).open == 0 for role in engines)
    for record in records.values():
        dropped = [call for call in record.calls if call.dropped]
        assert len(dropped) <= (record.reason == "stopped")
        for call in dropped:
            assert call is record.calls[-1]
            assert (call.t_start_s, call.tokens_new) == (None, 0)
        check_tiling(record, chain_spans(record))


def test_the_vote_is_that_of_the_run_without_stopping() -> None:
    config = settings("draft-only", chains=16, questions=6)
    task = task_of(config)
    results = [
        by_question(list(drive(run).records.values()), task, Vote())
        for run in (config, config.with_options({"early_stop": "majority"}))
    ]
    assert [found.voted for found in results[0].values()] == [found.voted for found in results[1].values()]


def test_a_deadline_stops_what_hangs() -> None:
    """One chain of question 0 never answers; the others do, and the run ends when that question's time is up."""
    hang = {"faults": {ChainId(0, 1): Fault("hang", "generate", first=1)}}
    records = drive(settings("draft-only", deadline_s=0.5), pair(draft=hang)).records
    assert [(r.chain, r.detail) for r in records.values() if r.reason == "stopped"] == [(ChainId(0, 1), "deadline")]
    assert len(records) == 12


def test_a_deadline_without_a_single_segment_ends_the_run_in_a_line() -> None:
    hang = {"faults": {chain: Fault("hang", "generate") for chain in everybody()}}
    with pytest.raises(InputError, match=r"deadline of 0.05 s is shorter than one segment takes; raise deadline_s"):
        drive(settings("draft-only", deadline_s=0.05), pair(draft=hang))
