"""A generative workload whose every parameter is known, and recordings that its draws would have left."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist
from typing import Any

from atts_runtime.control import ChainId
from atts_sim.affine import AffineCost
from atts_sim.calls import EngineSpec
from atts_sim.clock import Clock
from atts_sim.driver import SimDriver
from atts_sim.engine import BatchingEngine
from atts_sim.generative import Effects, Ells, Errors, FittedWorkload, Lengths, Nearness, Pace, Scores, Stops
from atts_sim.recorded import Prompt, Recorded, RecordedChain
from atts_sim.simrun import SimRun
from atts_sim.workload import Workload, Written
from tests.runtime.scripted import settings

COST = AffineCost(overhead_s=0.01, token_s=1e-4, weights_s=0.02, kept_s=1e-6)
CLEAN = tuple(i / 100 for i in range(100))
WRONG = tuple(1.5 + i / 100 for i in range(200))


def _ells(ells: tuple[float, ...]) -> Ells:
    def bounds(centre: float) -> tuple[float, ...]:
        return tuple(NormalDist(centre).inv_cdf(i / len(ells)) for i in range(1, len(ells)))

    return Ells((ells, tuple(2 * ell for ell in ells)), (bounds(0.0), bounds(0.2)))


MODEL = FittedWorkload(
    replaces=True,
    prompts=(Prompt(10, 10), Prompt(20, 20)),
    effects=(Effects(), Effects(Nearness(-1.0), 0.5, 0.5)),
    stops={
        "draft": Stops((-9.0, -1.0, 0.5), 0.0, 0.0, 0.0, 0.0, 1.0),
        "takeover": Stops((-9.0, -1.0, 0.5), 0.0, 0.5, 0.0, 0.0, 1.0),
        "alone": Stops((-9.0, -1.0, 0.5), 0.0, 0.0, 0.0, 0.0, 1.0),
    },
    lengths=dict.fromkeys(
        ("draft", "takeover", "alone"), Lengths(((6, 7, 8),), (tuple(range(20, 40)), tuple(range(30, 45))))
    ),
    scores=Scores((_ells(CLEAN), _ells(CLEAN), *[_ells(WRONG)] * 4), 0.3, 0.4, 0.85),
    errors=Errors((-2.0,), 0.5, (0.9, 0.95), (0.5, 0.3), (0.01, 0.02), 1000, 100),
    elsewhere={"draft": 1.0, "takeover": 1.0, "alone": 1.0},
    sources=("made",),
    agreement=(0.5, 0.25),
)
VARIED = replace(
    MODEL,
    effects=tuple(replace(of, near=of.near._replace(trend=0.3, unsure=(0.5, -0.2, 0.1))) for of in MODEL.effects),
    pace=Pace(lost=0.3, delay=2.0),
)
"""With chains that are lost, and questions that are not known for sure."""


def simulate(workload: Workload, policy: str, **changes: Any) -> SimRun:
    config, clock = settings(policy, **{"takeover": "resample", "turns": 16} | changes), Clock()
    engines: Any = {role: BatchingEngine(clock, EngineSpec(), COST) for role in ("draft", "target")}
    return SimDriver(config.recipe(config.knobs), config.limits, workload, engines, clock).run()


def as_recorded(run: SimRun, model: FittedWorkload) -> Recorded:
    """A simulation as the recording that it would have left."""
    chains = {ChainId(q, i): RecordedChain() for q in range(run.questions) for i in range(run.chains)}
    for request in run.requests:
        chain, event = chains[request.chain], request.event
        while chain.turns <= request.turn:
            for by_turn in (chain.drafts, chain.ells, chain.takeovers):
                by_turn.append(None)
        if request.kind == "score":
            chain.ells[request.turn] = event.ell  # type: ignore[attr-defined]
            continue
        closed = event.ended  # type: ignore[attr-defined]
        written = Written(request.new_tokens, event.answered, closed, eos=closed)  # type: ignore[attr-defined]
        (chain.drafts if request.kind == "draft" else chain.takeovers)[request.turn] = written
    for chain_id, correct in run.correct.items():
        chains[chain_id].correct = correct
    prompts = [model.prompts[q % len(model.prompts)] for q in range(run.questions)]
    return Recorded(prompts, chains)
