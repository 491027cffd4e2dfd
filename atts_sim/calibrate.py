"""Engine costs fitted to runs: what steps take there beyond what the engine's profile says of them.

A profile measures an engine by itself, on an idle machine, step by step. In a run, calls that come and go cost the
driver's Python besides the engine's, and where two engines share a process and its cores, each slows the other down.
`correction` says how, by phase of each engine. What a call costs is told by decode passes, since most of those see none
come or go; scoring calls, one a row of their append, are part of its factor.

An engine in a process of its own does what a call costs within its passes; what the driver's process does for it is
`sending`. Where no profile is of the run's engine, its step times come from the runs' logs as well (`logfit`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from atts_runtime.config import EMBEDDED
from atts_runtime.errors import InputError
from atts_runtime.machine import model_name
from atts_runtime.profiler.engineprofile import EngineProfile, shipped_engines
from atts_runtime.profiler.hardware import shipped
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.stepfit import CallCosts
from atts_runtime.profiler.steptime import StepModel
from atts_sim.calls import PerCall, per_call_of
from atts_sim.correction import CallFit, Correction, FitError, Samples, fit
from atts_sim.cost import Phase
from atts_sim.handling import Handling, fit_handling, fit_wake_s
from atts_sim.logfit import model_of_logs
from atts_sim.measured import Floats, MeasuredRun, calls_of, peaks_of
from atts_sim.samples import samples_of
from atts_sim.sending import AT_ONCE, Sending, fit_sending

PHASES: tuple[Phase, ...] = ("append", "decode")
STEP_TOKENS = 2048
"""Of a step of vLLM, by its default."""
USUAL_CPU = "amd-epyc-milan"
"""The hardware that stands for CPUs that no profile is of: the shipped studies are of it."""
_Found = dict[Phase, tuple[Correction, CallFit]]
"""What was fitted to an engine."""


@dataclass(frozen=True, slots=True)
class EngineCosts:
    """An engine's step times, and what runs correct them by; `contention.Contended` says what a step takes. `per_call`:
    what calls cost besides; `profile`: the name of the engine profile that is corrected (None: there is none);
    `wake_s`: until an engine that has nothing to do begins a pass."""

    model: StepModel
    step_tokens: int
    corrections: Mapping[Phase, Correction]
    per_call: PerCall | None = None
    profile: str | None = None
    wake_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Costs:
    """What a simulation needs: engines by role, and what the driver takes for answers.

    one_engine  one model serves both roles; it is under the first
    fitted      by engine and phase: of the runs that were fitted, all together
    held_out    the same where each run is predicted from the others; empty for one run
    sending     what it takes until an engine has a call
    engine      what they are of, as `RunConfig.engine`
    """

    engines: Mapping[str, EngineCosts]
    one_engine: bool
    handling: Handling
    fitted: Mapping[tuple[str, Phase], FitError]
    held_out: Mapping[tuple[str, Phase], FitError]
    sending: Sending = AT_ONCE
    engine: str = EMBEDDED

    def to_json(self) -> dict[str, Any]:
        """What was fitted, for programs."""
        return {
            "engine": self.engine,
            "handling": asdict(self.handling),
            "sending": asdict(self.sending),
            "calls": {
                role: None if of.per_call is None else of.per_call.to_json() for role, of in self.engines.items()
            },
            "wake_s": {role: of.wake_s for role, of in self.engines.items()},
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


def profile_of(
    spec: ModelSpec, profiles: Sequence[EngineProfile] = (), cpu: str | None = None, engine: str = EMBEDDED
) -> EngineProfile:
    """The profile, of those given or else of those shipped, that is of this model and engine. Of several that of this
    CPU (as `MeasuredRun.cpu`), else of one with the same model name, else of any, and of equals that of `USUAL_CPU`, or
    the first. Raises InputError where none is."""
    known = [p for p in list(profiles) or shipped_engines().values() if p.engine == engine]
    sizes = ("parameters", "kv_bytes_per_token")
    mine = [p for p in known if all(p.numbers[f"dimensions.{n}"].value == getattr(spec, n) for n in sizes)]
    if not mine:
        names = ", ".join(profile.name for profile in known) or "none"
        whose, remedy = "", "make one with atts-runtime profile and give it with --profile"
        if engine != EMBEDDED:
            whose = f" of {engine}"
            remedy = "give runs of that engine with --fit-on, whose steps say what it costs"
        raise InputError(
            f"no engine profile{whose} is of {spec.name} with {spec.parameters} parameters (there are {names}); "
            f"{remedy}"
        )
    machines = {name: hardware.machine for name, hardware in shipped().items()}
    return min(mine, key=lambda p: (_unlike(machines.get(p.hardware), cpu), p.hardware != USUAL_CPU))


def _unlike(machine: str | None, cpu: str | None) -> int:
    """0: the same; 1: of one model name, as far as it is known; 2: another, or unknown."""
    if machine is None or cpu is None:
        return 2
    if machine == cpu:
        return 0
    return 1 if model_name(machine) == model_name(cpu) else 2


def stated_costs(
    specs: Mapping[str, ModelSpec],
    profiles: Sequence[EngineProfile] = (),
    *,
    one_engine: bool = False,
    cpu: str | None = None,
    engine: str = EMBEDDED,
) -> Costs:
    """As the profiles have it: nothing is fitted, and the driver costs nothing. `cpu`, `engine`: as in `profile_of`."""
    engines = {}
    for role, spec in specs.items():
        profile = profile_of(spec, profiles, cpu, engine)
        plain = dict.fromkeys(PHASES, Correction())
        model, calls = profile.step_model(spec), per_call_of(profile)
        engines[role] = EngineCosts(model, profile.step_tokens, plain, calls, profile.name)
    return Costs(engines, one_engine, Handling(), {}, {}, engine=engine)


def _logged_costs(specs: Mapping[str, ModelSpec], runs: Sequence[MeasuredRun], *, one_engine: bool) -> Costs:
    """Of engines without a profile, as the runs' steps have it. Raises InputError where the device is not known."""
    peaks = {role: peak for run in runs for role, peak in peaks_of(run).items()}
    engines = {}
    for role, spec in specs.items():
        if role not in peaks:
            raise InputError(
                f"the runs do not say what the {role} engine's device can do, which their steps are counted against; "
                "make them with --hardware PROFILE"
            )
        model = model_of_logs(spec, peaks[role], [run.logs[role] for run in runs if role in run.logs])
        engines[role] = EngineCosts(model, STEP_TOKENS, dict.fromkeys(PHASES, Correction()))
    return Costs(engines, one_engine, Handling(), {}, {})


def calibrate(runs: Sequence[MeasuredRun], profiles: Sequence[EngineProfile] = ()) -> Costs:
    """Costs that fit the runs' logs. Raises InputError where they are of other models, or no profile is of theirs."""
    runs = _on_one_engine(runs)
    specs = one_model_each(runs)
    one_engine, engine = any(run.one_engine for run in runs), runs[0].config.engine
    apart = engine != EMBEDDED
    own = apart and not any(profile.engine == engine for profile in profiles)
    if own:
        stated = _logged_costs(specs, runs, one_engine=one_engine)
    else:
        stated = stated_costs(specs, profiles, one_engine=one_engine, cpu=runs[0].cpu, engine=engine)
    samples = {
        (role, phase): [samples_of(run.logs[role], phase, costs.model, apart=apart) for run in runs if role in run.logs]
        for role, costs in stated.engines.items()
        for phase in PHASES
    }
    none = CallFit() if apart else None
    found = {role: _fit({phase: samples[role, phase] for phase in PHASES}, none, own=own) for role in stated.engines}
    engines = {role: _corrected(costs, found[role]) for role, costs in stated.engines.items()}
    if not apart:  # in a process of its own an engine's waking is part of `sending`
        engines = {role: replace(of, wake_s=_wake_s(role, runs)) for role, of in engines.items()}
    predicted = {
        (role, phase): [part.predicted(*found[role][phase]) for part in parts]
        for (role, phase), parts in samples.items()
        if parts
    }
    fitted, held_out = (
        {key: error for key, of in each.items() if (error := _error(samples[key], of))}
        for each in (predicted, _held_out(samples, none, own=own))
    )
    handling = fit_handling(run.records for run in runs)
    sending = fit_sending(run.calls for run in runs) if apart else AT_ONCE
    return Costs(engines, one_engine, handling, fitted, held_out, sending, engine)


def one_model_each(runs: Sequence[MeasuredRun]) -> dict[str, ModelSpec]:
    """The models by role. Raises InputError where runs are of several, on several kinds of engine, or had some one
    engine for both roles and some two."""
    specs: dict[str, ModelSpec] = {}
    for run in runs:
        for role, spec in run.specs.items():
            if replace(spec, name="") != replace(specs.setdefault(role, spec), name=""):
                raise InputError(f"{run.path} ran another {role} model than the other runs; fit on runs of one pair")
        if run.config.engine != runs[0].config.engine:
            raise InputError(f"{run.path} ran on another engine than {runs[0].path}; fit on runs of one engine")
    one, two = [run for run in runs if run.one_engine], [run for run in runs if len(run.specs) > 1]
    if one and two:  # what uses one role alone goes with either
        raise InputError(
            f"{one[0].path} had one engine for its two roles, {two[0].path} had two; fit on runs of one pair"
        )
    return specs


# -- fitting


def _fit(samples: Mapping[Phase, Sequence[Samples]], known: CallFit | None, *, own: bool) -> _Found:
    """Of an engine's samples by phase, a run each. `known`, `own`: as in `correction.fit`."""
    decode = fit(samples["decode"], known, own=own)
    return {"append": fit(samples["append"], decode[1], own=own), "decode": decode}


def _error(parts: Sequence[Samples], predicted: Sequence[Floats]) -> FitError | None:
    return FitError.of(np.concatenate([part.seconds for part in parts]), np.concatenate(predicted))


def _corrected(stated: EngineCosts, found: _Found) -> EngineCosts:
    """Where nothing was fitted the profile stands."""
    corrections = {phase: correction for phase, (correction, _) in found.items()}
    decode, calls = found["decode"]
    if decode == Correction() or stated.per_call is None:
        return replace(stated, corrections=corrections)
    none = CallCosts(0.0, 0.0)
    per_call = PerCall(CallCosts(calls.begin_s, 0.0), none, calls.end_s)
    return replace(stated, corrections=corrections, per_call=per_call)


def _held_out(
    samples: Mapping[tuple[str, Phase], Sequence[Samples]], known: CallFit | None, *, own: bool
) -> dict[tuple[str, Phase], list[Floats]]:
    """What each run's passes are predicted to take from the other runs, by engine and phase; of one run nothing."""
    predicted: dict[tuple[str, Phase], list[Floats]] = {key: [] for key in samples if len(samples[key]) > 1}
    for role in dict.fromkeys(role for role, _ in predicted):
        for out in range(len(samples[role, "decode"])):
            rest = {phase: [s for i, s in enumerate(samples[role, phase]) if i != out] for phase in PHASES}
            for phase, found in _fit(rest, known, own=own).items():
                predicted[role, phase].append(samples[role, phase][out].predicted(*found))
    return predicted


def _wake_s(role: str, runs: Sequence[MeasuredRun]) -> float:
    return fit_wake_s((run.logs[role], calls_of(role, run.calls, run.logs)) for run in runs if role in run.logs)


def _on_one_engine(runs: Sequence[MeasuredRun]) -> Sequence[MeasuredRun]:
    """Where one engine served both roles in some runs, those that used one role alone under that engine's name too."""
    name = next((role for run in runs if run.one_engine for role in run.specs), None)
    if name is None:
        return runs
    return [run if run.one_engine or len(run.specs) > 1 else _under(name, run) for run in runs]


def _under(name: str, run: MeasuredRun) -> MeasuredRun:
    (spec,), (log,) = run.specs.values(), run.logs.values()
    return replace(run, specs={name: spec}, logs={name: log})
