"""Published traces drawn anew: the generative workload and the costs fitted to one, under the rule that it followed.

The rule is read off the recording: takeovers where a score reaches a threshold, which is conformal p <= alpha against
the bank of the recording's own first segments, so that alpha can be changed. A draw resamples the questions twice, for
which ones the model was fitted to and for which ones are then asked, and draws all else from the model; draws of the
same number are of the same questions and random numbers whatever the setting, so that settings are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import cast

import numpy as np
from numpy.typing import NDArray

from atts_runtime.control import ChainId, Knobs, recipe
from atts_runtime.errors import InputError
from atts_sim.drawn import Drawn
from atts_sim.generative import FittedWorkload
from atts_sim.generative_fit import Source, fit_workload
from atts_sim.recorded import Recorded, RecordedChain
from atts_sim.simrun import SimRun
from atts_sim.tracefit import TraceCosts

Floats = NDArray[np.float64]
_ENDED_EARLY = 0.9  # of a full draft's tokens: a shorter one stopped by itself
_LEAST_AGREEMENT = 0.9
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Shares:
    """Of a recording or a simulation: seconds in all, takeovers over scores, chains that answered."""

    total_s: float
    takeover: float
    answered: float

    @classmethod
    def of(cls, run: SimRun) -> Shares:
        taken = [decided.taken_over for decided in run.decided]
        answered = [finish.reason == "answered" for finish, _ in run.finished]
        return cls(run.wall_s, float(np.mean(taken)), float(np.mean(answered)))

    @classmethod
    def recorded(cls, recorded: Recorded) -> Shares:
        """`total_s`: the questions' times, one after another."""
        chains = recorded.recorded
        longest = [
            max(chains[ChainId(q, i)].duration_s or 0.0 for i in range(recorded.chains))
            for q in range(recorded.questions)
        ]
        ells, taken = _scored(recorded)
        if not len(ells):
            raise InputError("the trace has no scores, so it does not say when the target takes over")
        return cls(sum(longest), float(taken.mean()), float(np.mean([_answered(chain) for chain in chains.values()])))


@dataclass(frozen=True, slots=True)
class Interval:
    """Mean over draws, and the quantiles that bound `LEVEL` of them."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(float(np.mean(values)), float(low), float(high))

    def holds(self, value: float) -> bool:
        """Whether a value lies in it."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class TraceModel:
    """`alpha`: of the recorded rule against `bank`; `agreement`: share of the recorded verdicts that it gives."""

    workload: FittedWorkload
    costs: TraceCosts
    chains: int
    turns: int
    bank: tuple[float, ...]
    alpha: float
    agreement: float

    def drawn(self, draw: int, *, seed: int, questions: int, resampled: bool = True) -> DrawnTrace:
        """The workload of draw number `draw` of so many questions: not `resampled`, the fitted ones in turn."""
        fitted, count = self.workload, len(self.workload.prompts)
        rng = np.random.default_rng((seed, draw))
        chosen = rng.integers(0, count, count)[rng.integers(0, count, questions)]
        if not resampled:
            chosen = np.arange(questions) % count
        asked = replace(
            fitted,
            prompts=tuple(fitted.prompts[q] for q in chosen),
            effects=tuple(fitted.effects[q] for q in chosen),
        )
        return DrawnTrace(asked, questions, self.chains, int(rng.integers(1 << 62)), self.turns)

    def simulate(
        self,
        draw: int,
        *,
        seed: int,
        questions: int,
        alpha: float | None = None,
        in_flight: int | None = 1,
        resampled: bool = True,
    ) -> Shares:
        """What comes of a draw; `alpha` None: the recorded one."""
        work = self.drawn(draw, seed=seed, questions=questions, resampled=resampled)
        knobs = Knobs(self.alpha if alpha is None else alpha, bank=self.bank)
        policy = recipe("async-marginal", action="continue")(knobs)
        return Shares.of(self.costs.run(cast(Recorded, work), policy, in_flight=in_flight))


class DrawnTrace(Drawn):
    """With the most turns that a chain may have, which is all that `TraceCosts.run` asks beyond a workload."""

    def __init__(self, model: FittedWorkload, questions: int, chains: int, seed: int, turns: int) -> None:
        super().__init__(model, questions, chains, seed)
        self.turns = turns


def fit_model(name: str, recorded: Recorded, costs: TraceCosts) -> TraceModel:
    """Raises InputError where the recording has no scores, takeovers or answers, or follows no threshold."""
    ells, taken = _scored(recorded)
    if not len(ells):
        raise InputError(f"{name} has no scores, so no workload with takeovers can be fitted to it")
    if not taken.any() or taken.all():
        what = "takes over nobody" if not taken.any() else "takes over everybody"
        raise InputError(f"{name} {what}, so its rule cannot be told and no workload fitted to it")
    if not any(map(_answered, recorded.recorded.values())):
        raise InputError(f"no chain of {name} answered, so nothing says when chains end")
    bank = tuple(
        sorted(chain.ells[0] for chain in recorded.recorded.values() if chain.ells and chain.ells[0] is not None)
    )
    if not bank:
        raise InputError(f"{name} has no scores of first segments to calibrate with")
    threshold, agreement = _threshold(ells, taken)
    if agreement < _LEAST_AGREEMENT:
        raise InputError(
            f"{name}: at best {agreement:.0%} of its verdicts follow a threshold of scores, so its rule cannot be told"
        )
    alpha = float(np.clip((1 + np.sum(np.array(bank) >= threshold)) / (len(bank) + 1), 1e-6, 1 - 1e-6))
    workload = fit_workload([Source(name, _told_apart(recorded), False, tuple(range(recorded.questions)))])
    return TraceModel(workload, costs, recorded.chains, recorded.turns, bank, alpha, agreement)


def _scored(recorded: Recorded) -> tuple[Floats, NDArray[np.bool_]]:
    pairs = [
        (ell, takeover is not None)
        for chain in recorded.recorded.values()
        for ell, takeover in zip(chain.ells, chain.takeovers, strict=True)
        if ell is not None
    ]
    return np.array([ell for ell, _ in pairs], np.float64), np.array([taken for _, taken in pairs], bool)


def _threshold(ells: Floats, taken: NDArray[np.bool_]) -> tuple[float, float]:
    """The score from which on takeovers agree best with the recorded ones, and the share that does."""
    order = np.argsort(ells, kind="stable")
    agree = np.concatenate([[taken.sum()], taken.sum() + np.cumsum(1 - 2 * taken[order].astype(int))])
    best = int(agree.argmax())
    values = ells[order]
    threshold = values[best] if best < len(values) else np.nextafter(values[-1], np.inf)
    return float(threshold), float(agree[best] / len(ells))


def _answered(chain: RecordedChain) -> bool:
    last = chain.takeovers[-1] or chain.drafts[-1]
    return last is not None and last.answered


def _told_apart(recorded: Recorded) -> Recorded:
    """Of a last turn that was taken over, the trace does not say whether the draft or the target answered: the draft,
    where it stopped short of a full segment."""
    full = [draft.tokens for chain in recorded.recorded.values() for draft in chain.drafts[:-1] if draft is not None]
    least = _ENDED_EARLY * median(full) if full else 0.0

    def told(chain: RecordedChain) -> RecordedChain:
        draft, takeover = chain.drafts[-1], chain.takeovers[-1]
        if draft is None or takeover is None or draft.tokens < least:
            return chain
        return replace(chain, drafts=[*chain.drafts[:-1], replace(draft, answered=False, ended=False, eos=False)])

    return Recorded(recorded.prompts, {chain: told(of) for chain, of in recorded.recorded.items()})
