"""The report's tables: runs and what they ran on, outcomes, phases, turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, zip_longest

from atts_runtime.profiler.spans import seconds_by_turn
from atts_runtime.records import STALL_CAUSES
from atts_runtime.report.amounts import count, fixed, percent, scaled, seconds, short
from atts_runtime.report.facts import RunFacts, Turn
from atts_runtime.report.html import folded, sourced, table
from atts_runtime.report.roof import share_of_roof
from atts_runtime.report.settings import common, differing

_Row = tuple[str, Callable[[RunFacts], str], str]


def header(runs: Sequence[RunFacts]) -> str:
    """The runs, the settings that differ, hardware and versions; the settings that all share are folded."""
    rows: list[_Row] = [
        ("folder", lambda run: str(run.path), ""),
        ("questions x chains", _size, ""),
        ("started, UTC", _started, "measured"),
        ("processor", lambda run: _hardware(run), "measured"),
        ("device of the roof", _device, "as its profile says"),
        (
            "its arithmetic",
            lambda run: scaled(run.hardware.flops_per_s if run.hardware else None, "FLOP/s"),
            _kinds(runs),
        ),
        ("its memory", lambda run: scaled(run.hardware.bytes_per_s if run.hardware else None, "B/s"), _kinds(runs)),
    ]
    body = _by_run(runs, rows)
    differ = differing(runs)
    if differ:
        body += "<h3>Settings that differ</h3>"
        body += table(["setting", *(run.label for run in runs)], [[row.name, *row.values] for row in differ])
    shared = [[row.name, row.values[0]] for row in common(runs)]
    left = frozenset({0, 1})
    body += folded(
        "Settings that all runs share" if len(runs) > 1 else "Settings", table(["setting", ""], shared, left)
    )
    versions = [_object(run.manifest.get("versions")) for run in runs]
    names = dict.fromkeys(chain.from_iterable(versions))
    told = [[name, *(str(of_run.get(name) or "unknown") for of_run in versions)] for name in names]
    return body + folded("Versions", table(["package", *(run.label for run in runs)], told))


def outcomes(runs: Sequence[RunFacts]) -> str:
    """What came out and what it took: accuracy, takeovers, tokens, seconds, r."""
    rows: list[_Row] = [
        ("accuracy, mean chain [95%]", _accuracy, "measured; Wilson interval on the effective number of chains"),
        ("accuracy, the policy's vote", lambda run: percent(run.accuracy.voted), "measured"),
        ("accuracy, majority", lambda run: percent(run.accuracy.majority), "measured"),
        ("accuracy, pass@m", lambda run: percent(run.accuracy.pass_at_m), "measured"),
        ("takeover rate", lambda run: fixed(run.takeover_rate, ".3f") if run.decisions else "no decisions", "measured"),
        ("tokens, draft", lambda run: count(run.tokens["draft"]), "measured"),
        ("tokens, target scored", lambda run: count(run.tokens["scored"]), "measured"),
        ("tokens, target wrote", lambda run: count(run.tokens["takeover"]), "measured"),
        ("wall", lambda run: seconds(run.wall_s), "measured"),
        ("question latency, p50", lambda run: seconds(run.latency_p50_s), "measured"),
        ("question latency, p95", lambda run: seconds(run.latency_p95_s), "measured"),
        ("T_s, stall of all chains", lambda run: seconds(run.stall_s), "measured"),
        ("T_c, arithmetic", lambda run: seconds(run.intensity.T_c_s), "analytic FLOPs over the profile's FLOP/s"),
        ("T_m, memory", lambda run: seconds(run.intensity.T_m_s), "analytic bytes over the profile's B/s"),
        ("T_overhead", lambda run: seconds(run.intensity.T_overhead_s), "measured busy time less the analytic roof"),
        ("engines idle", lambda run: seconds(run.intensity.T_idle_s), "measured"),
        ("r, T_s = stall of chains", lambda run: short(run.intensity.r), "analytic and measured"),
        ("r, T_s = engine idle", lambda run: short(run.intensity.r_engine), "analytic and measured"),
        ("intensity, FLOP/byte", lambda run: short(run.intensity.intensity_flop_per_byte), "analytic"),
        ("machine balance, FLOP/byte", lambda run: short(run.intensity.machine_balance_flop_per_byte), _kinds(runs)),
    ]
    return _by_run(runs, rows)


def phases(runs: Sequence[RunFacts]) -> str:
    """A row for each run, engine and phase, and the engine's totals."""
    head = ["run: engine", "phase", "tokens", "FLOPs", "bytes", "busy", "T_c", "T_m", "FLOP/byte", "FLOP/s", "of roof"]
    rows = []
    for run in runs:
        for engine in run.engines:
            name = f"{run.label}: {engine.name}"
            for phase, told in engine.phases.items():
                figures = [count(told.tokens), scaled(told.flops, ""), scaled(told.bytes, "B"), seconds(told.busy_s)]
                figures += [seconds(told.T_c_s), seconds(told.T_m_s), short(told.intensity_flop_per_byte)]
                rows.append([name, phase, *figures, scaled(told.flops_per_s, ""), percent(share_of_roof(run, told))])
                name = ""
            figures = ["", scaled(engine.flops, ""), scaled(engine.bytes, "B"), seconds(engine.busy_s)]
            figures += [seconds(engine.T_c_s), seconds(engine.T_m_s), short(engine.intensity_flop_per_byte)]
            speed = engine.flops / engine.busy_s if engine.flops is not None and engine.busy_s else None
            rows.append([name, "all", *figures, scaled(speed, ""), ""])
    return table(head, rows, frozenset({0, 1}))


def engines(runs: Sequence[RunFacts]) -> str:
    """Counters of each engine."""
    head = [
        "run: engine",
        "steps",
        "rows a decode step",
        "prefilled",
        "KV peak",
        "evictions",
        "idle",
        "energy",
    ]
    rows = [
        [
            f"{run.label}: {engine.name}",
            count(engine.steps),
            fixed(engine.mean_decode_batch, ".1f"),
            count(engine.prefilled_tokens),
            count(engine.kv_peak_tokens),
            count(engine.evictions),
            seconds(engine.idle_s),
            scaled(engine.joules, "J"),
        ]
        for run in runs
        for engine in run.engines
    ]
    return table(head, rows)


def turns(run: RunFacts) -> str:
    """A row a turn."""
    by_kind = seconds_by_turn(chain.from_iterable(run.spans))
    stalls = [sum(parts) for parts in zip(*(by_kind[cause] for cause in STALL_CAUSES), strict=True)]
    told = {int(turn.turn): turn for turn in run.turns if turn.turn is not None}
    head = ["turn", "decisions", "takeovers", "rate", "stall (T_s)", "FLOPs", "bytes", "T_c", "T_m", "r"]
    rows = []
    last = 1 + max(told, default=-1)
    for place, (decided, stall, _) in enumerate(zip_longest(run.decisions, stalls, range(last))):
        verdicts, taken = decided or (0, 0)
        turn = told.get(place, Turn())
        rate = fixed(taken / verdicts, ".3f") if verdicts else ""
        figures = [scaled(turn.flops, ""), scaled(turn.bytes, "B"), seconds(turn.T_c_s), seconds(turn.T_m_s)]
        rows.append([str(place), count(verdicts), count(taken), rate, seconds(stall or 0.0), *figures, short(turn.r)])
    return table(head, rows)


def _by_run(runs: Sequence[RunFacts], rows: Sequence[_Row]) -> str:
    made = [(what, [show(run) for run in runs], source) for what, show, source in rows]
    return sourced(["", *(run.label for run in runs)], made)


def _accuracy(run: RunFacts) -> str:
    told = run.accuracy
    if told.low is None or told.high is None:
        return percent(told.mean_chain)
    return f"{percent(told.mean_chain)} [{100 * told.low:.1f}, {100 * told.high:.1f}]"


def _size(run: RunFacts) -> str:
    ended = len(run.records)
    questions = run.questions or len({record.question for record in run.records})
    return f"{questions:.0f} x {'unknown' if run.m is None else f'{run.m:g}'}; {ended:,} chains ended"


def _started(run: RunFacts) -> str:
    sessions = run.manifest.get("sessions")
    first = sessions[0] if isinstance(sessions, list) and sessions else None
    return str(first).replace("+00:00", "").replace("T", " ") if first else "unknown"


def _hardware(run: RunFacts) -> str:
    told = _object(run.manifest.get("hardware"))
    return f"{told.get('cpu') or told.get('machine') or 'unknown'}, {told.get('cores') or 'unknown'} cores"


def _device(run: RunFacts) -> str:
    told = run.hardware
    if told is None:
        return "unknown"
    threads = "" if told.threads is None else f", threads: {told.threads:g}"
    return f"{told.name}: {told.device}, {told.dtype}{threads}"


def _kinds(runs: Sequence[RunFacts]) -> str:
    kinds = sorted({run.hardware.kind for run in runs if run.hardware})
    return ", ".join(kinds) if kinds else "no hardware profile"


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
