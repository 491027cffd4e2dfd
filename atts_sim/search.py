"""Which points of a study are simulated: all of a grid, random ones, or those that Optuna asks for.

A search hands out points in batches that hang on the study alone, never on how many jobs work on them: so a sweep comes
to the same points, in the same order, on any machine.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args

import numpy as np

from atts_runtime.errors import InputError
from atts_sim.axes import MOST_POINTS, Axis
from atts_sim.options import Value

Method = Literal["grid", "random", "optuna"]
METHODS: tuple[str, ...] = get_args(Method)
_OPTUNA_BATCH = 8  # points asked for before any of them is known; more would be guesses, fewer would leave cores idle

Chosen = dict[str, Value]


class Search(Protocol):
    """Ask for points until there are none; tell how each did before asking again."""

    @property
    def size(self) -> int:
        """How many points there will be."""

    def ask(self) -> list[Chosen]:
        """The next points, as values of the swept parameters; empty: the search is over."""

    def tell(self, scores: Sequence[float | None]) -> None:
        """How the points asked for last did, the smaller the better; None: not admissible."""


class Listed:
    """Points that are known before anything runs."""

    def __init__(self, points: list[Chosen]) -> None:
        self._points, self.size = points, len(points)

    def ask(self) -> list[Chosen]:
        points, self._points = self._points, []
        return points

    def tell(self, scores: Sequence[float | None]) -> None:
        pass


def grid(axes: Sequence[Axis]) -> Listed:
    """Every combination, the last axis fastest. InputError where a range says no number of steps."""
    for axis in axes:
        if not axis.values:
            raise InputError(f"sweep.{axis.name}: a grid needs 'steps' in a range, or a list of values")
    size = math.prod(len(axis.values) for axis in axes)
    if size > MOST_POINTS:
        raise InputError(f"the grid has {size:,} points; make it smaller, or use search.method = 'random' with trials")
    names = [axis.name for axis in axes]
    return Listed([dict(zip(names, point, strict=True)) for point in itertools.product(*(a.values for a in axes))])


def random(axes: Sequence[Axis], trials: int, seed: int) -> Listed:
    """`trials` points drawn evenly; trial i is the same however many there are."""
    draws = np.random.default_rng(seed).random((trials, len(axes)))
    return Listed([{axis.name: axis.at(float(u)) for axis, u in zip(axes, row, strict=True)} for row in draws])


class Optuna:
    """Optuna's tree-structured Parzen estimator, seeded. InputError where Optuna is not installed."""

    def __init__(self, axes: Sequence[Axis], trials: int, seed: int) -> None:
        try:
            import optuna
        except ImportError as error:
            raise InputError(
                "search.method 'optuna' needs Optuna: pip install 'atts[optuna]', or use random"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._pruned = optuna.trial.TrialState.PRUNED
        self._axes, self._left, self.size = axes, trials, trials
        self._study: Any = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        self._open: list[Any] = []

    def ask(self) -> list[Chosen]:
        batch = min(_OPTUNA_BATCH, self._left)
        self._left -= batch
        self._open = [self._study.ask() for _ in range(batch)]
        return [{axis.name: _suggested(trial, axis) for axis in self._axes} for trial in self._open]

    def tell(self, scores: Sequence[float | None]) -> None:
        for trial, score in zip(self._open, scores, strict=True):
            if score is None:
                self._study.tell(trial, state=self._pruned)
            else:
                self._study.tell(trial, score)


def _suggested(trial: Any, axis: Axis) -> Value:
    value: Value
    if axis.low is None or axis.high is None:
        value = trial.suggest_categorical(axis.name, axis.values)
    elif axis.whole:
        value = trial.suggest_int(axis.name, round(axis.low), round(axis.high), log=axis.log)
    else:
        value = trial.suggest_float(axis.name, axis.low, axis.high, log=axis.log)
    return value


def search(method: str, axes: Sequence[Axis], trials: int | None, seed: int) -> Search:
    """The search of a study."""
    if method == "grid":
        return grid(axes)
    assert trials is not None
    return random(axes, trials, seed) if method == "random" else Optuna(axes, trials, seed)
