"""The budget holds on any sequence of p-values, those of an adversary who knows alpha_t included."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atts_runtime.conformal import AdaptiveAlpha
from atts_runtime.conformal.budget import overlapping_keys_bound, single_key_bound

ROUNDING = 1e-9
NAN = float("nan")

Move = Callable[[float], float]  # from alpha_t to the p-value that the adversary shows


def just_taken(level: float) -> float:
    """The largest p-value that is taken over, so that alpha falls as low as it can."""
    return min(max(level, 0.0), 1.0)


def just_spared(level: float) -> float:
    """The smallest p-value that is not, so that alpha rises as high as it can."""
    return min(max(math.nextafter(level, 2.0), 0.0), 1.0)


def towards_zero(level: float) -> float:
    """Taken over unless alpha_t is below 0: drives alpha down."""
    return 0.0


def towards_one(level: float) -> float:
    """Not taken over unless alpha_t is at least 1: drives alpha up."""
    return 1.0


def fixed(p_value: float) -> Move:
    return lambda level: p_value


moves = st.sampled_from([just_taken, just_spared, towards_zero, towards_one]) | st.floats(0, 1).map(fixed)
# Long stretches of one move, and short ones: the first find the ends of alpha_t, the second its steps.
games = st.lists(st.tuples(moves, st.sampled_from([1, 2, 3, 40])), max_size=30).map(
    lambda stretches: [move for move, times in stretches for _ in range(times)]
)
alphas = st.sampled_from([0.01, 0.1, 0.2, 0.5, 0.9]) | st.floats(0.001, 0.999)
gammas = st.sampled_from([0.005, 0.1, 1.0, 5.0]) | st.floats(0.001, 10)

examples = settings(max_examples=80, deadline=None)


def distance(taken: list[bool], alpha: float) -> float:
    return abs(sum(taken) / len(taken) - alpha)


# One key


@examples
@given(alpha=alphas, gamma=gammas, game=games)
def test_the_rate_stays_within_the_single_key_bound_after_every_decision(
    alpha: float, gamma: float, game: list[Move]
) -> None:
    budget, taken = AdaptiveAlpha(alpha, gamma), []
    for move in game:
        taken.append(budget.decide(move(budget.level(["all"])), ["all"])[0])
        assert distance(taken, alpha) <= single_key_bound(alpha, gamma, len(taken)) + ROUNDING


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("gamma", [0.005, 0.1])
def test_the_single_key_bound_is_nearly_attained(alpha: float, gamma: float) -> None:
    """On p-values of 1 nothing is taken over until alpha_t has climbed to 1."""
    budget, spared = AdaptiveAlpha(alpha, gamma), 0
    while not budget.decide(1.0, ["all"])[0]:
        spared += 1
    bound = single_key_bound(alpha, gamma, spared)
    assert alpha <= bound <= alpha * (1 + 2 * gamma / (1 - alpha))


def test_alpha_t_is_not_clipped_at_either_end() -> None:
    budget = AdaptiveAlpha(alpha=0.5, gamma=5.0)  # every decision moves alpha_t by 2.5
    decisions = [budget.decide(p_value, ["all"]) for p_value in (1.0, 1.0, 0.0, 0.0, 0.0)]
    assert decisions == [(False, 0.5), (True, 3.0), (True, 0.5), (False, -2.0), (True, 0.5)]


def clipped_state(p_value: float, decisions: int, alpha: float, gamma: float) -> float:
    """The takeover rate if alpha_t were cut to [0, 1] after every step."""
    level, taken = alpha, 0
    for _ in range(decisions):
        hit = p_value <= level
        level = min(max(level + gamma * (alpha - hit), 0.0), 1.0)
        taken += hit
    return taken / decisions


def clipped_reading(p_value: float, decisions: int, alpha: float, gamma: float) -> float:
    """The same if it were remembered whole and cut when it is compared."""
    level, taken = alpha, 0
    for _ in range(decisions):
        hit = p_value <= min(max(level, 0.0), 1.0)
        level += gamma * (alpha - hit)
        taken += hit
    return taken / decisions


@pytest.mark.parametrize(
    ("clipped", "p_value", "rate"),
    [
        # At 0 alpha_t rises to alpha gamma = .01, is met by .005, and falls to 0 again: every other one is taken over.
        (clipped_state, 0.005, 0.5),
        # p-values of 0 are at most 0, where an alpha_t below it is read as 0.
        (clipped_state, 0.0, 1.0),
        (clipped_reading, 0.0, 1.0),
    ],
)
def test_clipping_alpha_t_would_break_the_bound(
    clipped: Callable[[float, int, float, float], float], p_value: float, rate: float
) -> None:
    alpha, gamma, decisions = 0.1, 0.1, 4000
    bound = single_key_bound(alpha, gamma, decisions)
    assert clipped(p_value, decisions, alpha, gamma) == pytest.approx(rate, abs=bound)
    assert abs(rate - alpha) > 100 * bound
    budget = AdaptiveAlpha(alpha, gamma)
    unclipped = [budget.decide(p_value, ["all"])[0] for _ in range(decisions)]
    assert distance(unclipped, alpha) <= bound


# Stale alphas


def play_stale(budget: AdaptiveAlpha, game: Iterable[Move], stale: int, *, in_batches: bool) -> list[bool]:
    """Decisions that know all earlier ones but up to the last `stale` - 1, learnt in batches or one by one, late."""
    taken: list[bool] = []
    unknown: deque[bool] = deque()
    for move in game:
        level = budget.level(["all"])
        taken.append(move(level) <= level)
        unknown.append(taken[-1])
        if len(unknown) == stale:
            for _ in range(stale if in_batches else 1):
                budget.learn(unknown.popleft(), ["all"])
    return taken


@examples
@given(alpha=alphas, gamma=gammas, game=games, stale=st.integers(1, 50), in_batches=st.booleans())
def test_the_rate_stays_within_the_stale_bound(
    alpha: float, gamma: float, game: list[Move], stale: int, in_batches: bool
) -> None:
    taken = play_stale(AdaptiveAlpha(alpha, gamma), game, stale, in_batches=in_batches)
    for decisions in range(1, len(taken) + 1):
        bound = single_key_bound(alpha, gamma, decisions, stale)
        assert distance(taken[:decisions], alpha) <= bound + ROUNDING


@pytest.mark.parametrize(("stale", "least"), [(10, 0.9), (100, 0.98)])
def test_an_adversary_who_waits_for_alpha_t_to_reach_0_nearly_attains_the_stale_bound(stale: int, least: float) -> None:
    """On p-values of 0 a whole batch is taken over as long as alpha_t, known from before it, is not yet negative."""
    alpha, gamma = 0.01, 1.0
    budget = AdaptiveAlpha(alpha, gamma)
    taken = play_stale(budget, [towards_zero] * stale, stale, in_batches=True)
    assert all(taken)
    assert budget.level(["all"]) == pytest.approx(alpha - stale * gamma * (1 - alpha))
    assert distance(taken, alpha) > 3 * single_key_bound(alpha, gamma, stale)
    assert distance(taken, alpha) > least * single_key_bound(alpha, gamma, stale, stale)


# Several keys


def keys_of(choice: int) -> tuple[Hashable, ...]:
    return ("all", ("turn", choice % 2), ("question", choice % 5))


@examples
@given(alpha=alphas, gamma=gammas, game=st.lists(st.tuples(moves, st.integers(0, 9)), max_size=250))
def test_every_key_stays_within_the_overlapping_keys_bound(
    alpha: float, gamma: float, game: list[tuple[Move, int]]
) -> None:
    budget = AdaptiveAlpha(alpha, gamma)
    taken: dict[Hashable, list[bool]] = {}
    for decisions, (move, choice) in enumerate(game, 1):
        keys = keys_of(choice)
        hit, _ = budget.decide(move(budget.level(keys)), keys)
        for key in keys:
            taken.setdefault(key, []).append(hit)
        for hits in taken.values():
            bound = overlapping_keys_bound(alpha, gamma, decisions, len(hits), len(keys))
            assert distance(hits, alpha) <= bound + ROUNDING


def test_the_bounds_are_those_that_were_derived() -> None:
    """With alpha 1/2 and gamma 1 a decision adds at most 2/4 + keys/4 to the squared length of theta."""
    assert overlapping_keys_bound(0.5, 1.0, decisions=4, of_key=2, keys=3) == pytest.approx(math.sqrt(4 * 5 / 4) / 2)
    assert single_key_bound(0.5, 1.0, decisions=4) == (0.5 + 1) / 4
    assert single_key_bound(0.1, 0.5, decisions=4, stale=3) == (0.9 + 3 * 0.5) / (0.5 * 4)


@examples
@given(alpha=alphas, gamma=gammas, game=st.lists(st.tuples(moves, st.integers(0, 9)), max_size=120))
def test_a_key_s_error_is_read_off_its_offset(alpha: float, gamma: float, game: list[tuple[Move, int]]) -> None:
    budget = AdaptiveAlpha(alpha, gamma)
    decisions: Counter[Hashable] = Counter()
    for move, choice in game:
        keys = keys_of(choice)
        budget.decide(move(budget.level(keys)), keys)
        decisions.update(keys)
    for key, count in decisions.items():
        rate = budget.rate(key)
        assert rate is not None
        assert rate - alpha == pytest.approx(-budget.offset(key) / (gamma * count), abs=ROUNDING)


def test_a_level_is_alpha_and_the_offsets_of_its_keys_alone() -> None:
    budget = AdaptiveAlpha(0.25, 0.5)
    budget.learn(True, ["a", "b"])
    budget.learn(False, ["b"])
    assert (budget.offset("a"), budget.offset("b"), budget.offset("c")) == (-0.375, -0.25, 0.0)
    assert [budget.level(keys) for keys in ([], ["a"], ["c", "b"], ["a", "b"])] == [0.25, -0.125, 0.0, -0.375]
    assert (budget.rate("a"), budget.rate("b"), budget.rate("c")) == (1.0, 0.5, None)


# decide, level, learn


@examples
@given(alpha=alphas, gamma=gammas, game=st.lists(st.tuples(moves, st.integers(0, 9), st.booleans()), max_size=60))
def test_to_decide_is_to_read_the_level_compare_and_learn(
    alpha: float, gamma: float, game: list[tuple[Move, int, bool]]
) -> None:
    at_once, in_steps = AdaptiveAlpha(alpha, gamma), AdaptiveAlpha(alpha, gamma)
    for move, choice, allowed in game:
        keys = keys_of(choice)
        level = in_steps.level(keys)
        p_value = move(level)
        taken = allowed and p_value <= level
        in_steps.learn(taken, keys)
        assert at_once.decide(p_value, keys, allowed=allowed) == (taken, level)
        for key in keys:
            assert (at_once.offset(key), at_once.rate(key)) == (in_steps.offset(key), in_steps.rate(key))


def test_a_takeover_that_is_not_allowed_is_made_up_for_later() -> None:
    budget = AdaptiveAlpha(0.25, 0.5)
    assert budget.decide(0.125, ["all"], allowed=False) == (False, 0.25)
    assert (budget.rate("all"), budget.level(["all"])) == (0.0, 0.375)
    assert budget.decide(0.375, ["all"]) == (True, 0.375)


# What is refused


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.1, NAN])
def test_an_alpha_that_is_no_rate_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must lie strictly between 0 and 1"):
        AdaptiveAlpha(alpha, 0.1)


@pytest.mark.parametrize("gamma", [0.0, -0.1, NAN, math.inf])
def test_a_step_that_is_not_positive_and_finite_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be positive"):
        AdaptiveAlpha(0.1, gamma)


@pytest.mark.parametrize("p_value", [-1e-9, 1 + 1e-9, NAN, math.inf, -math.inf])
@pytest.mark.parametrize("allowed", [True, False])
def test_what_is_no_p_value_is_refused_and_not_learnt(p_value: float, allowed: bool) -> None:
    budget = AdaptiveAlpha(0.1, 0.1)
    with pytest.raises(ValueError, match="a p-value lies in"):
        budget.decide(p_value, ["all"], allowed=allowed)
    assert (budget.rate("all"), budget.offset("all")) == (None, 0.0)
