"""The closed form of the barrier's stall equals the mean over every way the lengths can fall."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.errors import InputError
from atts_runtime.profiler.counts import Rates
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.predict import Predictor, Role, Writer, _together
from atts_runtime.records import CallRecord, ChainRecord
from tests.runtime.profiler.test_intensity import peak

SPEC = ModelSpec("m", 1, 4, 2, 1, 2, 6, 9, tied=True, bytes_per_weight=1, bytes_per_kv_element=1)


def step_s(rows: float) -> float:
    return 1.0 + 0.25 * rows


def by_hand(lengths: tuple[int, ...], chains: int) -> tuple[float, int]:
    """Chain-seconds waited and steps, while these segments are written side by side."""
    stalled, longest = 0.0, max(lengths, default=0)
    for k in range(longest):
        rows = sum(n > k for n in lengths)
        stalled += (chains - rows) * step_s(rows)
    return stalled, longest


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_the_stall_at_a_barrier_is_the_mean_over_all_draws(lengths: list[int], writers: int, others: int) -> None:
    writer = Writer.of(lengths, step_s, 1.0)
    draws = [by_hand(drawn, writers + others) for drawn in product(lengths, repeat=writers)]
    mean_stall = math.fsum(stall for stall, _ in draws) / len(draws)
    assert writer.stall_s(writers + others, writers) == pytest.approx(mean_stall, rel=1e-9, abs=1e-9)
    assert writer.steps(writers) == pytest.approx(sum(n for _, n in draws) / len(draws))


def test_nobody_waits_for_nobody() -> None:
    assert Writer.of([3, 5], step_s, 1.0).stall_s(4, 0) == 0.0
    assert Writer.of([], step_s, 1.0).stall_s(4, 4) == 0.0
    assert Writer.of([], step_s, 1.0).tokens == 0.0


def test_equal_segments_stall_nobody() -> None:
    assert Writer.of([6, 6], step_s, 1.0).stall_s(5, 5) == 0.0


def records(chains: int = 4, turns: int = 2) -> list[ChainRecord]:
    """Chain i drafts 4 + i tokens a turn; every second one is taken over in turn 0; all come to every turn."""
    made = []
    for i in range(chains):
        calls = []
        for turn in range(turns):
            at = 10.0 * turn
            times = {"t_queued_s": at, "t_start_s": at, "t_end_s": at + 2.0}
            calls.append(CallRecord(turn, "draft", "draft", tokens_new=4 + i, flops=100, bytes=50.0, **times))
            calls.append(CallRecord(turn, "score", "target", tokens_new=4 + i, flops=200, bytes=80.0, **times))
            if turn == 0 and i % 2:
                calls.append(CallRecord(turn, "takeover", "target", tokens_new=5, flops=300, bytes=90.0, **times))
        made.append(ChainRecord(0, i, "q", calls=calls, t_end_s=30.0))
    return made


def predictor(made: list[ChainRecord] | None = None) -> Predictor:
    role = Role(Rates(SPEC), peak(bytes_per_s=1000.0), step_s)
    return Predictor.fit(records() if made is None else made, role, role)


def test_compute_grows_with_the_chains_and_nothing_else() -> None:
    found = [predictor().predict("barrier", m, 2).T_c_s for m in (1, 2, 4, 8)]
    total = (4 * 100 * 2 + 4 * 200 * 2 + 2 * 300) / 100
    assert found == pytest.approx([total / 4 * m for m in (1, 2, 4, 8)])


def test_r_falls_with_chains_at_the_barrier_and_not_without_one() -> None:
    barrier, free = (
        [predictor().predict(policy, m, 2).r or 0.0 for m in (2, 4, 8, 16, 32)]
        for policy in ("barrier", "async-marginal")
    )
    assert barrier == sorted(barrier, reverse=True)
    assert free == sorted(free)
    assert barrier[-1] < barrier[0] / 2


def test_the_stall_a_chain_grows_with_turns_at_the_barrier() -> None:
    one, two = (predictor().predict("barrier", 8, turns).T_s_s for turns in (1, 2))
    assert two == pytest.approx(2 * one)


def test_the_rate_is_the_runs_own_unless_another_is_asked_for() -> None:
    found = predictor()
    assert found.takeover == 0.25
    assert found.predict("barrier", 8, 2) == found.predict("barrier", 8, 2, alpha=0.25)
    assert found.predict("barrier", 8, 2, alpha=0.01).T_s_s < found.predict("barrier", 8, 2).T_s_s


def test_without_a_barrier_there_is_no_stall() -> None:
    assert predictor().predict("async-adaptive", 8, 2).T_s_s == 0.0


@pytest.mark.parametrize("chains", [1.0, 3.0, 40.0])
def test_rows_are_shared_out_by_how_long_a_visit_takes(chains: float) -> None:
    found = predictor()
    drafting, taking = found.rows(chains, 0.25)
    draft_s = found.draft.tokens * step_s(_together(drafting, chains))
    take_s = 0.25 * found.target.tokens * step_s(_together(taking, chains))
    round_s = draft_s + found.score_s + take_s
    assert drafting == pytest.approx(chains * draft_s / round_s)
    assert taking == pytest.approx(chains * take_s / round_s)
    assert drafting + taking < chains


@pytest.mark.parametrize("share", [0.0, 1e-9, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("chains", [1, 2, 8, 32])
def test_a_step_has_a_row(share: float, chains: int) -> None:
    """The mean of a binomial number of rows that is not 0; of a model where hardly anybody is, 1."""
    chances = [math.comb(chains, k) * share**k * (1 - share) ** (chains - k) for k in range(1, chains + 1)]
    there = sum(chances)
    rows = sum(k * chance for k, chance in enumerate(chances, 1)) / there if there else 1.0
    assert _together(share * chains, chains) == pytest.approx(rows, rel=1e-6)


@pytest.mark.parametrize(("policy", "chains", "turns"), [("target-only", 4, 2), ("nope", 4, 2), ("barrier", 4, 3)])
def test_what_the_run_does_not_say_is_refused(policy: str, chains: int, turns: int) -> None:
    with pytest.raises(InputError, match="cannot predict"):
        predictor().predict(policy, chains, turns)


def test_a_run_that_tried_again_cannot_predict() -> None:
    made = records()
    made[0].calls[-1].attempt = 1
    with pytest.raises(InputError, match="once a turn"):
        predictor(made)


def test_a_run_that_did_not_count_cannot_predict() -> None:
    made = records()
    made[0].calls[0].flops = None
    with pytest.raises(InputError, match="--profiler on"):
        predictor(made)
