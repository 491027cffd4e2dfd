"""Which settings the runs differ in, and which they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from atts_runtime.config import RunConfig
from atts_runtime.report.facts import RunFacts

_DEFAULTS = {field.name: field.default for field in fields(RunConfig)}


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting and its value in each run, as text."""

    name: str
    values: tuple[str, ...]


def differing(runs: Sequence[RunFacts]) -> list[Setting]:
    """Settings with more than one value."""
    return [row for row in _all(runs) if len(set(row.values)) > 1]


def common(runs: Sequence[RunFacts]) -> list[Setting]:
    """Settings with one value."""
    return [row for row in _all(runs) if len(set(row.values)) == 1]


def _all(runs: Sequence[RunFacts]) -> list[Setting]:
    """The folder is no setting; what a run does not name has its default."""
    names = dict.fromkeys([*_DEFAULTS, *(name for run in runs for name in run.settings)])
    return [
        Setting(name, tuple(_text(run.settings.get(name, _DEFAULTS.get(name))) for run in runs))
        for name in names
        if name != "out"
    ]


def _text(value: object) -> str:
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
