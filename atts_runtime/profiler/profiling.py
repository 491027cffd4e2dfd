"""Measuring a machine and the models on it: peaks, then each engine's steps, fitted, as profiles."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

from atts_runtime.bundled import model_path
from atts_runtime.config import BUNDLED, RunConfig
from atts_runtime.errors import InputError
from atts_runtime.profiler.engineprofile import EngineProfile
from atts_runtime.profiler.hardware import HardwareProfile, Peak
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.provenance import Number
from atts_runtime.profiler.steptime import Phase

__all__ = ["DTYPES", "OnProgress", "measure_engine", "measure_hardware", "models_of", "slug", "spec_of"]

DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
"""Those of the embedded engine."""

OnProgress = Callable[[str, float], None]
"""Told a stage and the share of it that is done."""

_PEAKS_S = 2.0  # for each number of threads
_GRID_S = {"draft": 10.0, "target": 25.0}
_PHASES: tuple[Phase, ...] = ("append", "decode")


def models_of(draft: str, target: str) -> dict[str, str]:
    """Folder by role; one where both are the same folder."""
    named = {"draft": draft, "target": target}
    folders = {role: model_path(model, role) for role, model in named.items()}
    if len({Path(folder).expanduser().resolve() for folder in folders.values()}) == 1:
        del folders["draft"]
    return folders


def spec_of(folder: str, role: str, device: str) -> ModelSpec:
    """Dimensions as the embedded engine serves them: weights and KV in its own dtype."""
    if not Path(folder).expanduser().is_dir():
        raise InputError(f"model {folder!r} is not a folder; give a folder with config.json and weights")
    size = 2 if device.startswith("cuda") else 4
    spec = ModelSpec.from_config(folder, bytes_per_weight=size, bytes_per_kv_element=size)
    bundled = Path(folder).resolve() == Path(model_path(BUNDLED, role)).resolve()
    return replace(spec, name=f"bundled/{role}" if bundled else Path(folder).expanduser().resolve().name)


def measure_hardware(name: str, machine: str, device: str, threads: list[int], show: OnProgress) -> HardwareProfile:
    from atts_runtime.profiler.roofline import measure_peaks

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    kind = "cuda" if device.startswith("cuda") else "cpu"
    settings: list[tuple[str, int | None]] = [("float32", count) for count in threads]
    if kind == "cuda":
        settings = [(dtype, None) for dtype in ("float32", "tf32", "float16", "bfloat16")]
    peaks = []
    for i, (dtype, count) in enumerate(settings):
        show("peaks", i / len(settings))
        peaks.append(measure_peaks(device, dtype, count, _PEAKS_S).peak(dtype, count, load))
    show("peaks", 1.0)
    stated = None if load is None else Number(round(load, 2), "processes", "measured", "mean of the minute before")
    return HardwareProfile(
        name,
        "cuda" if kind == "cuda" else "cpu",
        machine,
        tuple(peaks),
        load_average=stated,
        measured_on=date.today().isoformat(),  # noqa: DTZ011 - the day where the machine is
    )


def measure_engine(
    role: str, folder: str, spec: ModelSpec, hardware: HardwareProfile, peak: Peak, device: str, show: OnProgress
) -> EngineProfile:
    """Load a model, step it over the grid and fit; its threads are those of `peak`."""
    import torch

    from atts_runtime.engines.causal_lm import CausalLM
    from atts_runtime.engines.worker import Worker
    from atts_runtime.profiler.grid import PROMPT, engine_padding, grid_of, measure
    from atts_runtime.profiler.stepfit import fit_calls, fit_phase

    show(role, 0.0)
    max_rows, before = RunConfig().max_rows, torch.get_num_threads()
    try:
        torch.set_num_threads(peak.threads or before)
        lm = CausalLM(folder, device)
        grid = grid_of(max_rows, lm.step_tokens, lm.max_context_tokens, len(lm.encode_prompt(PROMPT)))
        worker = Worker(lm, max_rows=max_rows, kv_budget_tokens=None)
        measured = measure(worker, grid, _GRID_S[role], lambda share: show(role, share))
    finally:
        torch.set_num_threads(before)
    show(role, 1.0)
    padding = engine_padding(groups_rows=lm.groups_rows)
    return EngineProfile.of_fit(
        {
            "name": f"{slug(spec.name)}-{hardware.name}",
            "engine": "transformers",
            "model": spec.name,
            "hardware": hardware.name,
            "device": hardware.device,
            "dtype": peak.dtype,
            "measured_on": hardware.measured_on or "unknown",
        },
        peak.threads,
        {package: importlib.metadata.version(package) for package in ("torch", "transformers")},
        spec,
        peak,
        {"max_rows": max_rows, "step_tokens": lm.step_tokens},
        padding,
        {phase: fit_phase(phase, measured.samples, spec, peak, padding) for phase in _PHASES},
        {kind: fit_calls(kind, measured.calls) for kind in ("generate", "score")},
    )


def slug(name: str) -> str:
    """A name as a file's: letters, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "machine"
