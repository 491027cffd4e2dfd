"""Fits the workload of capacity.ipynb to a trace published with the method: python notebooks/fit_workload.py TRACES

What is written are parameters of `atts_sim.generative`: chances, effects of questions, and of each distribution
(lengths, scores) so many quantiles.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from atts_sim.generative import Ells, Lengths, Scores
from atts_sim.generative_store import load_workload, save_workload
from atts_sim.published import read_trace
from atts_sim.tracedraw import fit_model
from atts_sim.tracetokens import at_cap

NAME = "pair_math500_raw"
OUT = Path(__file__).parents[1] / "profiles" / "workloads" / "math500-r1-llama-8b-qwq-32b.json"
ABOUT = (
    "fitted: MATH-500, the first 100 questions, DeepSeek-R1-Distill-Llama-8B drafting for QwQ-32B, segments of up to "
    "500 tokens; fitted by notebooks/fit_workload.py to the trace that the authors of arXiv 2509.15148 published with "
    "their code (menik1126/Asynchronous-Test-Time-Scaling, pair_math500_raw), whose token counts are brought to the "
    "models' own"
)
QUANTILES = 21
CAP = 500
"""Tokens of a full segment in those runs. The trace counts with another tokenizer, in which full ones have more."""


Turns = tuple[tuple[Any, ...], ...]


def thinned(by_turn: Turns) -> Turns:
    """As many quantiles of each turn's values, in place of the values."""
    places = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return tuple(tuple(round(float(x), 4) for x in np.quantile(turn, places)) for turn in by_turn)


def bounds(z: tuple[float, ...]) -> tuple[float, ...]:
    """Where as many values give way to each other, if they are drawn as often."""
    if not z:  # of one value
        return (0.0,) * (QUANTILES - 1)
    shares = np.arange(1, QUANTILES) / QUANTILES
    return tuple(round(float(x), 4) for x in np.interp(shares, np.arange(1, len(z) + 1) / (len(z) + 1), z))


def tokens(by_turn: Turns, scale: float) -> Turns:
    """The same of lengths."""
    return tuple(tuple(min(CAP, max(1, round(scale * x))) for x in turn) for turn in thinned(by_turn))


def main(traces: Path) -> None:
    """Fit, thin, write, and read it back."""
    recorded = at_cap(read_trace(traces / f"{NAME}.events.parquet"))
    fitted = fit_model(NAME, recorded, None).workload  # type: ignore[arg-type] # costs are not asked for
    assert fitted.scores is not None
    kinds = tuple(Ells(thinned(kind.by_turn), tuple(map(bounds, kind.bounds))) for kind in fitted.scores.kinds)
    scores = Scores(kinds, *(getattr(fitted.scores, name) for name in ("after_takeover", "chain_sd", "noise_sd")))
    lengths = {}
    for writer, of in fitted.lengths.items():
        full = float(np.median([x for turn in of.others for x in turn]))  # a piece after which its chain goes on
        lengths[writer] = Lengths(tokens(of.last, CAP / full), tokens(of.others, CAP / full))
        print(f"{writer}: full segments count {full:.0f} tokens in the trace")
    save_workload(replace(fitted, scores=scores, lengths=lengths), OUT)
    written = json.loads(OUT.read_text(encoding="utf-8"))
    OUT.write_text(json.dumps({"about": ABOUT, **written}, allow_nan=False) + "\n", encoding="utf-8")
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB, {len(asdict(load_workload(OUT))['effects'])} questions")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
