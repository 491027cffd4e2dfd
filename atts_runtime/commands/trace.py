"""``atts-runtime trace RUN``: a run directory as a trace for ui.perfetto.dev."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atts_runtime.commands.parser import add_output
from atts_runtime.errors import InputError
from atts_runtime.profiler.perfetto import trace
from atts_runtime.profiler.spans import EngineUse, chain_spans, engine_use, seconds_by_turn
from atts_runtime.profiler.validate import validate
from atts_runtime.records import STALL_CAUSES
from atts_runtime.report.reading import number, part
from atts_runtime.runread import RunRead, read_run, read_telemetry, shared_engine
from atts_runtime.wholefile import write_whole


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
    add_output(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Write the trace and say where it is."""
    run: Path = args.run
    out: Path = args.out or run / "trace.json"
    read = read_run(run)
    if read.torn:
        print("atts-runtime trace: the torn last line of chains.jsonl is left out", file=sys.stderr)
    records = read.records
    engines = shared_engine(read.settings)
    about = {name: read.manifest.get(name) for name in ("seed", "versions", "hardware", "sessions")}
    about["policy"] = read.settings.get("policy")
    made = trace(records, read_telemetry(run, "trace"), engines=engines, about=about, with_text=args.with_text)
    complaints = validate(made)
    if complaints:
        raise RuntimeError(f"the trace breaks its rules: {complaints[0]} ({len(complaints)} in all)")
    found = _found(read, engines)
    _write(out, made)
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


def _found(read: RunRead, engines: Mapping[str, str]) -> dict[str, Any]:
    """Spans by kind and turn, stall, and the use of each engine beside its thread's own busy seconds. Raises InputError
    where summary.json is not of the form that a run writes."""
    records, summary, where = read.records, read.summary or {}, str(read.path / "summary.json")
    wall_s = max(number(summary, "wall_s", where) or 0.0, *(record.t_end_s for record in records))
    spans_s = seconds_by_turn(span for record in records for span in chain_spans(record))
    used = engine_use(records, wall_s, engines)
    counted = part(summary, "engines", where)
    thread = {engines.get(role, role): number(part(counted, role, where), "busy_s", where) for role in counted}
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
    try:
        write_whole(out, f"{json.dumps(made, allow_nan=False)}\n".encode())
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; choose another --out") from error
