"""Engine costs fitted to runs: what steps take there beyond what the engine's profile says of them.

A profile measures an engine by itself, on an idle machine, step by step. In a run each step also bears a share of what
happens between steps (calls that come and go, the driver's Python), and where two engines share a process and its
cores, each slows the other down. With `profile` the profile's seconds of a batch of `rows` rows, a step takes

    (factor(rows) * profile + step_s) * (1 + contention * [the other engine is in a step])

by phase of each engine, none of them negative. The factor is piecewise linear in the logarithm of the rows, between
`ROWS`: a machine is faster or slower than the profiled one by another factor at one row than at 64, as memory and
compute are not slowed alike. What batches cost at sizes that the runs did not reach is still the profile's statement,
by the factor of the nearest size that they did. The log says of each step how much of it lay within a step of the other
engine. Weighted least squares, a step's weight being one over what the profile says it takes, so that what is fitted
adds up to the time that passed; bad steps count, because time that is lost is time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atts_runtime.errors import InputError
from atts_runtime.profiler import steptime
from atts_runtime.profiler.engineprofile import EngineProfile, shipped_engines
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.steptime import StepModel
from atts_runtime.records import ChainRecord
from atts_sim.calls import PerCall, per_call_of
from atts_sim.cost import Cost, DecodeLines, Phase, StepShape
from atts_sim.measured import Floats, MeasuredRun, StepLog

ROWS = tuple(1 << k for k in range(9))
_SMOOTH = 0.01  # weight of a difference between neighbouring factors, beside all steps' weight together
_CONTENTION = np.linspace(0.0, 3.0, 61)
_PHASES: tuple[Phase, ...] = ("append", "decode")
_DIFFERENT = 0.1  # share of time beside the other engine by which steps must differ for contention to be told
_FEWEST = 30  # steps of a phase below which nothing is fitted and the profile's word stands


@dataclass(frozen=True, slots=True)
class Correction:
    """What a phase's steps take beyond the profile; see the module's text. `factors` are those at `ROWS`. The default
    corrects nothing."""

    factors: tuple[float, ...] = (1.0,) * len(ROWS)
    step_s: float = 0.0
    contention: float = 0.0

    def factor(self, rows: int) -> float:
        """Of the profile's seconds, for a step of so many rows; beyond the last of `ROWS` its factor."""
        return float(np.interp(math.log2(rows), range(len(ROWS)), self.factors))

    def seconds(self, profile_s: float, rows: int) -> float:
        """Of a step while the other engine stands still."""
        return self.factor(rows) * profile_s + self.step_s


@dataclass(frozen=True, slots=True)
class FitError:
    """How a fit did on a phase: steps, what they took in sum, and by how much the predicted sum differs, relatively;
    median absolute relative error of a step."""

    steps: int
    measured_s: float
    sum_error: float
    median_error: float


@dataclass(frozen=True, slots=True)
class EngineCosts:
    """An engine's step times, corrected. A `cost.StepCost`; `shared` is the share of time in which the other engine is
    taken to be in a step too: 0 where `contention.Contended` says so step by step. `per_call`: what calls cost besides;
    None where it is in the steps, as it is once they are fitted to runs."""

    model: StepModel
    step_tokens: int
    corrections: Mapping[Phase, Correction]
    shared: float = 0.0
    per_call: PerCall | None = None

    def cost(self, phase: Phase, shape: StepShape) -> Cost:
        seconds, inside = self.model.cost(phase, steptime.StepShape(*shape))
        correction = self.corrections[phase]
        return Cost(correction.seconds(seconds, shape.rows) * (1 + correction.contention * self.shared), inside)

    def decode_lines(self, rows: int, longest_kept: int) -> DecodeLines:
        lines, constant, until, inside = self.model.decode_lines(rows, longest_kept)
        correction = self.corrections["decode"]
        stretch = 1 + correction.contention * self.shared
        scale = correction.factor(rows) * stretch
        fixed = correction.seconds(constant, rows) * stretch
        return DecodeLines(tuple((scale * a, scale * b) for a, b in lines), fixed, until, inside)

    def beside(self, shared: float) -> EngineCosts:
        """The same while the other engine is in a step for such a share of the time."""
        return replace(self, shared=shared)


@dataclass(frozen=True, slots=True)
class Costs:
    """What a simulation needs: engines by role, and what the driver takes for each answer.

    one_engine  one model serves both roles; it is under the first
    fitted      by engine and phase: of the runs that were fitted, all together
    held_out    the same where each run is predicted from the others; empty for one run
    """

    engines: Mapping[str, EngineCosts]
    one_engine: bool
    handling_s: float
    fitted: Mapping[tuple[str, Phase], FitError]
    held_out: Mapping[tuple[str, Phase], FitError]

    def to_json(self) -> dict[str, Any]:
        """What was fitted, for programs."""
        return {
            "handling_s": self.handling_s,
            "engines": {
                role: {
                    phase: {
                        **asdict(correction),
                        "kind": "fitted" if (role, phase) in self.fitted else "profile",
                        "fitted": asdict(self.fitted[role, phase]) if (role, phase) in self.fitted else None,
                        "held_out": asdict(self.held_out[role, phase]) if (role, phase) in self.held_out else None,
                    }
                    for phase, correction in costs.corrections.items()
                }
                for role, costs in self.engines.items()
            },
        }


def profile_of(spec: ModelSpec, profiles: Sequence[EngineProfile] = ()) -> EngineProfile:
    """The profile, of those given or else of those shipped, that is of this model. Raises InputError where none is."""
    known = list(profiles) or list(shipped_engines().values())
    for profile in known:
        numbers = profile.numbers
        if all(numbers[f"dimensions.{n}"].value == getattr(spec, n) for n in ("parameters", "kv_bytes_per_token")):
            return profile
    names = ", ".join(profile.name for profile in known)
    raise InputError(
        f"no engine profile is of {spec.name} with {spec.parameters} parameters (there are {names}); make one with "
        "atts-runtime profile and give it with --profile"
    )


def stated_costs(
    specs: Mapping[str, ModelSpec], profiles: Sequence[EngineProfile] = (), *, one_engine: bool = False
) -> Costs:
    """As the profiles have it: nothing is fitted, and the driver costs nothing."""
    engines = {}
    for role, spec in specs.items():
        profile = profile_of(spec, profiles)
        plain = dict.fromkeys(_PHASES, Correction())
        model, calls = profile.step_model(spec), per_call_of(profile)
        engines[role] = EngineCosts(model, profile.step_tokens, plain, per_call=calls)
    return Costs(engines, one_engine, 0.0, {}, {})


def calibrate(runs: Sequence[MeasuredRun], profiles: Sequence[EngineProfile] = ()) -> Costs:
    """Costs that fit the runs' logs. Raises InputError where they are of other models, or no profile is of theirs."""
    specs: dict[str, ModelSpec] = {}
    for run in runs:
        for role, spec in run.specs.items():
            if replace(spec, name="") != replace(specs.setdefault(role, spec), name=""):
                raise InputError(f"{run.path} ran another {role} model than the other runs; fit on runs of one pair")
    one_engine = any(run.one_engine for run in runs)
    stated = stated_costs(specs, profiles, one_engine=one_engine)
    samples = {
        (role, phase): [_samples(run.logs[role], phase, costs.model) for run in runs if role in run.logs]
        for role, costs in stated.engines.items()
        for phase in _PHASES
    }
    corrections = {key: _fit(parts) for key, parts in samples.items()}
    engines = {
        role: replace(costs, corrections={phase: corrections[role, phase] for phase in _PHASES}, per_call=None)
        for role, costs in stated.engines.items()
    }
    fitted = {key: error for key, parts in samples.items() if (error := _error(parts, corrections[key]))}
    held_out = {}
    for key, parts in samples.items():
        if len(parts) > 1:
            without = [_fit([*parts[:i], *parts[i + 1 :]]) for i in range(len(parts))]
            predicted = np.concatenate([part.predicted(fit) for part, fit in zip(parts, without, strict=True)])
            if (error := _error_of(np.concatenate([part.seconds for part in parts]), predicted)) is not None:
                held_out[key] = error
    handling_s = _handling([record for run in runs for record in run.records])
    return Costs(engines, one_engine, handling_s, fitted, held_out)


# -- fitting


@dataclass(frozen=True, slots=True)
class _Samples:
    """Steps of a phase in a run: what they took, what the profile says, rows, share beside the other engine's."""

    seconds: Floats
    profile: Floats
    rows: Floats
    shared: Floats

    def predicted(self, c: Correction) -> Floats:
        alone: Floats = self.between() @ c.factors * self.profile + c.step_s
        return alone * (1 + c.contention * self.shared)

    def between(self) -> Floats:
        """[steps, ROWS] how much of each step's factor is that of each size."""
        place = np.minimum(np.log2(self.rows), len(ROWS) - 1)
        weights: Floats = np.maximum(0.0, 1 - np.abs(place[:, None] - np.arange(len(ROWS))))
        return weights


def _samples(log: StepLog, phase: Phase, model: StepModel) -> _Samples:
    mine = log.of(phase)
    shapes = log.shapes[mine]
    # Steps of one shape cost the same, and a run has many of few shapes.
    distinct, inverse = np.unique(shapes, axis=0, return_inverse=True)
    known = np.array([model.cost(phase, steptime.StepShape(*map(int, shape))).seconds for shape in distinct])
    profile = known[inverse.ravel()] if len(distinct) else np.zeros(0)
    return _Samples(log.period_s[mine], profile, shapes[:, 0].astype(np.float64), log.shared[mine])


def _fit(parts: Sequence[_Samples]) -> Correction:
    """The correction that fits best; none from too few steps."""
    from scipy.optimize import nnls

    if sum(len(part.seconds) for part in parts) < _FEWEST:
        return Correction()
    all_ = _Samples(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(_Samples)))
    unit = float(np.median(all_.profile))  # so that the unknowns are of one size
    root = np.sqrt(all_.profile)
    terms = np.column_stack([all_.between() * all_.profile[:, None], np.full(len(root), unit)]) / root[:, None]
    wanted = all_.seconds / root
    differences = np.diff(np.eye(len(ROWS), len(ROWS) + 1), axis=0)
    smooth = _SMOOTH * float(all_.profile.sum()) * differences.T @ differences
    # Normal equations of terms * (1 + c * shared), for every c at once.
    squares = [terms.T @ (terms * (all_.shared**power)[:, None]) for power in range(3)]
    sides = [terms.T @ (wanted * all_.shared**power) for power in range(2)]
    best, found = math.inf, Correction()
    for c in _CONTENTION if np.ptp(all_.shared) > _DIFFERENT else (0.0,):
        normal = squares[0] + 2 * c * squares[1] + c * c * squares[2] + smooth
        side = sides[0] + c * sides[1]
        factor = np.linalg.cholesky(normal + 1e-12 * np.trace(normal) * np.eye(len(normal))).T
        x = nnls(factor, np.linalg.solve(factor.T, side))[0]
        cost = float(x @ normal @ x - 2 * side @ x)
        if cost < best:
            best, found = cost, Correction(tuple(map(float, x[:-1])), float(x[-1]) * unit, float(c))
    return found


def _error(parts: Sequence[_Samples], correction: Correction) -> FitError | None:
    if not parts:
        return None
    predicted = np.concatenate([part.predicted(correction) for part in parts])
    return _error_of(np.concatenate([part.seconds for part in parts]), predicted)


def _error_of(seconds: Floats, predicted: Floats) -> FitError | None:
    if not len(seconds):
        return None
    whole = float(seconds.sum())
    relative: NDArray[np.float64] = np.abs(predicted / seconds - 1)
    return FitError(len(seconds), whole, float(predicted.sum()) / whole - 1, float(np.median(relative)))


def _handling(records: Sequence[ChainRecord]) -> float:
    """Seconds from an answer to the chain's next request, where the chain waited for nobody: the median."""
    gaps = []
    for record in records:
        held = [(hold.t_start_s, hold.t_end_s) for hold in record.holds_s]
        for call, after in zip(record.calls, record.calls[1:], strict=False):
            end, start = call.t_end_s, after.t_queued_s
            if end is not None and start >= end and not any(a < start and b > end for a, b in held):
                gaps.append(start - end)
    return float(np.median(gaps)) if gaps else 0.0
