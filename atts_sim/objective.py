"""What a study is after: the best admissible row, and the rows that nothing beats on accuracy, latency and cost."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from atts_runtime.errors import InputError
from atts_sim.nearest import did_you_mean

Figure = float | int | bool | None


class Scored(Protocol):
    """What a row of results has for an objective."""

    @property
    def point(self) -> int: ...

    @property
    def figures(self) -> Mapping[str, Any]: ...

    @property
    def error(self) -> str | None: ...


S = TypeVar("S", bound=Scored)


@dataclass(frozen=True, slots=True)
class Objective:
    """`figure` is to be least (`sign` 1) or greatest (-1), among rows whose figures keep to the bounds."""

    figure: str = "makespan_s"
    sign: int = 1
    at_least: tuple[tuple[str, float], ...] = ()
    at_most: tuple[tuple[str, float], ...] = ()

    def score(self, row: Scored) -> float | None:
        """The smaller the better; None where the row is not admissible (saturated ones never are), or lacks a figure
        that this takes."""
        value = _number(row, self.figure)
        if row.error is not None or value is None or self.misses(row) or _piles_up(row):
            return None
        return self.sign * value

    def ranked(self, rows: Iterable[S]) -> list[S]:
        """The admissible rows, best first, and in the points' order where scores are alike."""
        scored = [(score, row.point, row) for row in rows if (score := self.score(row)) is not None]
        return [row for _, _, row in sorted(scored, key=lambda entry: entry[:2])]

    def misses(self, row: Scored) -> list[str]:
        """The bounds that the row does not keep to; a figure that is not known keeps to none."""
        return [f"{name} >= {bound:g}" for name, bound in self.at_least if not _at_least(row, name, bound)] + [
            f"{name} <= {bound:g}" for name, bound in self.at_most if not _at_most(row, name, bound)
        ]

    def __str__(self) -> str:
        bounds = [f"{name} >= {bound:g}" for name, bound in self.at_least]
        bounds += [f"{name} <= {bound:g}" for name, bound in self.at_most]
        verb = "least" if self.sign > 0 else "greatest"
        return f"{verb} {self.figure}" + (f" with {' and '.join(bounds)}" if bounds else "")


def _piles_up(row: Scored) -> bool:
    """Settings that do not keep up with their questions are no settings to run, however cheap."""
    return row.figures.get("verdict") == "saturated"


def _number(row: Scored, name: str) -> float | None:
    value = row.figures.get(name)
    return None if value is None or isinstance(value, str) else float(value)


def _at_least(row: Scored, name: str, bound: float) -> bool:
    value = _number(row, name)
    return value is not None and value >= bound


def _at_most(row: Scored, name: str, bound: float) -> bool:
    value = _number(row, name)
    return value is not None and value <= bound


def objective(where: str, entries: Mapping[str, Any], known: Sequence[str]) -> Objective:
    """From ``[objective]``; `known` are the figures that a row has."""

    def named(key: str, name: Any) -> str:
        if name in known:
            return str(name)
        told = did_you_mean(str(name), known, f"there are {', '.join(known)}")
        raise InputError(f"{where}: objective.{key}: unknown figure {name!r}; {told}")

    def bounds(key: str) -> tuple[tuple[str, float], ...]:
        table = entries.get(key, {})
        if not isinstance(table, Mapping):
            raise InputError(f"{where}: objective.{key} must be a table of figures and numbers, got {table!r}")
        for name, bound in table.items():
            if isinstance(bound, bool) or not isinstance(bound, int | float) or not abs(bound) <= sys.float_info.max:
                raise InputError(f"{where}: objective.{key}.{name} must be a number, got {bound!r}")
        return tuple((named(key, name), float(bound)) for name, bound in table.items())

    if unknown := sorted(entries.keys() - {"minimise", "maximise", "at_least", "at_most"}):
        raise InputError(
            f"{where}: unknown entry objective.{unknown[0]}; there are minimise, maximise, at_least, at_most"
        )
    if {"minimise", "maximise"} <= entries.keys():
        raise InputError(f"{where}: an objective has minimise or maximise, not both")
    key = "maximise" if "maximise" in entries else "minimise"
    figure = named(key, entries.get(key, "makespan_s"))
    return Objective(figure, -1 if key == "maximise" else 1, bounds("at_least"), bounds("at_most"))


@dataclass(frozen=True, slots=True)
class Front:
    """The figures compared, `(name, sign)` with sign 1 for the smaller the better, and which rows nothing beats."""

    figures: tuple[tuple[str, int], ...]
    members: tuple[bool, ...]


def front(rows: Sequence[Scored]) -> Front:
    """The Pareto front of accuracy, latency and cost. A figure that no row has is left out; where accuracy is not
    known the share of chains that answer stands in for it, and seconds of devices for dollars."""
    candidates = (("accuracy", "answered"), ("latency_s.p95",), ("usd", "device_s"))
    signs = (-1, 1, 1)
    simulated = [row for row in rows if row.error is None]
    figures = tuple(
        (found, sign)
        for names, sign in zip(candidates, signs, strict=True)
        if (found := _known_of_most(names, simulated)) is not None
    )
    usable = [
        row.error is None and not _piles_up(row) and all(_number(row, name) is not None for name, _ in figures)
        for row in rows
    ]
    if not figures:
        return Front((), (False,) * len(rows))
    values = np.array(
        [
            [sign * (_number(row, name) or 0.0) if ok else math.inf for name, sign in figures]
            for row, ok in zip(rows, usable, strict=True)
        ]
    )
    members = []
    for mine, ok in zip(values, usable, strict=True):
        beaten = bool(np.any(np.all(values <= mine, axis=1) & np.any(values < mine, axis=1)))
        members.append(ok and not beaten)
    return Front(figures, tuple(members))


def _known_of_most(names: Sequence[str], rows: Sequence[Scored]) -> str | None:
    """The figure that most rows have, the first of several; None where no row has any."""
    counts = {name: sum(_number(row, name) is not None for row in rows) for name in names}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else None
