"""A sweep: every point of a study, each once, and what came of them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atts_runtime.errors import InputError
from atts_sim.objective import Front, front
from atts_sim.options import Value
from atts_sim.point import Points
from atts_sim.pool import Numbered, Pool
from atts_sim.results import Folder, best_toml, write_results
from atts_sim.row import Row
from atts_sim.study import Study

OnProgress = Callable[[int, int], None]
"""Hears how many points are done, of how many."""


@dataclass(frozen=True, slots=True)
class Swept:
    """`rows` in the points' order; `best` None: no row is admissible; `resumed`: rows that were there already.
    `size`: the study's points; `whole` false: the sweep was interrupted, and not all of them are there."""

    rows: list[Row]
    best: Row | None
    front: Front
    resumed: int
    size: int
    whole: bool


def sweep(study: Study, pool: Pool, folder: Path | None, on_progress: OnProgress = lambda done, of: None) -> Swept:
    """Simulate the study's points and write the folder (None: nowhere). An interruption (KeyboardInterrupt) ends it
    with the rows that are done, all of them written.

    Raises InputError where no point at all can be made.
    """
    searching, points = study.search(), Points(study)
    chosen: list[Mapping[str, Value]] = []
    store = None if folder is None else Folder.open(folder, study)
    rows: list[Row] = []
    resumed, whole = 0, True
    try:
        while whole and (asked := searching.ask()):
            numbered = list(enumerate(asked, len(rows)))
            chosen += asked
            known = _known(points, numbered, store.known if store else {})
            resumed += len(known)
            found, whole = _simulated(numbered, known, pool, store, on_progress, searching.size)
            rows += found
            if whole:
                searching.tell([study.objective.score(row) for row in found])
    finally:
        if store is not None:
            store.close()
    if whole and rows and all(row.error is not None for row in rows):
        raise InputError(f"no point of the study can be simulated; the first says: {rows[0].error}")
    best = best_of(study, rows)
    edge = front(rows)
    if folder is not None and rows:
        settings = "" if best is None else _settings(points, best, chosen[best.point], study)
        write_results(folder, rows, best, edge, settings)
    return Swept(rows, best, edge, resumed, searching.size, whole)


def best_of(study: Study, rows: Sequence[Row]) -> Row | None:
    """The admissible row with the best score; the first of several."""
    return next(iter(study.objective.ranked(rows)), None)


def _settings(points: Points, best: Row, chosen: Mapping[str, Value], study: Study) -> str:
    options = points.options(chosen)
    of_what = points.says_of_what(options)
    return best_toml(best, points.config(options), options, study.objective, of_what=of_what)


def _known(points: Points, numbered: Sequence[Numbered], stored: Mapping[str, Row]) -> dict[int, Row]:
    """Rows of an earlier session, by point. Several points, differing in what does not matter, may have one."""
    if not stored:
        return {}
    found = {}
    for place, chosen in numbered:
        options = points.options(chosen)
        try:
            if (row := stored.get(points.fingerprint(options))) is not None:
                found[place] = replace(row, point=place, parameters=points.parameters(options))
        except InputError:
            continue  # it has no row, and its error is told again
    return found


def _simulated(
    numbered: Sequence[Numbered],
    known: Mapping[int, Row],
    pool: Pool,
    store: Folder | None,
    on_progress: OnProgress,
    size: int,
) -> tuple[list[Row], bool]:
    """Rows of the points in their order, and whether all of them were done."""
    done = dict(known)
    before = numbered[0][0]
    if store is not None:
        store.add(known[place] for place in sorted(known))
    on_progress(before + len(done), size)
    try:
        for rows in pool.rows([point for point in numbered if point[0] not in known]):
            done |= {row.point: row for row in rows}
            if store is not None:
                store.add(rows)
            on_progress(before + len(done), size)
    except KeyboardInterrupt:
        return [done[place] for place in sorted(done)], False
    return [done[place] for place in sorted(done)], True
