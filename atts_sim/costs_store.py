"""What engines cost in runs, as JSON: the fit of `calibrate`, to be simulated with where the runs are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from atts_runtime.config import EMBEDDED
from atts_runtime.errors import InputError
from atts_runtime.profiler.engineprofile import EngineProfile
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.stepfit import CallCosts
from atts_runtime.profiler.steptime import StepModel
from atts_sim import jsonfile
from atts_sim.calibrate import PHASES, Costs, EngineCosts
from atts_sim.calls import PerCall
from atts_sim.correction import ROWS, Correction
from atts_sim.cost import Phase
from atts_sim.handling import Handling
from atts_sim.jsonfile import flag, real

_FORMAT = "atts-fitted-costs/5"
_REFUSAL = " is no file of fitted costs of this version; fit them again with atts-sim validate --save-costs"


@dataclass(frozen=True)
class FittedEngine:
    """What runs said of an engine. `profile`: the name of the engine profile that is corrected; `step_times`: those
    that it stated then (`step_times_of`)."""

    profile: str
    step_times: str
    corrections: Mapping[Phase, Correction]
    per_call: PerCall | None
    wake_s: float

    def costs(self, profile: EngineProfile, spec: ModelSpec) -> EngineCosts:
        """Of the profile's engine. Raises InputError where it is another one."""
        if profile.name != self.profile:
            raise InputError(f"the costs were fitted beside engine profile {self.profile}, not {profile.name}")
        model = profile.step_model(spec)
        if step_times_of(model) != self.step_times:
            raise InputError(
                f"engine profile {profile.name} states other step times than those that the costs correct; fit them "
                "again with atts-sim validate --save-costs"
            )
        return EngineCosts(model, profile.step_tokens, self.corrections, self.per_call, profile.name, self.wake_s)


@dataclass(frozen=True)
class FittedCosts:
    """As in `calibrate.Costs`; `sources`: the runs' names."""

    engines: Mapping[str, FittedEngine]
    one_engine: bool
    handling: Handling
    sources: tuple[str, ...]

    def of(self, role: str) -> FittedEngine:
        """The engine of a role. Raises InputError where no run used it."""
        if self.one_engine:
            return next(iter(self.engines.values()))
        if role not in self.engines:
            raise InputError(f"the fitted costs say nothing of the {role} engine; fit them to a run that used it")
        return self.engines[role]


def step_times_of(model: StepModel) -> str:
    """A digest that tells step times apart."""
    stated = (model.flops_per_s, model.bytes_per_s, model.append, model.decode, model.padding)
    return sha256(repr(stated).encode()).hexdigest()[:16]


def save_costs(costs: Costs, sources: Sequence[str], path: Path) -> None:
    """Write what was fitted to the runs of these names. Raises InputError where the file cannot be written, or they
    ran on an engine that no profile is of."""
    if costs.engine != EMBEDDED:
        raise InputError(
            f"costs of runs under {costs.engine} cannot be saved: they correct no engine profile, which a study would "
            "name; leave --save-costs out"
        )
    engines = {
        role: {
            "profile": of.profile,
            "step_times": step_times_of(of.model),
            "corrections": {phase: asdict(correction) for phase, correction in of.corrections.items()},
            "calls": None if of.per_call is None else of.per_call.to_json(),
            "wake_s": of.wake_s,
        }
        for role, of in costs.engines.items()
    }
    fields = {"one_engine": costs.one_engine, "handling": asdict(costs.handling), "sources": sources}
    jsonfile.write(path, _FORMAT, fields | {"engines": engines})


def load_costs(path: Path) -> FittedCosts:
    """Read it back. Raises InputError where it cannot be read or is none."""
    return jsonfile.read(path, _FORMAT, _costs, _REFUSAL)


def _costs(data: Mapping[str, Any]) -> FittedCosts:
    engines = {str(role): _engine(of) for role, of in dict(data["engines"]).items()}
    if not engines:
        raise ValueError("no engine")
    sources = tuple(str(name) for name in data["sources"])
    times = dict(data["handling"])
    handling = Handling(real(times.pop("latency_s"), 0.0), real(times.pop("each_s"), 0.0))
    if times:
        raise ValueError(f"{times} besides")
    return FittedCosts(engines, flag(data["one_engine"]), handling, sources)


def _engine(data: Mapping[str, Any]) -> FittedEngine:
    corrections = {phase: _correction(data["corrections"][phase]) for phase in PHASES}
    profile, step_times = str(data["profile"]), str(data["step_times"])
    calls, wake_s = jsonfile.maybe(data["calls"], _calls), real(data["wake_s"], 0.0)
    return FittedEngine(profile, step_times, corrections, calls, wake_s)


def _correction(data: Mapping[str, Any]) -> Correction:
    factors = jsonfile.listed(data["factors"], lambda value: real(value, 0.0))
    if len(factors) != len(ROWS) or not any(factors):
        raise ValueError(f"{data['factors']} where {len(ROWS)} factors belong")
    others = ("step_s", "contention", "recent", "grown_s", "contention_s")
    return Correction(factors, *(real(data[name], 0.0) for name in others))


def _calls(data: Mapping[str, Any]) -> PerCall:
    kinds = [CallCosts(**{n: real(v, 0.0) for n, v in dict(data[kind]).items()}) for kind in ("generate", "score")]
    return PerCall(kinds[0], kinds[1], real(data["end_s"], 0.0))
