"""The watches rank what is exchangeable when nothing is wrong, whatever finishes first."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from atts_runtime.conformal import Alarm, Counts, Monitor, smoothed, tie_breaker
from atts_runtime.conformal.watch import AdmissionWatch, CompletionWatch

DELTA = 1e-6

scores = st.integers(0, 5).map(float) | st.floats(-9, 9)
ties = st.floats(0, 1, exclude_min=True)

examples = settings(max_examples=60, deadline=None)


def state(monitor: Monitor) -> tuple[float, float, int, bool]:
    return monitor.martingale.log_capital, monitor.log_cusum, monitor.seen, monitor.rung


# Drift


@examples
@given(
    questions=st.lists(st.lists(scores, max_size=3), max_size=12),
    turn=st.integers(0, 3),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_means_are_watched_in_admission_order_whatever_the_order_of_completion(
    questions: list[list[float]], turn: int, seed: int, data: st.DataObject
) -> None:
    threshold = 1.1
    watch, reference = AdmissionWatch(threshold, seed), Monitor(threshold * (turn + 1) * (turn + 2))
    reference.key = f"admission/turn {turn}"
    expected: list[Alarm] = []
    for question, members in enumerate(questions):
        if members:  # one without scores is skipped
            expected += reference.watch(fmean(members), tie_breaker(seed, "admission", turn, question))
    alarms: list[Alarm] = []
    for question in data.draw(st.permutations(range(len(questions)))):
        alarms += watch.watch(question, turn, questions[question])
    assert alarms == expected
    assert state(watch.monitor(turn)) == state(reference)


def test_a_mean_waits_for_all_earlier_questions_of_its_turn_and_for_no_other_turn() -> None:
    watch = AdmissionWatch(100.0, seed=0)

    def seen() -> tuple[int, int]:
        return watch.monitor(0).seen, watch.monitor(1).seen

    watch.watch(1, 0, [1.0])
    watch.watch(2, 0, [])
    watch.watch(3, 0, [3.0])
    assert seen() == (0, 0)
    watch.watch(0, 1, [5.0, 7.0])
    assert seen() == (0, 1)
    watch.watch(0, 0, [])
    assert seen() == (2, 1)


@pytest.mark.parametrize("watch", [AdmissionWatch(7.0, seed=0), CompletionWatch(7.0)], ids=lambda watch: watch.name)
def test_the_thresholds_of_all_turns_together_allow_one_false_alarm_in_c(
    watch: AdmissionWatch | CompletionWatch,
) -> None:
    monitors = [watch.monitor(turn) for turn in range(1000)]
    assert [monitor.threshold for monitor in monitors[:4]] == [7 * 2, 7 * 6, 7 * 12, 7 * 20]
    assert sum(1 / monitor.threshold for monitor in monitors) == pytest.approx(1 / 7 * (1 - 1 / 1001))
    assert watch.monitor(3) is monitors[3]


# Asynchrony


@examples
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), scores, ties), max_size=40),
    threshold=st.sampled_from([1.1, 100.0]),
)
def test_a_score_is_ranked_among_the_siblings_that_finished_before_it_and_nobody_else(
    arrivals: list[tuple[int, int, float, float]], threshold: float
) -> None:
    watch = CompletionWatch(threshold)
    references = [Monitor(threshold * (t + 1) * (t + 2), key=f"completion/turn {t}") for t in range(2)]
    for at, (question, turn, score, u) in enumerate(arrivals):
        siblings = [s for q, t, s, _ in arrivals[:at] if (q, t) == (question, turn)]
        counts = Counts(sum(s > score for s in siblings), sum(s == score for s in siblings), len(siblings))
        assert watch.watch(question, turn, score, u) == references[turn].bet(smoothed(counts, u))
    for turn, reference in enumerate(references):
        assert state(watch.monitor(turn)) == state(reference)


def test_to_forget_siblings_is_not_to_forget_what_was_bet() -> None:
    watch, reference = CompletionWatch(100.0), Monitor(200.0)
    watch.watch(0, 0, 1.0, 0.5)
    watch.watch(0, 0, 2.0, 0.5)
    watch.forget(0, 0)
    watch.forget(5, 0)  # never seen
    watch.watch(0, 0, 3.0, 0.25)
    for p_value in (0.5, 0.25, 0.25):  # alone; largest of two; alone again
        reference.bet(p_value)
    assert state(watch.monitor(0)) == state(reference)


# False alarms and true ones

RUNS, QUESTIONS, CHAINS = 40, 30, 12
SPREAD = 3.0  # of the questions' difficulties, in deviations within a question


def completions(
    rng: np.random.Generator, rho: float, drift: float = 0.0, questions: int = QUESTIONS, chains: int = CHAINS
) -> Iterator[tuple[int, float]]:
    """Question and score of every chain in order of completion. Questions start one time unit apart; durations vary
    by about one unit and correlate with the score within a question by `rho`; the later half is harder by `drift`."""
    z = rng.standard_normal((questions, chains))
    duration = 4 + rho * z + np.sqrt(1 - rho**2) * rng.standard_normal(z.shape)
    question = np.arange(questions)[:, None]
    difficulty = SPREAD * rng.standard_normal((questions, 1)) + drift * (question >= questions // 2)
    rows = zip((question + duration).flat, np.repeat(question, chains), (difficulty + z).flat, strict=True)
    for _, q, score in sorted(rows):
        yield int(q), float(score)


def at_most_by_ville(threshold: float) -> float:
    """False alarms among the runs that are exceeded with probability `DELTA`."""
    return float(stats.binom.ppf(1 - DELTA, RUNS, 1 / threshold))


def test_where_durations_are_unrelated_to_scores_the_completion_watch_is_quiet_and_a_raw_monitor_is_not() -> None:
    rng = np.random.default_rng(20231)
    false_alarms = raw_alarms = 0
    for _ in range(RUNS):
        watch, raw = CompletionWatch(50.0), Monitor(100.0)
        for question, score in completions(rng, rho=0.0):
            u = 1 - rng.random()
            watch.watch(question, 0, score, u)
            raw.watch(score, u)
        false_alarms += watch.monitor(0).rung
        raw_alarms += raw.rung
    assert watch.monitor(0).threshold == raw.threshold == 100
    assert false_alarms <= at_most_by_ville(100)
    assert raw_alarms > RUNS / 2  # negative control: chains of a question resemble each other


def test_where_strange_segments_take_longer_the_completion_watch_rings() -> None:
    rng = np.random.default_rng(20232)
    for _ in range(RUNS):
        watch = CompletionWatch(50.0)
        alarms = [a for q, s in completions(rng, rho=0.9) for a in watch.watch(q, 0, s, 1 - rng.random())]
        assert alarms[0].key == "completion/turn 0"
        assert alarms[0].after < QUESTIONS * CHAINS / 2


@pytest.mark.parametrize(("drift", "rings"), [(0.0, False), (1.0, True)])
def test_the_admission_watch_rings_when_work_gets_harder_and_not_when_strange_segments_take_longer(
    drift: float, rings: bool
) -> None:
    """The drift is in deviations of a question's difficulty; it has 100 questions to show."""
    rng = np.random.default_rng(20233)
    questions, chains, rung = 200, 3, 0
    for run in range(RUNS):
        watch = AdmissionWatch(50.0, seed=run)
        members: list[list[float]] = [[] for _ in range(questions)]
        for question, score in completions(rng, 0.9, drift * SPREAD, questions, chains):
            members[question].append(score)
            if len(members[question]) == chains:
                watch.watch(question, 0, members[question])
        rung += watch.monitor(0).rung
    assert watch.monitor(0).threshold == 100
    assert rung > RUNS / 2 if rings else rung <= at_most_by_ville(100)
