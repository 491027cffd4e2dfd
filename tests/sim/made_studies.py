"""A small published trace and studies of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from atts_sim.study import Study, parse_study

ENGINES = """
[engines]
draft.profile = "bundled-draft-amd-epyc-milan"
target.profile = "bundled-target-amd-epyc-milan"
handling_s = 0.0
"""
H100 = """
[engines]
hardware = "nvidia-h100-80gb-sxm"
dtype = "bfloat16"
draft.model = "qwen2.5-7b-instruct"
target.model = "qwq-32b"
target.tp = 2
"""


def made_trace(folder: Path, *, questions: int = 4, chains: int = 4, turns: int = 3, seed: int = 0) -> Path:
    """Chains of up to so many turns, of which about two in five are taken over."""
    rng = np.random.default_rng(seed)
    events, samples = [], []
    for sample in range(questions * chains):
        length = int(rng.integers(1, turns + 1))
        for turn in range(length):
            events.append((sample, turn, "draft", int(rng.integers(5, 40)), None))
            events.append((sample, turn, "score", None, float(1 + rng.random())))
            if rng.random() < 0.4:
                events.append((sample, turn, "target", int(rng.integers(5, 40)), None))
        samples.append((sample, sample // chains, 1.0, "7", 80))
    # So that the recording has all of the turns.
    events += [(0, turn, kind, 9, 1.5) for turn in range(turns) for kind in ("draft", "score")]
    frame = pd.DataFrame(events, columns=["sample", "turn", "kind", "tokens", "ppl"])
    frame = frame[(frame["sample"] > 0) | (frame.index >= len(events) - 2 * turns)]
    path = folder / "made.events.parquet"
    typed = frame.astype({"tokens": "Int64", "ppl": "float64"})
    typed.assign(problem=typed["sample"] // chains).to_parquet(path)
    columns = ["sample", "problem", "duration_s", "final_answer", "question_chars"]
    pd.DataFrame(samples, columns=columns).to_parquet(folder / "made.samples.parquet")
    return path


def study_text(trace: Path, more: str = "", *, engines: str = ENGINES) -> str:
    """A study that replays the trace."""
    return f'[workload]\nkind = "replay"\npath = "{trace}"\n{engines}\n{more}'


def made_study(trace: Path, more: str = "", *, engines: str = ENGINES, overrides: tuple[str, ...] = ()) -> Study:
    return parse_study(study_text(trace, more, engines=engines), trace.parent, overrides=overrides)
