"""What the page says first: a sentence a run, against the first run where there are several."""

from __future__ import annotations

from collections.abc import Sequence

from atts_runtime.report.amounts import fixed, percent, seconds
from atts_runtime.report.facts import RunFacts
from atts_runtime.report.settings import differing

_MOST = 6
_SAME = 0.02  # walls that differ by less are not told apart


def lead(runs: Sequence[RunFacts]) -> list[str]:
    """Plain sentences; what is unknown is left out."""
    first, *others = runs
    said = [_alone(first)]
    for run in others[: _MOST - 1]:
        said.append(_beside(run, first) if _alike(run, first) else _alone(run))
    return [sentence for sentence in said if sentence] + (
        [f"{len(runs) - _MOST} more runs are below."] if len(runs) > _MOST else []
    )


def _alike(run: RunFacts, first: RunFacts) -> bool:
    """Whether both did the same work, to its end."""
    other = {row.name for row in differing([run, first])} & {"task", "seed"}
    return not other and run.finished and first.finished and (run.questions, run.m) == (first.questions, first.m)


def _alone(run: RunFacts) -> str:
    parts = _right(run)
    if run.decisions:
        parts.append(f"the target takes over {fixed(run.takeover_rate, '.2f')} of the segments")
    if run.wall_s is not None:
        parts.append(f"in {seconds(run.wall_s)}")
    return _sentence(run, parts)


def _beside(run: RunFacts, first: RunFacts) -> str:
    parts = _right(run)
    mine, theirs = run.tokens["takeover"], first.tokens["takeover"]
    if mine is not None and theirs:
        parts.append(f"{percent(mine / theirs, 0)} of the target's tokens of {first.label}")
    if run.wall_s and first.wall_s:
        ratio = first.wall_s / run.wall_s
        slower = ratio < 1
        parts.append(
            f"in the same time, {seconds(run.wall_s)}"
            if abs(ratio - 1) < _SAME
            else f"{1 / ratio if slower else ratio:.2f} times as {'slow' if slower else 'fast'}, {seconds(run.wall_s)}"
        )
    return _sentence(run, parts)


def _right(run: RunFacts) -> list[str]:
    mean = run.accuracy.mean_chain
    return [] if mean is None else [f"{percent(mean)} of chains are right"]


def _sentence(run: RunFacts, parts: Sequence[str]) -> str:
    return f"{run.label}: {', '.join(parts)}." if parts else ""
