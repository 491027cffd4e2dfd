"""Draws method.svg: one question's chains at a barrier and without one, simulated by the project's own controller.

    python docs/images/method.py

Six chains draft segments of unlike lengths with Qwen2.5-7B on one H100, QwQ-32B on another scores and takes over. Both
halves see the same drafts, the same lengths and the same scores; what differs is the policy. Of the seeds from 0 to 59,
11 have both policies take over equally often; of these, the one is drawn whose ratio of times is the median, 1.73.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from atts_runtime.control import POLICIES, ChainId, Draft, Knobs, Limits, Score, TakeOver
from atts_runtime.report.theme import BLUE, GREEN, MUTED, RED, SKY, drawing, inline_svg, standalone
from atts_sim.clock import Clock
from atts_sim.devices import device
from atts_sim.driver import SimDriver, SimRun
from atts_sim.engine import BatchingEngine
from atts_sim.workload import Written

CHAINS, TURNS, SEED, ALPHA = 6, 4, 33, 1 / 3
ENGINES = {
    "engines.hardware": "nvidia-h100-80gb-sxm",
    "engines.dtype": "bfloat16",
    "engines.draft.model": "qwen2.5-7b-instruct",
    "engines.target.model": "qwq-32b",
}
KINDS = {"draft": (SKY, "draft writes a segment"), "score": (GREEN, "target scores it"),
         "takeover": (BLUE, "target takes over")}  # fmt: skip


class Drawn:
    """A workload: lengths and scores drawn once for each chain and turn."""

    questions, chains = 1, CHAINS

    def __init__(self) -> None:
        rng = np.random.default_rng(SEED)
        shape = (CHAINS, TURNS)
        self._drafts = rng.integers(120, 500, shape)
        self._takeovers = rng.integers(120, 360, shape)
        self._ells = rng.normal(0.6, 0.2, shape)
        self._answers = rng.integers(2, TURNS, CHAINS)

    def prompt_tokens(self, question: int, role: str) -> int:
        return 120

    def written(self, command: Draft | TakeOver) -> Written:
        chain, turn = command.chain.index, command.turn
        drafted = isinstance(command, Draft)
        tokens = (self._drafts if drafted else self._takeovers)[chain, turn]
        last = bool(turn >= self._answers[chain])
        return Written(int(tokens), answered=last)

    def ell(self, command: Score) -> float:
        return float(self._ells[command.chain.index, command.turn])

    def correct(self, chain: ChainId) -> None:
        return None


def simulated(policy: str) -> SimRun:
    """One question under a policy; without a barrier against a bank that was sampled before."""
    bank = tuple(np.random.default_rng(SEED + 1).normal(0.6, 0.2, 200).tolist()) if policy != "barrier" else None
    clock = Clock()
    engines: dict[Any, Any] = {}
    for role in ("draft", "target"):
        found = device(role, ENGINES, {"max_rows": None, "kv_budget_tokens": None})
        engines[role] = BatchingEngine(clock, found.spec, found.steps)
    knobs = Knobs(ALPHA, bank=bank, tie_seed=0)
    return SimDriver(POLICIES[policy](knobs), Limits(TURNS, 500, 500), Drawn(), engines, clock).run()


def panel(axes: Any, run: SimRun, title: str, until_s: float) -> None:
    """A row a chain: its calls in service, and where it stands still."""
    for request in run.requests:
        color, _ = KINDS[request.kind]
        width = request.t_end_s - request.t_queued_s
        axes.broken_barh([(request.t_queued_s, width)], (request.chain.index - 0.36, 0.72), color=color, lw=0)
    for chain, _, start, end in run.holds:
        axes.broken_barh([(start, end - start)], (chain.index - 0.36, 0.72), color=RED, alpha=0.8, lw=0)
    axes.axvline(run.wall_s, color=MUTED, lw=1, ls="--")
    axes.set(xlim=(0, until_s), ylim=(CHAINS - 0.4, -0.6), ylabel="chain", title=title)
    axes.set_yticks(range(CHAINS), [str(chain + 1) for chain in range(CHAINS)])
    axes.grid(axis="y", visible=False)


barrier, free = simulated("barrier"), simulated("async-marginal")
stalled = sum(end - start for _, _, start, end in barrier.holds)
until_s = barrier.wall_s * 1.02
with drawing():
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    title = f"With a barrier: {barrier.wall_s:.0f} s; chains stand still for {stalled:.0f} s in all"
    panel(above, barrier, title, until_s)
    title = f"Without: {free.wall_s:.0f} s with as many takeovers; each score is judged by itself, against a bank"
    panel(below, free, title, until_s)
    below.set_xlabel("seconds (simulated)")
    handles = [Patch(color=color, label=label) for color, label in KINDS.values()]
    handles.append(Patch(color=RED, alpha=0.8, label="waits for other chains"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    says = f"One question, six chains: {barrier.wall_s:.1f} s with a barrier, {free.wall_s:.1f} s without."
    drawn = inline_svg(figure, "method", says)
path = Path(__file__).with_suffix(".svg")
path.write_text(standalone(drawn), encoding="utf-8")
print(f"{path}: {says}")
