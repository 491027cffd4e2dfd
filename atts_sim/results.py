"""A sweep's folder: rows as they come, the table, the study, the best settings.

rows.jsonl        a line a point that is done, at the end in the points' order; what an interrupted sweep goes on from
results.parquet   the same as one table, a row a point, in the points' order
study.toml        the study, with the files' whole paths and what --set changed
best.toml         settings of the best row, for `atts-runtime run --config`; not there where no row is admissible
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from atts_runtime.config import RunConfig
from atts_runtime.errors import InputError
from atts_runtime.wholefile import write_whole
from atts_runtime.wholenumbers import LARGEST_IN_TABLES
from atts_sim.objective import Front, Objective
from atts_sim.options import ROLES, Options
from atts_sim.row import Row
from atts_sim.study import Study

ROWS, TABLE, STUDY, BEST, REPORT = "rows.jsonl", "results.parquet", "study.toml", "best.toml", "report.html"
ELSEWHERE = -1
"""Instead of a row's point: it is of the study that the folder held before, and may be one of this."""


class Folder:
    """The folder of one sweep, open for writing. Points with errors are tried again when it is taken up; of another
    study's it keeps rows alone, for those of its points that this one has too."""

    def __init__(self, path: Path, rows: dict[str, Row]) -> None:
        self.path, self.known = path, rows
        self._file = (path / ROWS).open("ab")

    @classmethod
    def open(cls, path: Path, study: Study) -> Self:
        """Made, or taken up again with the rows that it has. InputError where it cannot be, or holds something else."""
        try:
            if path.exists() and not path.is_dir():
                raise InputError(f"{path} is a file; give --out a folder")
            if path.is_dir() and any(path.iterdir()) and not (path / ROWS).exists():
                raise InputError(f"{path} is no folder of a sweep, and not empty; choose another --out")
            path.mkdir(parents=True, exist_ok=True)
            rows = {row.fingerprint: row for row in read_rows(path / ROWS) if row.error is None}
            told = study.to_toml().encode()
            if not (path / STUDY).exists() or (path / STUDY).read_bytes() != told:
                rows = {fingerprint: replace(row, point=ELSEWHERE) for fingerprint, row in rows.items()}
                for name in (TABLE, BEST, REPORT):
                    (path / name).unlink(missing_ok=True)
            # What an interruption tore is no row, and what follows shall not continue its line.
            write_whole(path / ROWS, b"".join(row.to_line() for row in rows.values()))
            write_whole(path / STUDY, told)
            return cls(path, rows)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}; choose another --out") from error

    def add(self, rows: Iterable[Row]) -> None:
        """Keep rows that are done."""
        for row in rows:
            self._file.write(row.to_line())
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_rows(path: Path) -> list[Row]:
    """Rows of a file of lines; none where there is no file. Torn or foreign lines are left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            rows.append(Row.from_line(line))
        except (ValueError, KeyError, TypeError):
            continue
    return rows


def read_sweep(path: Path) -> list[Row]:
    """The rows of a sweep's folder, in the points' order. InputError where there are none."""
    if not (path / STUDY).is_file():
        raise InputError(f"{path} is no folder of a sweep: it has no {STUDY}; give one that atts-sim sweep wrote")
    rows = {row.point: row for row in read_rows(path / ROWS) if row.point != ELSEWHERE}
    if not rows:
        raise InputError(f"{path} has no rows yet; run atts-sim sweep {path / STUDY} --out {path}")
    return [rows[point] for point in sorted(rows)]


def write_results(path: Path, rows: Sequence[Row], best: Row | None, front: Front, settings: str) -> None:
    """The rows in order, the table and, where there is a best row, its `settings`. InputError where they cannot be
    written."""
    try:
        write_whole(path / ROWS, b"".join(row.to_line() for row in rows))
        write_table(path / TABLE, rows, best, front)
        if best is None:
            (path / BEST).unlink(missing_ok=True)
        else:
            write_whole(path / BEST, settings.encode())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another --out") from error


def write_table(path: Path, rows: Sequence[Row], best: Row | None, front: Front) -> None:
    """Columns: the point, its parameters and figures by name, takeover rates by turn, what is said about it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parameters = dict.fromkeys(name for row in rows for name in row.parameters)
    figures = dict.fromkeys(name for row in rows for name in row.figures)
    columns: dict[str, Any] = {
        "point": pa.array([row.point for row in rows], pa.int64()),
        "fingerprint": pa.array([row.fingerprint for row in rows], pa.string()),
        "is_best": pa.array([row is best for row in rows], pa.bool_()),
        "is_on_front": pa.array(list(front.members), pa.bool_()),
    }
    for name in parameters:
        columns[name] = _column([row.parameters.get(name) for row in rows])
    for name in figures:
        columns[name] = _column([row.figures.get(name) for row in rows])
    columns["takeover_rate_by_turn"] = pa.array([list(row.by_turn) for row in rows], pa.list_(pa.float64()))
    columns["sources"] = pa.array(["; ".join(row.sources) for row in rows], pa.string())
    columns["warnings"] = pa.array(["; ".join(row.warnings) for row in rows], pa.string())
    columns["error"] = pa.array([row.error for row in rows], pa.string())
    made = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), made)
    write_whole(path, made.getvalue().to_pybytes())


def _column(values: list[Any]) -> Any:
    """Texts, flags, or numbers: whole ones where all are, and fit into 64 bits."""
    import pyarrow as pa

    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    if known and all(isinstance(value, bool) for value in known):
        return pa.array(values, pa.bool_())
    if known and all(isinstance(value, int) and abs(value) <= LARGEST_IN_TABLES for value in known):
        return pa.array(values, pa.int64())
    return pa.array([None if value is None else float(value) for value in values], pa.float64())


def best_toml(row: Row, config: RunConfig, options: Options, objective: Objective, *, of_what: bool) -> str:
    """The settings of a row's point as `atts-runtime run --config` takes them, with what was predicted as comments.

    config: the point's; options: its own and the study's; of_what: whether task and models are known.
    """
    rows, budget = _rows_of_both(row), _budget_of_both(row, config, options)
    config = config.with_options({} if rows is None else {"max_rows": rows})
    told = [f"Settings for atts-runtime run --config: {objective}."]
    told += [f"Predicted: {name} = {row.figures[name]:.6g}" for name in _TOLD if _known(row.figures, name)]
    told += [*row.sources, *(f"doubtful: {text}" for text in row.warnings)]
    if not of_what:
        told.append("The workload does not say of which task and models it is: these are the bundled ones.")
    if rows is None:
        told.append("The engines have different max_rows, which a run has not: its default stands.")
    if len(budget) > 1:
        told.append("The engines have different kv_budget_tokens, which a run has not: there is none.")
    chosen = replace(config, kv_budget_tokens=budget.pop() if len(budget) == 1 else None).to_toml()
    return "".join(f"# {' '.join(text.split())}\n" for text in told) + chosen


_TOLD = (
    "makespan_s",
    "latency_s.p50",
    "latency_s.p95",
    "accuracy",
    "voted",
    "answered",
    "takeover_rate",
    "usd",
    "device_s",
)


def _known(figures: Mapping[str, Any], name: str) -> bool:
    return isinstance(figures.get(name), int | float)


def _rows_of_both(row: Row) -> Any:
    """Of both engines, or of the only one that runs; None: they differ."""
    named = (f"engines.{role}.max_rows" for role in ROLES)
    values = {row.parameters[name] for name in named if name in row.parameters}
    return values.pop() if len(values) == 1 else None


def _budget_of_both(row: Row, config: RunConfig, options: Options) -> set[Any]:
    """What the study says of the engines that run. What it leaves open is no setting."""
    roles = (
        ["target"] if options.get("engines.shared") else [r for r in ROLES if f"engines.{r}.max_rows" in row.parameters]
    )
    of_all = options.get("engines.kv_budget_tokens", config.kv_budget_tokens)
    return {options.get(f"engines.{role}.kv_budget_tokens", of_all) for role in roles}


def as_json(row: Row) -> dict[str, Any]:
    """A row for programs."""
    return {
        "point": row.point,
        "parameters": dict(row.parameters),
        "figures": dict(row.figures),
        "takeover_rate_by_turn": list(row.by_turn),
        "sources": list(row.sources),
        "warnings": list(row.warnings),
        "error": row.error,
    }


def json_text(told: Mapping[str, Any]) -> str:
    return json.dumps(told, allow_nan=False)
