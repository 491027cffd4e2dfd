"""How well a fitted workload draws what was recorded: the same policy over both, distributions held side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from atts_runtime.control import ChainId
from atts_sim.simrun import SimRun

_QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a run's chains came to. `lengths` by kind of call; `turns` of chains; `ells` and `taken_over` by turn;
    `right` by chain, None where it is not known."""

    lengths: Mapping[str, Sequence[int]]
    turns: Sequence[int]
    ells: Mapping[int, Sequence[float]]
    taken_over: Mapping[int, Sequence[bool]]
    answered: Sequence[bool]
    right: Sequence[bool | None]

    @classmethod
    def of(cls, run: SimRun) -> Sampled:
        lengths: dict[str, list[int]] = defaultdict(list)
        for request in run.requests:
            if request.kind != "score":
                lengths[request.kind].append(request.new_tokens)
        ells: dict[int, list[float]] = defaultdict(list)
        taken: dict[int, list[bool]] = defaultdict(list)
        for decided in run.decided:
            if decided.ell is not None:
                ells[decided.turn].append(decided.ell)
            taken[decided.turn].append(decided.taken_over)
        ends: dict[ChainId, tuple[int, bool]] = {
            finish.chain: (finish.turns, finish.reason == "answered") for finish, _ in run.finished
        }
        return cls(
            lengths,
            [turns for turns, _ in ends.values()],
            ells,
            taken,
            [answered for _, answered in ends.values()],
            [run.correct[chain] for chain in ends],
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """A figure of the recorded and of the drawn runs: means (shares of booleans), sizes, the largest distance of their
    distribution functions (Kolmogorov and Smirnov's), and for scores the quantiles."""

    name: str
    recorded: float
    drawn: float
    sizes: tuple[int, int]
    distance: float
    quantiles: tuple[tuple[float, float], ...] = ()


def goodness(recorded: Sequence[Sampled], drawn: Sequence[Sampled]) -> tuple[Fit, ...]:
    """Of simulations over recordings, and of simulations of the same configurations over drawn workloads."""
    fits: list[Fit] = []

    def add(name: str, ours: Sequence[float], theirs: Sequence[float], *, quantiles: bool = False) -> None:
        if ours and theirs:
            fits.append(fit_of(name, ours, theirs, quantiles=quantiles))

    for kind in ("draft", "takeover"):
        add(f"tokens of a {kind}", *([n for s in side for n in s.lengths.get(kind, ())] for side in (recorded, drawn)))
    add("turns of a chain", *([n for s in side for n in s.turns] for side in (recorded, drawn)))
    add("answered", *([float(a) for s in side for a in s.answered] for side in (recorded, drawn)))
    if all(right is not None for side in (recorded, drawn) for s in side for right in s.right):
        add("right", *([float(bool(r)) for s in side for r in s.right] for side in (recorded, drawn)))
    for turn in sorted({turn for s in recorded for turn in s.ells}):
        both = [[ell for s in side for ell in s.ells.get(turn, ())] for side in (recorded, drawn)]
        add(f"score in turn {turn}", *both, quantiles=True)
    for turn in sorted({turn for s in recorded for turn in s.taken_over}):
        both = [[float(t) for s in side for t in s.taken_over.get(turn, ())] for side in (recorded, drawn)]
        add(f"taken over in turn {turn}", *both)
    return tuple(fits)


def fit_of(name: str, ours: Sequence[float], theirs: Sequence[float], *, quantiles: bool = False) -> Fit:
    """One figure, from its values on both sides."""
    a, b = np.sort(np.asarray(ours, np.float64)), np.sort(np.asarray(theirs, np.float64))
    points = np.concatenate([a, b])
    below = [np.searchsorted(side, points, side="right") / len(side) for side in (a, b)]
    pairs = tuple((float(np.quantile(a, q)), float(np.quantile(b, q))) for q in _QUANTILES) if quantiles else ()
    distance = float(np.abs(below[0] - below[1]).max())
    return Fit(name, float(a.mean()), float(b.mean()), (len(a), len(b)), distance, pairs)
