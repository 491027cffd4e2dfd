"""Draws replay.svg: takeover rates by turn on the published traces, frozen bank and adaptive calibrator.

python docs/images/replay.py [TRACES]      (default: the folder named by ATTS_TRACES)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from atts_runtime.conformal.store import load_bank
from atts_sim.replay import Settings, decide, summarize
from atts_sim.trace import read_scores

TRACES = {"pair_math500_raw": "draft 8B, target 32B", "self_math500": "one 8B model for both"}
LOOKS = {"frozen": ("#d55e00", "s"), "adaptive": ("#0072b2", "o")}
ALPHA = 0.4

folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["ATTS_TRACES"])
figure = Figure(figsize=(9, 3.2), layout="constrained")
for axes, (name, what) in zip(figure.subplots(1, 2, sharey=True), TRACES.items(), strict=True):
    scores = read_scores(folder / f"{name}.events.parquet")
    bank = load_bank(folder / f"{name}.calibration.npy")
    for calibrator, (color, marker) in LOOKS.items():
        settings = Settings(calibrator, ALPHA, bank=bank)
        rows = summarize(scores, settings, decide(scores, settings))["by_turn"]
        rates = [row["rate"] for row in rows]
        errors = [[r["rate"] - r["ci95"][0] for r in rows], [r["ci95"][1] - r["rate"] for r in rows]]
        shift = 0.12 if calibrator == "frozen" else -0.12
        at = [row["turn"] + shift for row in rows]
        axes.errorbar(at, rates, yerr=errors, fmt=marker, ms=4, capsize=2, color=color, label=calibrator)
    axes.axhline(ALPHA, color="black", lw=1, ls="--")
    axes.set(xlabel="turn", title=f"{name}: {what}", ylim=(0.2, 0.95))
    axes.legend(loc="upper left", fontsize="small")
figure.axes[0].set_ylabel("takeover rate, exact 95% interval")
figure.suptitle("A frozen turn-0 bank drifts away from alpha 0.4; sealed cohorts with an adaptive alpha stay")
with mpl.rc_context({"svg.hashsalt": "atts"}):
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})
