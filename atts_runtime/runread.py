"""A run directory, read back: what `atts-runtime trace` and `atts-runtime report` show.

Nothing in it is trusted: what cannot be read raises InputError that names the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atts_runtime.bundled import model_path
from atts_runtime.config import BUNDLED, SERVED_BY, read_options
from atts_runtime.control import POLICIES
from atts_runtime.errors import InputError
from atts_runtime.profiler.perfetto import Sample
from atts_runtime.profiler.spans import chain_spans
from atts_runtime.records import ChainRecord
from atts_runtime.rundir import check_distinct, read_chains
from atts_runtime.untrusted import json_file, table_in

_TELEMETRY_COLUMNS = ("t_s", "engine", "metric", "value", "unit", "source")


@dataclass(frozen=True, slots=True)
class RunRead:
    """What a run directory holds. `records` are in the order of chains and their times follow one another; `torn`: the
    last line of chains.jsonl was cut off and is left out; `summary` is None where the run has not ended."""

    path: Path
    manifest: dict[str, Any]
    settings: dict[str, Any]
    records: list[ChainRecord]
    torn: bool
    summary: dict[str, Any] | None


def read_run(path: Path) -> RunRead:
    """All but the tables; raises InputError where the folder is no run or has no finished chain."""
    manifest = _manifest(path)
    records, torn = _records(path)
    settings = read_options(path / "config.toml")
    return RunRead(path, manifest, settings, records, torn, _summary(path))


def read_telemetry(run: Path, purpose: str) -> list[Sample]:
    """The finite readings of the run's engines, from its beginning on; none where the run has no telemetry (it was
    stopped before its end).

    Raises InputError that says what to do for the `purpose`: trace, report.
    """
    path = run / "telemetry.parquet"
    if not path.exists():
        return []
    mend = f"remove the file to {purpose} the run without it"
    try:
        table = table_in(path)
        if missing := [name for name in _TELEMETRY_COLUMNS if name not in table.columns]:
            raise ValueError(f"it has no column {missing[0]}")
        rows = table[list(_TELEMETRY_COLUMNS)].astype({"t_s": float, "value": float}).itertuples(index=False)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}; {mend}") from error
    readings = [Sample(t, str(e), str(m), v, str(u), str(s)) for t, e, m, v, u, s in rows]
    return [sample for sample in readings if math.isfinite(sample.value) and 0 <= sample.t_s < math.inf]


def shared_engine(settings: Mapping[str, Any]) -> dict[str, str]:
    """The engine behind each role where one serves both: under a policy of one model, or where both are the same model;
    else nothing.

    Of a model on servers there is one where both roles name the same ones alike.
    """
    recipe = POLICIES.get(str(settings.get("policy")))
    # As the engines compare them; their folders may be gone by now.
    draft, target = (
        Path(model_path(str(settings.get(role, BUNDLED)), role)).expanduser() for role in ("draft", "target")
    )
    alike = all(settings.get(f"draft_{what}") == settings.get(f"target_{what}") for what in SERVED_BY)
    one = (recipe is not None and recipe.one_model) or (draft == target and alike)
    return dict.fromkeys(("draft", "target"), "draft and target") if one else {}


def _manifest(run: Path) -> dict[str, Any]:
    if not run.is_dir():
        raise InputError(f"{run} is no folder; give the run directory that atts-runtime run made")
    return json_file(run / "manifest.json", missing=f"{run} is not a run directory: it has no manifest.json")


def _summary(run: Path) -> dict[str, Any] | None:
    path = run / "summary.json"
    if not path.exists():
        return None
    try:
        return json_file(path)
    except InputError as error:
        raise InputError(f"{error}; remove the file to go on with what chains.jsonl tells") from error


def _records(run: Path) -> tuple[list[ChainRecord], bool]:
    lines = run / "chains.jsonl"
    try:
        data = lines.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{run} is not a run directory: it has no chains.jsonl") from error
    except OSError as error:
        raise InputError(f"cannot read {lines}: {error.strerror}") from error
    records = read_chains(lines, data)
    for number, record in enumerate(records, 1):
        try:
            chain_spans(record)
        except InputError as error:
            raise InputError(f"{lines} line {number}: {error}") from error
    check_distinct(lines, records)
    if not records:
        raise InputError(f"{lines} has no finished chain, so there is nothing to show yet")
    return sorted(records, key=lambda record: record.chain), not data.endswith(b"\n")
