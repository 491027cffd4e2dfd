"""Claims about decisions on recorded scores, against a search of the whole past for each of them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from atts_runtime.conformal import Adaptive, Alarm, Decision, SealedBank, tie_breaker
from atts_runtime.errors import InputError
from atts_sim.replay import CALIBRATORS, Settings, decide, summarize
from atts_sim.trace import Scores
from tests.sim.traces import Place, scores_at

Verdict = tuple[float, float, bool, str]
ADMISSION = Settings("adaptive")


def judge_slowly(scores: Scores, settings: Settings) -> list[Verdict]:
    """p-value, alpha, verdict and bank of each score, each found by looking through all scores."""
    n, ell = len(scores), scores.ell.tolist()
    question, turn = scores.question.tolist(), scores.turn.tolist()
    reserve = [] if settings.bank is None else settings.bank.scores.tolist()
    order = list(range(n)) if settings.order == "admission" else sorted(range(n), key=lambda i: scores.finished[i])
    at = {i: position for position, i in enumerate(order)}
    verdicts: dict[int, Verdict] = {}

    def reference(i: int) -> tuple[list[float], str]:
        """What adaptive compares a score with, fixed when the first of its question and turn was judged."""
        newest = question[i] - settings.lag
        if newest < 0:
            return reserve, "cold"
        opened = min(at[j] for j in range(n) if (question[j], turn[j]) == (question[i], turn[i]))
        blocks = range(max(0, newest - settings.window + 1), newest + 1)
        members = [j for j in range(n) if turn[j] == turn[i] and question[j] in blocks]
        if any(at[j] >= opened for j in members):
            return reserve, "late"
        if len(members) < max(1, math.ceil(1 / settings.alpha) - 1):
            return reserve, "thin"
        return [ell[j] for j in members], "cohort"

    def bank(i: int, earlier: Sequence[int]) -> tuple[list[float], str]:
        match settings.calibrator:
            case "frozen" if settings.bank is None:
                return [ell[j] for j in range(n) if turn[j] == 0 and j != i], "presample"
            case "frozen":
                return reserve, "frozen"
            case "marginal":
                return reserve + [ell[j] for j in earlier], "online"
            case "conditional":
                return [ell[j] for j in earlier if question[j] == question[i]], "online"
            case "turn":
                start = reserve if turn[i] == 0 else []
                return start + [ell[j] for j in earlier if turn[j] == turn[i]], "online"
            case _:
                return reference(i)

    for position, i in enumerate(order):
        earlier = order[:position]
        against, name = bank(i, earlier)
        place = (f"{question[i]}.{scores.chain[i]}", turn[i], int(scores.attempt[i]))
        u = tie_breaker(settings.seed, *(place if place[-1] else place[:-1]))  # a policy knows of no attempts
        p_value = (sum(s > ell[i] for s in against) + u * (against.count(ell[i]) + 1)) / (len(against) + 1)
        alpha = settings.alpha
        if settings.calibrator == "adaptive":
            of_turn = [j for j in earlier if turn[j] == turn[i]]
            of_question = [j for j in earlier if question[j] == question[i]]
            for account in (earlier, of_turn, of_question):
                alpha += settings.gamma * sum(settings.alpha - verdicts[j][2] for j in account)
        verdicts[i] = (p_value, alpha, p_value <= alpha, name)
    return [verdicts[i] for i in range(n)]


@st.composite
def recorded(draw: st.DrawFn) -> Scores:
    """Up to 5 questions, 3 turns, 3 chains and 2 attempts, none of them sure to be there; many ties; any completion."""
    place = st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2), st.integers(0, 1))
    places: list[Place] = draw(st.lists(place, min_size=1, max_size=30, unique=True))
    score = st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 8)
    ell = draw(st.lists(score, min_size=len(places), max_size=len(places)))
    return scores_at(places, ell, draw(st.permutations(range(len(places)))))


def banks(calibrator: str) -> st.SearchStrategy[SealedBank | None]:
    if calibrator == "conditional":
        return st.none()
    return st.none() | st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.5]), max_size=6).map(SealedBank)


def agree(decisions: Sequence[Decision], verdicts: Sequence[Verdict]) -> None:
    assert [d.p_value for d in decisions] == [p for p, _, _, _ in verdicts]
    assert [d.taken_over for d in decisions] == [taken for _, _, taken, _ in verdicts]
    assert [d.bank for d in decisions] == [bank for _, _, _, bank in verdicts]
    assert [d.alpha for d in decisions] == pytest.approx([alpha for _, alpha, _, _ in verdicts], abs=1e-9)


@pytest.mark.parametrize("calibrator", CALIBRATORS)
@hypothesis_settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_every_calibrator_decides_as_a_search_of_the_whole_past_does(calibrator: str, data: st.DataObject) -> None:
    settings = Settings(
        calibrator,
        alpha=data.draw(st.sampled_from([0.1, 0.25, 0.4, 0.7])),
        order=data.draw(st.sampled_from(["admission", "completion"])),
        bank=data.draw(banks(calibrator)),
        seed=data.draw(st.integers(0, 3)),
        gamma=data.draw(st.sampled_from([0.02, 0.1, 0.5])),
        lag=data.draw(st.integers(1, 3)),
        window=data.draw(st.integers(1, 3)),
    )
    scores = data.draw(recorded())
    agree(decide(scores, settings), judge_slowly(scores, settings))


def full_trace(questions: int = 12, turns: int = 2, chains: int = 3, drift: float = 0.0) -> Scores:
    """Every chain of every question in every turn, scores drifting by question, in a random order of completion."""
    random = np.random.default_rng(7)
    places = [(q, t, c, 0) for q, t, c in product(range(questions), range(turns), range(chains))]
    ell = [random.exponential() + drift * q for q, _, _, _ in places]
    return scores_at(places, ell, random.permutation(len(places)).tolist())


@pytest.mark.parametrize("order", ["admission", "completion"])
def test_adaptive_is_the_calibrator_of_the_policy_fed_by_hand_alarms_included(order: str) -> None:
    scores = full_trace(questions=30, drift=0.4)
    settings = replace(ADMISSION, order=order, seed=5, gamma=0.05, lag=2, window=4, bank=SealedBank([0.5, 1.5]))
    by_hand = Adaptive(0.4, gamma=0.05, lag=2, window=4, reserve=SealedBank([0.5, 1.5]), seed=5)
    for turn in range(2):
        for _ in range(30):
            by_hand.expect(turn, 3)
    expected = {}
    for i in range(len(scores)) if order == "admission" else np.argsort(scores.finished).tolist():
        question, turn, chain = (int(column[i]) for column in (scores.question, scores.turn, scores.chain))
        u = tie_breaker(5, f"{question}.{chain}", turn)
        expected[i] = by_hand.decide(question, turn, float(scores.ell[i]), u)
    decisions = decide(scores, settings)
    assert decisions == [expected[i] for i in range(len(scores))]
    assert any(decision.alarms for decision in decisions)


def test_adaptive_says_why_it_had_no_cohort_to_compare_with() -> None:
    places = [(0, 0, 0, 0), (1, 0, 0, 0), (1, 0, 1, 0), (2, 0, 0, 0), (3, 0, 0, 0)]
    scores = scores_at(places, [1.0, 2.0, 3.0, 4.0, 5.0], [0, 1, 3, 2, 4])  # question 1 ends after question 2
    decisions = decide(scores, replace(ADMISSION, order="completion", window=1))
    assert [d.bank for d in decisions] == ["cold", "thin", "thin", "late", "thin"]
    assert [d.bank for d in decide(scores, replace(ADMISSION, window=2))] == [
        "cold",
        "thin",
        "thin",
        "cohort",
        "cohort",
    ]


def test_a_question_that_outlasts_all_its_successors_is_judged_like_any_other() -> None:
    scores = scores_at([(q, 0, 0, 0) for q in range(5)], [1.0, 2.0, 3.0, 4.0, 5.0], [4, 0, 1, 2, 3])
    decisions = decide(scores, replace(ADMISSION, order="completion", window=2))
    assert decisions[0].bank == "cold"
    assert 0 < decisions[0].p_value <= 1


def test_drift_in_a_later_turn_is_seen_though_the_first_question_never_got_there() -> None:
    drifting = [(q, 1, c, 0) for q, c in product(range(1, 60), range(2))]
    places = [(q, 0, c, 0) for q, c in product(range(60), range(2))] + drifting
    scores = scores_at(places, [(c - 0.5) + (q if turn else 0) for q, turn, c, _ in places])
    summary = summarize(scores, ADMISSION, decide(scores, ADMISSION))
    assert ("admission/turn 1", "ville") in {(alarm["monitor"], alarm["kind"]) for alarm in summary["alarms"]}


def test_the_order_of_completion_counts_only_where_it_is_asked_for() -> None:
    scores = full_trace()
    reversed_ = replace(scores, finished=scores.finished.max() - scores.finished)
    for calibrator in ("marginal", "conditional", "turn", "adaptive"):
        admission, completion = Settings(calibrator), Settings(calibrator, order="completion")
        assert decide(scores, admission) == decide(reversed_, admission)
        assert decide(scores, completion) != decide(reversed_, completion)
    assert decide(scores, Settings("frozen")) == decide(scores, Settings("frozen", order="completion"))


# -- the summary


def decided(taken: Sequence[bool]) -> list[Decision]:
    return [Decision(0.5, 0.3 + i / 100, bool(t), "online" if i % 3 else "cold") for i, t in enumerate(taken)]


def test_rates_come_with_their_counts_and_exact_intervals() -> None:
    scores = full_trace(questions=5, turns=3, chains=4)
    taken = np.random.default_rng(1).random(len(scores)) < 0.4
    taken[scores.turn == 1] = True
    taken[scores.turn == 2] = False
    summary = summarize(scores, Settings("marginal"), decided(taken))
    rows = [(summary["takeover"], taken)]
    rows += [(row, taken[scores.turn == row["turn"]]) for row in summary["by_turn"]]
    rows += [(row, taken[scores.question == row["question"]]) for row in summary["by_question"]]
    assert len(rows) == 1 + 3 + 5
    for row, of in rows:
        exact = stats.binomtest(int(of.sum()), len(of)).proportion_ci(0.95, method="exact")
        assert (row["takeovers"], row["scores"], row["rate"]) == (of.sum(), len(of), of.mean())
        assert row["ci95"] == pytest.approx([exact.low, exact.high], abs=1e-12)
    assert [row["turn"] for row in summary["by_turn"]] == [0, 1, 2]
    assert [row["question"] for row in summary["by_question"]] == [0, 1, 2, 3, 4]


def test_a_turn_without_scores_has_no_rate() -> None:
    scores = scores_at([(0, 0, 0, 0), (0, 3, 0, 0)], [1.0, 2.0])
    summary = summarize(scores, ADMISSION, decide(scores, ADMISSION))
    assert [row["turn"] for row in summary["by_turn"]] == [0, 3]


@pytest.mark.parametrize("alpha", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("chains", [1, 2, 7, 20])
def test_a_question_is_in_the_band_between_the_binomial_quantiles_of_its_own_number_of_scores(
    chains: int, alpha: float
) -> None:
    scores = full_trace(questions=chains + 1, turns=1, chains=chains)  # question k has k takeovers
    summary = summarize(scores, Settings("marginal", alpha), decided(scores.chain < scores.question))
    low, high = stats.binom.ppf([0.005, 0.995], chains, alpha)
    assert [row["takeovers"] for row in summary["by_question"]] == list(range(chains + 1))
    assert [row["in_band"] for row in summary["by_question"]] == [low <= k <= high for k in range(chains + 1)]
    assert summary["questions_in_band"] == np.mean([low <= k <= high for k in range(chains + 1)])


def test_the_summary_says_what_was_replayed_and_with_what_it_was_compared() -> None:
    scores = replace(full_trace(questions=1, turns=2, chains=5), finished_from="estimated", missing=4)
    summary = summarize(scores, Settings("turn", 0.25, order="completion"), decided([True] * 10))
    said = {key: summary[key] for key in ("trace", "calibrator", "alpha", "order", "completion_times")}
    assert said == {
        "trace": str(scores.path),
        "calibrator": "turn",
        "alpha": 0.25,
        "order": "completion",
        "completion_times": "estimated",
    }
    assert (summary["scores"], summary["missing_scores"]) == (10, 4)
    assert summary["compared_with"] == {"cold": 4, "online": 6}
    assert summary["alpha_t"] == {"min": 0.3, "max": 0.39}


def test_alarms_name_their_monitor_and_the_segment_that_raised_them() -> None:
    scores = scores_at([(0, 0, 0, 0), (1, 2, 0, 0)], [1.0, 2.0])
    decisions = decided([True, False])
    decisions[1] = replace(decisions[1], alarms=(Alarm("ville", "admission/turn 2", 17),))
    alarm = {"kind": "ville", "monitor": "admission/turn 2", "after": 17, "question": 1, "turn": 2}
    assert summarize(scores, ADMISSION, decisions)["alarms"] == [alarm]
    assert summarize(scores, ADMISSION, decided([True, False]))["alarms"] == []


@pytest.mark.parametrize("calibrator", sorted(CALIBRATORS.keys() - {"adaptive"}))
def test_calibrators_without_monitors_have_no_list_of_alarms(calibrator: str) -> None:
    scores, settings = full_trace(), Settings(calibrator)
    assert summarize(scores, settings, decide(scores, settings))["alarms"] is None


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_a_seed_fixes_the_result_which_is_plain_json(calibrator: str) -> None:
    scores = full_trace(drift=0.3)
    texts = []
    for seed in (1, 1, 2):
        settings = Settings(calibrator, seed=seed)
        decisions = decide(scores, settings)
        texts.append((json.dumps(summarize(scores, settings, decisions), allow_nan=False), decisions))
    assert texts[0] == texts[1]
    assert texts[0][1] != texts[2][1]


# -- settings


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"calibrator": "adaptative"}, "unknown calibrator 'adaptative'; choose one of frozen, marginal"),
        *[({"alpha": a}, "alpha must lie strictly between 0 and 1") for a in (0.0, 1.0, -0.1, 1.5, math.nan, math.inf)],
        *[({"gamma": g}, "gamma must be positive") for g in (0.0, -0.1, math.nan, math.inf)],
        *[({name: n}, "lag and window must be at least 1") for name in ("lag", "window") for n in (0, -1)],
        ({"calibrator": "conditional", "bank": SealedBank([1.0])}, "conditional calibrator has no use for --bank"),
    ],
)
def test_bad_settings_are_refused_in_one_line(bad: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named) as refusal:
        replace(ADMISSION, **bad)
    assert "\n" not in str(refusal.value)
