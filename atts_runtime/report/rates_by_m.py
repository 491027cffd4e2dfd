"""The asynchronous arithmetic intensity r against the number of chains m."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from atts_runtime.config import LABELLED, POLICY_SETTINGS
from atts_runtime.report.amounts import short
from atts_runtime.report.facts import RunFacts
from atts_runtime.report.settings import Setting, differing
from atts_runtime.report.shown import Shown, nothing
from atts_runtime.report.theme import MUTED, SERIES, drawing, inline_svg

_Series = dict[str, dict[float, list[float]]]
_NOT_A_LINE = frozenset({"chains", "seed", "questions"})
"""Settings along a line (m), or whose runs may be averaged."""
_SHORT = 32
"""Letters of a name of which three fit beside each other."""
_OF_POLICIES = frozenset(POLICY_SETTINGS) - {"alpha"}
_GET_MORE = (
    "for a line, give runs with other numbers of chains: atts-runtime run --chains 2, 4, 8, 16, then report them"
)


def r_against_m(runs: Sequence[RunFacts]) -> Shown:
    """Two panels, r with the chains' stall and r with the engines' idle time as T_s; a line a policy."""
    stall, idle = series(runs, "r"), series(runs, "r_engine")
    if not stall and not idle:
        return nothing("r is unknown: no run here has both FLOPs and the device's rates")
    with drawing():
        from matplotlib.figure import Figure
        from matplotlib.ticker import FixedLocator, StrMethodFormatter

        figure = Figure(figsize=(8.4, 3.4), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True)
        colors = {name: SERIES[place % len(SERIES)] for place, name in enumerate({**stall, **idle})}
        ms = sorted({m for lines in (stall, idle) for by_m in lines.values() for m in by_m})
        for axes, lines, title in zip(panels, (stall, idle), ("T_s: stall of chains", "T_s: engine idle"), strict=True):
            for name, by_m in lines.items():
                line = sorted((m, statistics.median(values)) for m, values in by_m.items())
                axes.plot(*zip(*line, strict=True), color=colors[name], label=name)
                dots = [(m, value) for m, values in by_m.items() for value in values]
                axes.plot(*zip(*dots, strict=True), "o", color=colors[name])
            axes.set(xscale="log", title=title, xlabel="chains a question, m")
            axes.xaxis.set_major_locator(FixedLocator(ms))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.minorticks_off()
            axes.set_xlim(min(ms) / 1.25, max(ms) * 1.25)
            highest = max((value for by_m in lines.values() for values in by_m.values() for value in values), default=1)
            axes.set_ylim(0, 1.08 * highest or 1)
            if not lines:
                axes.text(0.5, 0.5, "unknown", transform=axes.transAxes, color=MUTED, ha="center")
        panels[0].set_ylabel("r = T_c / (T_m + T_s)")
        handles = {h.get_label(): h for axes in panels for h in axes.get_lines() if h.get_label() in colors}
        columns = 3 if max(map(len, colors)) <= _SHORT else 1
        figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=columns)
        svg = inline_svg(figure, "r", "r against the number of chains by policy")
    note = "Analytic FLOPs and bytes over the profile's rates, measured stall and idle seconds; runs of one m: median."
    if len(ms) == 1:
        note += f" One m only; {_GET_MORE}."
    return Shown(_finding(stall or idle), svg, note)


def series(runs: Sequence[RunFacts], name: str) -> _Series:
    """r by policy (and what else differs) and m."""
    told = {run.label: run for run in runs}
    policies = [run.policy for run in told.values()]
    differ = [row for row in differing(list(told.values())) if _tells(row, policies)]
    found: _Series = defaultdict(lambda: defaultdict(list))
    for place, run in enumerate(told.values()):
        value = getattr(run.intensity, name)
        if value is not None and run.m:
            extra = "".join(f", {row.name} {row.values[place]}" for row in differ)
            found[run.policy + extra][run.m].append(value)
    return {line: dict(by_m) for line, by_m in found.items()}


def _tells(row: Setting, policies: Sequence[str]) -> bool:
    """Whether lines are named by the setting too: by what makes a policy only where one policy has several."""
    if row.name in _NOT_A_LINE or row.name in ("policy", *LABELLED):
        return False
    values = defaultdict(set)
    for policy, value in zip(policies, row.values, strict=True):
        values[policy if row.name in _OF_POLICIES else ""].add(value)
    return any(len(of) > 1 for of in values.values())


def _finding(lines: Mapping[str, Mapping[float, Sequence[float]]]) -> str:
    told = []
    for name, by_m in lines.items():
        low, high = min(by_m), max(by_m)
        first, last = (statistics.median(by_m[m]) for m in (low, high))
        if low == high:
            told.append(f"{short(first)} at m\xa0=\xa0{low:g} for {name}")
            continue
        way = "falls" if last < 0.95 * first else "rises" if last > 1.05 * first else "stays"
        told.append(f"{way} from {short(first)} at m\xa0=\xa0{low:g} to {short(last)} at m\xa0=\xa0{high:g} for {name}")
    more = f"; and {len(told) - 4} more" if len(told) > 4 else ""
    is_point = all(len(by_m) == 1 for by_m in lines.values())
    return f"r {'is ' if is_point else ''}{'; '.join(told[:4])}{more}"
