"""What a setting would change on a published trace: draws of its fitted model, the same under every setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atts_runtime.errors import InputError
from atts_sim.tracedraw import Interval, Shares, TraceModel

OnProgress = Callable[[int, int], None]
LEAST_DRAWS = 2


@dataclass(frozen=True, slots=True)
class Setting:
    """`alpha` None: the recorded one; `in_flight` None: all questions at once."""

    alpha: float | None
    in_flight: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a setting comes to, and what it changes against the first one: seconds relatively, shares by difference."""

    setting: Setting
    total_s: Interval
    takeover: Interval
    answered: Interval
    total_change: Interval
    takeover_change: Interval
    answered_change: Interval


def sample(
    model: TraceModel,
    settings: Sequence[Setting],
    *,
    draws: int,
    seed: int,
    questions: int,
    jobs: int = 1,
    resampled: bool = True,
    on_progress: OnProgress | None = None,
) -> list[list[Shares]]:
    """By draw and setting; `resampled`: as `TraceModel.drawn` has it.

    Raises InputError where there are too few draws for an interval."""
    from joblib import Parallel, delayed

    if draws < LEAST_DRAWS:
        raise InputError(f"an interval needs at least {LEAST_DRAWS} draws, got {draws}")
    if jobs < 1:
        raise InputError(f"jobs must be at least 1, got {jobs}")
    work = (delayed(_one)(model, settings, draw, seed, questions, resampled) for draw in range(draws))
    found: list[list[Shares]] = []
    for shares in Parallel(n_jobs=jobs, return_as="generator")(work):
        found.append(shares)
        if on_progress is not None:
            on_progress(len(found), draws)
    return found


def _one(
    model: TraceModel, settings: Sequence[Setting], draw: int, seed: int, questions: int, resampled: bool
) -> list[Shares]:
    def shares(setting: Setting) -> Shares:
        return model.simulate(
            draw, seed=seed, questions=questions, alpha=setting.alpha, in_flight=setting.in_flight, resampled=resampled
        )

    return [shares(setting) for setting in settings]


def answers(settings: Sequence[Setting], drawn: Sequence[Sequence[Shares]]) -> list[Answer]:
    """Of what `sample` drew for these settings."""
    found = []
    for i, setting in enumerate(settings):
        pairs = [(draw[i], draw[0]) for draw in drawn]
        found.append(
            Answer(
                setting,
                Interval.of([ours.total_s for ours, _ in pairs]),
                Interval.of([ours.takeover for ours, _ in pairs]),
                Interval.of([ours.answered for ours, _ in pairs]),
                Interval.of([ours.total_s / base.total_s - 1 for ours, base in pairs]),
                Interval.of([ours.takeover - base.takeover for ours, base in pairs]),
                Interval.of([ours.answered - base.answered for ours, base in pairs]),
            )
        )
    return found
