"""The fitted workload draws what it was fitted to, and what a policy changes has consequences in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from statistics import NormalDist, mean

import numpy as np
import pytest

from atts_runtime.control import ChainId, Draft, Fork, Grade, Keep, Score, TakeOver
from atts_runtime.errors import InputError
from atts_sim.drawn import Drawn, _State
from atts_sim.generative import Effects, FittedWorkload, Nearness, Pace
from atts_sim.generative_fit import Source, fit_workload
from atts_sim.goodness import Sampled, goodness
from atts_sim.simrun import SimRun
from tests.runtime.scripted import settings
from tests.sim.made_runs import recorded_of
from tests.sim.made_workloads import MODEL, VARIED, WRONG, as_recorded, simulate


@cache
def refitted(questions: int = 40, chains: int = 16) -> FittedWorkload:
    """To two policies: where errors are caught at once, nothing says what they would have come to."""
    keys = tuple(q % 2 for q in range(questions))
    settings = (("async-marginal", 0.3), ("barrier", 0.1))
    runs = [simulate(Drawn(MODEL, questions, chains, seed=3), policy, alpha=alpha) for policy, alpha in settings]
    return fit_workload([Source("made", as_recorded(run, MODEL), True, keys) for run in runs])


def stops_of(model: FittedWorkload, turn: int, question: int) -> float:
    """The share of drafts that hold an answer, of chains that are not lost."""
    near = model.effects[question].near
    return model.stops["draft"].answers(turn, 0, False, False, near.level, near.trend)


def test_a_model_is_found_again_in_what_it_draws() -> None:
    found = refitted()
    assert found.replaces
    assert found.scores is not None
    assert MODEL.scores is not None
    assert found.errors is not None
    assert MODEL.errors is not None
    draft = found.stops["draft"]
    for turn in (1, 2):
        for question in (0, 1):
            true, of = (stops_of(model, turn, question) for model in (MODEL, found))
            assert of == pytest.approx(true, abs=0.06)
    assert draft.eos == 1.0
    assert found.effects[1].strange - found.effects[0].strange == pytest.approx(0.5, abs=0.15)
    assert found.scores.after_takeover == pytest.approx(0.3, abs=0.15)
    assert found.scores.chain_sd == pytest.approx(0.4, abs=0.2)
    assert found.errors.stands == pytest.approx(MODEL.errors.stands, abs=0.1)


def test_what_is_drawn_is_distributed_as_what_was_fitted() -> None:
    recorded = simulate(Drawn(MODEL, 40, 16, seed=3), "async-marginal", alpha=0.3)
    drawn = simulate(Drawn(refitted(), 40, 16, seed=4), "async-marginal", alpha=0.3)
    for fit in goodness([Sampled.of(recorded)], [Sampled.of(drawn)]):
        # Critical distance of the two-sample test at a level of 1e-4, chains of a question being alike.
        critical = 2.2 * (sum(1 / n for n in fit.sizes)) ** 0.5 * 1.5
        assert fit.distance < critical, fit


def longest(run: SimRun) -> float:
    """Turns of a question's longest chain, on average."""
    return mean(max(end.turns for end, _ in run.finished if end.chain.question == q) for q in range(run.questions))


def test_the_longest_of_many_chains_is_as_long_as_it_was() -> None:
    """All wait for it: a lost one, where questions differ in how soon their other chains answer."""
    spread = [NormalDist(0.0, 2.0).inv_cdf((i + 0.5) / 60) for i in range(60)]
    effects = tuple(replace(MODEL.effects[0], near=Nearness(level)) for level in spread)
    prompts, pace = MODEL.prompts * 30, Pace(lost=0.08, delay=5.0)
    lost = replace(MODEL, prompts=prompts, effects=effects, errors=None, pace=pace)
    recorded = simulate(Drawn(lost, 60, 8, seed=3), "draft-only")
    fitted = fit_workload([Source("made", as_recorded(recorded, lost), True, tuple(range(60)))])
    drawn = mean(longest(simulate(Drawn(fitted, 60, 8, seed=seed), "draft-only")) for seed in range(4, 9))
    assert drawn == pytest.approx(longest(recorded), rel=0.1)
    assert longest(simulate(Drawn(replace(fitted, pace=Pace()), 60, 8, seed=4), "draft-only")) < 0.8 * drawn


def test_alpha_spends_the_target_and_buys_accuracy() -> None:
    runs = [simulate(Drawn(MODEL, 40, 16, seed=5), "async-marginal", alpha=alpha) for alpha in (0.05, 0.2, 0.5)]
    takeovers = [sum(d.taken_over for d in run.decided) for run in runs]
    right = [sum(bool(correct) for correct in run.correct.values()) for run in runs]
    assert takeovers == sorted(takeovers)
    assert right[0] < min(right[1:])


@pytest.mark.parametrize("model", [MODEL, VARIED], ids=["plain", "varied"])
def test_policies_and_alphas_see_the_same_drafts_as_far_as_histories_agree(model: FittedWorkload) -> None:
    drafts = []
    for policy, alpha in (("async-marginal", 0.1), ("async-marginal", 0.5), ("barrier", 0.3), ("draft-only", 0.1)):
        run = simulate(Drawn(model, 6, 4, seed=1), policy, alpha=alpha)
        drafts.append({(r.chain, r.turn): r.new_tokens for r in run.requests if r.kind == "draft"})
    for other in drafts[1:]:
        common = drafts[0].keys() & other.keys()
        assert len(common) >= 24
        assert all(drafts[0][key] == other[key] for key in common)


@pytest.mark.parametrize("model", [MODEL, VARIED], ids=["plain", "varied"])
def test_more_chains_are_the_same_chains_and_others(model: FittedWorkload) -> None:
    few, many = (simulate(Drawn(model, 4, m, seed=1), "draft-only") for m in (3, 8))
    lengths = [{(r.chain, r.turn): r.new_tokens for r in run.requests} for run in (few, many)]
    assert lengths[0].items() <= lengths[1].items()


def test_a_piece_that_may_not_be_so_long_is_cut_and_goes_on() -> None:
    whole, cut = (Drawn(MODEL, 1, 1, seed=2) for _ in range(2))
    chain = ChainId(0, 0)
    full = whole.written(Draft(0, chain, 0, 100)).tokens
    parts = [cut.written(Draft(t, chain, t, 8)).tokens for t in range(-(-full // 8))]
    assert sum(parts) == full
    assert all(part == 8 for part in parts[:-1])


def test_what_the_model_was_not_fitted_to_is_refused() -> None:
    chain = ChainId(0, 0)
    work = Drawn(replace(MODEL, stops={"draft": MODEL.stops["draft"]}, scores=None), 1, 1, seed=0)
    with pytest.raises(InputError, match="without a target that writes alone"):
        work.written(TakeOver(0, chain, 0, 50, False))
    work.written(Draft(0, chain, 0, 50))
    with pytest.raises(InputError, match="without takeovers"):
        work.written(TakeOver(0, chain, 0, 50, True))
    with pytest.raises(InputError, match="takeovers that replace"):
        work.written(TakeOver(0, chain, 0, 50, False))
    with pytest.raises(InputError, match="without scores"):
        work.ell(Score(0, chain, 0))
    with pytest.raises(InputError, match="needs questions"):
        Drawn(MODEL, 0, 1, seed=0)


def test_recordings_of_both_kinds_of_takeover_are_not_fitted_together() -> None:
    sources = [
        Source(kind, recorded_of(settings("async-marginal", takeover=kind)), kind == "resample", (0, 1, 2))
        for kind in ("continue", "resample")
    ]
    with pytest.raises(InputError, match="some runs' takeovers replace"):
        fit_workload(sources)
    assert not fit_workload(sources[:1]).replaces


def test_a_recording_that_does_not_know_what_is_right_gives_a_workload_that_does_not() -> None:
    recorded = recorded_of(settings("async-marginal"))
    for chain in recorded.recorded.values():
        chain.correct = None
    found = fit_workload([Source("made", recorded, False, (0, 1, 2))])
    assert found.errors is None
    run = simulate(Drawn(found, 3, 4, seed=0), "async-marginal", takeover="continue")
    assert set(run.correct.values()) == {None}


def test_a_question_is_drawn_about_what_is_known_of_it() -> None:
    near = VARIED.effects[1].near
    rng = np.random.default_rng(0)
    drawn = np.array([near.drawn(*rng.standard_normal(2)) for _ in range(20_000)])
    level, both, trend = near.unsure
    root = np.array([[level, 0.0], [both, trend]])
    assert drawn.mean(axis=0) == pytest.approx([near.level, near.trend], abs=0.02)
    assert np.cov(drawn.T) == pytest.approx(root @ root.T, abs=0.01)


# -- further attempts, copies, votes


@pytest.mark.parametrize("policy", ["self-reject", "fork", "best-of-n", "budget", "threshold", "self"])
def test_every_policy_runs_on_a_drawn_workload(policy: str) -> None:
    run = simulate(Drawn(MODEL, 6, 8, seed=1), policy, alpha=0.3, takeover="resample")
    outcomes = {decided.outcome for decided in run.decided}
    expected = {"self-reject": {"stands", "redraft", "keep"}, "fork": {"stands", "redraft", "fork"}, "best-of-n": set()}
    assert outcomes >= expected.get(policy, {"stands", "takeover"})
    assert run.correct.keys() == {finish.chain for finish, _ in run.finished}
    if policy == "best-of-n":
        assert all(f.weight is not None and 0 < f.weight <= 1 for f, _ in run.finished if f.reason == "answered")


def test_an_attempt_is_a_new_draw_from_where_the_turn_began_and_the_kept_one_counts() -> None:
    work, chain = Drawn(MODEL, 1, 1, seed=5), ChainId(0, 0)
    first = work.written(Draft(0, chain, 0, 99))
    ells = [work.ell(Score(1, chain, 0))]
    again = [work.written(Draft(2, chain, 0, 99, attempt)) for attempt in (1, 2)]
    ells.append(work.ell(Score(3, chain, 0, 2)))
    assert len({first.tokens, *(written.tokens for written in again)}) > 1
    assert ells[0] != ells[1]
    work.keep(Keep(chain, 0, 0))
    assert work.ell(Score(4, chain, 0)) == ells[0]
    fresh = Drawn(MODEL, 1, 1, seed=5)
    assert fresh.written(Draft(0, chain, 0, 99)) == first
    assert fresh.written(Draft(1, chain, 1, 99)) == work.written(Draft(5, chain, 1, 99))


def test_a_fork_goes_on_from_where_its_source_stood() -> None:
    """A source whose text is wrong hands on the error; what it drafts meanwhile is not copied."""
    model = replace(MODEL, errors=replace(MODEL.errors, level=(9.0,), stands=(1.0, 1.0)))  # every draft is wrong
    work, source, chain = Drawn(model, 1, 2, seed=3), ChainId(0, 0), ChainId(0, 1)
    work.written(Draft(0, source, 0, 99))
    sound = Drawn(replace(model, errors=replace(model.errors, level=(-9.0,), stands=(0.0, 0.0))), 1, 2, seed=3)
    sound.written(Draft(0, source, 0, 99))
    for made, wrong in ((work, True), (sound, False)):
        made.written(Draft(1, source, 1, 99))  # under way, not copied
        made.written(Draft(2, chain, 0, 99))
        made.fork(Fork(chain, 0, source, 1))
        ell = made.grade(Grade(3, chain, 0, whole=True))
        assert (ell >= min(WRONG)) == wrong


def test_a_copy_is_lost_where_its_source_is_and_only_there() -> None:
    """Whoever is lost never answers, and everybody else does at once."""
    near = Nearness(40.0)
    model = replace(MODEL, prompts=MODEL.prompts[:1], effects=(Effects(near),), pace=Pace(lost=0.5, delay=80.0))
    for copies_lost in (True, False):
        work = Drawn(model, 1, 40, seed=1)
        answers = [work.written(Draft(i, ChainId(0, i), 1, 99)).answered for i in range(40)]
        quick, lost = ChainId(0, answers.index(True)), ChainId(0, answers.index(False))
        chain, source = (quick, lost) if copies_lost else (lost, quick)
        work.fork(Fork(chain, 1, source, 1))
        assert work.written(Draft(99, chain, 2, 99)).answered != copies_lost


def test_whole_chains_are_graded_by_the_mean_over_their_tokens() -> None:
    work, chain = Drawn(MODEL, 1, 1, seed=5), ChainId(0, 0)
    tokens, ells = [], []
    for turn in range(3):
        tokens.append(work.written(Draft(turn, chain, turn, 99)).tokens)
        ells.append(work.ell(Score(9, chain, turn)))
    mean = sum(t * ell for t, ell in zip(tokens, ells, strict=True)) / sum(tokens)
    assert work.grade(Grade(9, chain, 2, whole=True)) == pytest.approx(mean, abs=1e-12)
    assert work.grade(Grade(9, chain, 2, whole=False)) == ells[-1]


def test_wrong_answers_agree_as_often_as_the_recorded_ones() -> None:
    """Two questions of wrong answers: 3 of 4 alike, and 2 of 4 alike with another pair."""
    recorded = recorded_of(settings("async-marginal", questions=2))
    for chain, answer in zip(sorted(recorded.recorded), "aaabccdd", strict=True):
        recorded.recorded[chain].answer, recorded.recorded[chain].correct = answer, False
    found = fit_workload([Source("made", recorded, False, (0, 1))])
    assert found.agreement == (5 / 8, 2 / 8)
    answers = Counter(Drawn(MODEL, 1, 400, seed=0)._answer(ChainId(0, i), _State(wrong=True)) for i in range(400))
    share = answers["wrong 0"] / 400  # MODEL says a half: within 5 standard deviations
    assert abs(share - 0.5) < 5 * (0.25 / 400) ** 0.5
    assert Drawn(MODEL, 1, 1, seed=0)._answer(ChainId(0, 0), _State()) == "right"


def test_early_stop_changes_no_vote_and_saves_work_on_a_drawn_workload() -> None:
    whole = simulate(Drawn(MODEL, 20, 16, seed=2), "async-marginal", alpha=0.2, takeover="resample")
    early = simulate(
        Drawn(MODEL, 20, 16, seed=2), "async-marginal", alpha=0.2, takeover="resample", early_stop="majority"
    )
    stopped = {finish.chain for finish, _ in early.finished if finish.reason == "stopped"}
    assert stopped
    assert early.totals["draft"].decode_rows < whole.totals["draft"].decode_rows
    for question in range(20):
        counted, in_time = (votes(run, question).most_common() for run in (whole, early))
        if len(counted) == 1 or counted[0][1] > counted[1][1]:
            assert in_time[0][0] == counted[0][0]


def votes(run: SimRun, question: int) -> Counter[str]:
    """Answers of a question's chains that were not stopped."""
    last = {request.chain: request.written for request in run.requests if request.written is not None}
    whole = [f.chain for f, _ in run.finished if f.reason == "answered" and f.chain.question == question]
    return Counter(written.answer for chain in whole if (written := last[chain]) and written.answer)
