"""r against the number of chains m, a line a policy."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

from atts_runtime.report.amounts import short
from atts_runtime.report.shown import Shown, nothing
from atts_runtime.report.theme import SERIES, drawing, inline_svg
from atts_sim.report.figures import plain_log
from atts_sim.row import Row


def r_by_m(rows: Sequence[Row]) -> Shown:
    """r = T_c / (T_m + T_s) with T_s the stall of chains; medians over whatever else is swept."""
    lines: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        r, chains = row.figures.get("r"), row.parameters.get("settings.chains")
        if row.error is None and isinstance(r, float) and isinstance(chains, int):
            lines[str(row.parameters.get("settings.policy"))][chains].append(r)
    ms = sorted({m for by_m in lines.values() for m in by_m})
    if not ms:
        return nothing("r is not known of any point")
    if len(ms) == 1:
        told = ", ".join(f"{short(statistics.median(by_m[ms[0]]))} for {name}" for name, by_m in lines.items())
        return nothing(f"r at m = {ms[0]}, the only number of chains here, is {told}; sweep over chains for a line")
    with drawing():
        from matplotlib.figure import Figure
        from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        panel = figure.subplots()
        for place, (name, by_m) in enumerate(lines.items()):
            at = sorted(by_m)
            panel.plot(
                at, [statistics.median(by_m[m]) for m in at], marker="o", color=SERIES[place % len(SERIES)], label=name
            )
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_locator(FixedLocator(ms))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        panel.set_yscale("log")
        plain_log(panel.yaxis)
        panel.set_xlabel("chains a question, m")
        panel.set_ylabel("r = T_c / (T_m + T_s)")
        panel.legend()
        svg = inline_svg(figure, "rbym", "r against the number of chains by policy")
    said = []
    for name, by_m in list(lines.items())[:4]:
        low, high = min(by_m), max(by_m)
        first, last = (short(statistics.median(by_m[m])) for m in (low, high))
        said.append(f"{first} at m = {low} to {last} at m = {high} for {name}")
    note = "Simulated: FLOPs and bytes of the requests over the devices' peaks, T_s the stall of chains. Medians."
    return Shown(f"r goes from {'; from '.join(said)}", svg, note)
