"""``atts-runtime trace RUN``: a run directory as a trace for ui.perfetto.dev."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atts_runtime.config import BUNDLED, read_options
from atts_runtime.errors import InputError
from atts_runtime.profiler.perfetto import Sample, trace
from atts_runtime.profiler.spans import EngineUse, chain_spans, engine_use, seconds_by_turn
from atts_runtime.profiler.validate import validate
from atts_runtime.records import STALL_CAUSES, ChainRecord
from atts_runtime.rundir import read_chains

_COLUMNS = ("t_s", "engine", "metric", "value", "unit", "source")


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of ``atts-runtime``."""
    parser = commands.add_parser(
        "trace",
        help="show a run's time in a trace viewer",
        description="Write a run directory's calls, waits and counters as a trace that opens in ui.perfetto.dev.",
        epilog="example: atts-runtime trace runs/20260102-030405-barrier",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the trace (default: RUN/trace.json)")
    parser.add_argument("--with-text", action="store_true", help="put what the models wrote into the trace")
    parser.add_argument("--json", action="store_true", help="print one JSON object to stdout")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Write the trace and say where it is."""
    run: Path = args.run
    out: Path = args.out or run / "trace.json"
    manifest = _manifest(run)
    records = _records(run)
    settings = read_options(run / "config.toml")
    summary = _object(run / "summary.json") if (run / "summary.json").exists() else {}
    engines = _engines(settings)
    about = {name: manifest.get(name) for name in ("seed", "versions", "hardware", "sessions")}
    about["policy"] = settings.get("policy")
    made = trace(records, _telemetry(run), engines=engines, about=about, with_text=args.with_text)
    complaints = validate(made)
    if complaints:
        raise RuntimeError(f"the trace breaks its rules: {complaints[0]} ({len(complaints)} in all)")
    _write(out, made)
    found = _found(records, summary, engines)
    if args.json:
        print(json.dumps({"trace": str(out), "events": len(made["traceEvents"]), **found}, allow_nan=False))
        return 0
    print(f"{out}: {len(records)} chains, {len(made['traceEvents'])} events; open it in https://ui.perfetto.dev")
    total = math.fsum(sum(by_turn) for by_turn in found["spans_s"].values())
    for kind, by_turn in found["spans_s"].items():
        if any(by_turn):
            print(f"  {kind:<10}{sum(by_turn):>10.2f} s {sum(by_turn) / total:>7.1%} of the chains' time")
    for name, use in found["engines"].items():
        print(f"  engine {name}: calls in service {use['busy_s']:.2f} s of {found['wall_s']:.2f} s")
    return 0


# -- reading


def _manifest(run: Path) -> dict[str, Any]:
    if not run.is_dir():
        raise InputError(f"{run} is no folder; give the run directory that atts-runtime run made")
    if not (run / "manifest.json").exists():
        raise InputError(f"{run} is not a run directory: it has no manifest.json")
    return _object(run / "manifest.json")


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object")
    return found


def _records(run: Path) -> list[ChainRecord]:
    lines = run / "chains.jsonl"
    try:
        data = lines.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{run} is not a run directory: it has no chains.jsonl") from error
    except OSError as error:
        raise InputError(f"cannot read {lines}: {error.strerror}") from error
    seen: dict[tuple[int, int], int] = {}
    records = read_chains(lines, data)
    for number, record in enumerate(records, 1):
        try:
            chain_spans(record)
        except InputError as error:
            raise InputError(f"{lines} line {number}: {error}") from error
        first = seen.setdefault((record.question, record.index), number)
        if first < number:
            raise InputError(f"{lines} line {number}: the chain of line {first} again; remove one of them")
    if not records:
        raise InputError(f"{lines} has no finished chain, so there is nothing to trace yet")
    if not data.endswith(b"\n"):
        print("atts-runtime trace: the torn last line of chains.jsonl is left out", file=sys.stderr)
    return sorted(records, key=lambda record: record.chain)


def _telemetry(run: Path) -> list[Sample]:
    """The readings of the run's engines; none where the run has no telemetry (it was stopped before its end)."""
    path = run / "telemetry.parquet"
    if not path.exists():
        return []
    import pandas as pd

    mend = "remove the file to trace the run without it"
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise InputError(f"cannot read {path}: {error}; {mend}") from error
    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        raise InputError(f"{path} has no column {missing[0]}; {mend}")
    rows = table.dropna(subset=["t_s", "value"])[list(_COLUMNS)].itertuples(index=False)
    return [Sample(float(t), str(e), str(m), float(v), str(u), str(s)) for t, e, m, v, u, s in rows]


def _engines(settings: Mapping[str, Any]) -> dict[str, str]:
    """The engine behind each role: one where both are the same model, other than the bundled pair."""
    draft, target = (settings.get(role, BUNDLED) for role in ("draft", "target"))
    return dict.fromkeys(("draft", "target"), "draft and target") if draft == target != BUNDLED else {}


# -- writing


def _found(records: Sequence[ChainRecord], summary: Mapping[str, Any], engines: Mapping[str, str]) -> dict[str, Any]:
    """Spans by kind and turn, stall, and the use of each engine beside its thread's own busy seconds."""
    ended = max(record.t_end_s for record in records)
    wall_s = max(float(summary.get("wall_s", ended)), ended)
    spans_s = seconds_by_turn(span for record in records for span in chain_spans(record))
    used = engine_use(records, wall_s, engines)
    thread = {engines.get(role, role): told.get("busy_s") for role, told in summary.get("engines", {}).items()}
    return {
        "chains": len(records),
        "wall_s": wall_s,
        "spans_s": spans_s,
        "stall_s": math.fsum(seconds for cause in STALL_CAUSES for seconds in spans_s[cause]),
        "engines": {name: _use(use) | {"thread_busy_s": thread.get(name)} for name, use in used.items()},
    }


def _use(use: EngineUse) -> dict[str, Any]:
    return {
        "busy_s": use.busy_ns / 1e9,
        "idle_s": use.idle_ns / 1e9,
        "calls_in_service_s": [ns / 1e9 for ns in use.at_ns],
    }


def _write(out: Path, made: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    if out.is_dir():
        raise InputError(f"{out} is a folder; give --out the name of a file")
    unfinished = out.with_name(f"{out.name}.new")
    try:
        unfinished.write_text(json.dumps(made, allow_nan=False) + "\n", encoding="utf-8")
        unfinished.replace(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; choose another --out") from error
