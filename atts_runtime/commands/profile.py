"""``atts-runtime profile``: what this machine can do at most, and what a step of each engine costs on it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atts_runtime.commands.parser import add_output
from atts_runtime.config import BUNDLED
from atts_runtime.errors import InputError
from atts_runtime.machine import cores, threads_each
from atts_runtime.profiler.engineprofile import EngineProfile
from atts_runtime.profiler.hardware import HardwareProfile, machine_name
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.profiling import (
    DTYPES,
    OnProgress,
    measure_engine,
    measure_hardware,
    models_of,
    slug,
    spec_of,
)
from atts_runtime.profiler.steptime import Phase

_TRUSTED_P90 = 0.25
_PHASES: tuple[Phase, ...] = ("append", "decode")


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of ``atts-runtime``."""
    parser = commands.add_parser(
        "profile",
        help="measure this machine and the engines on it",
        description="Measure the device's peaks and the step times of both models on the embedded engine, fit them, "
        "and write a hardware profile and an engine profile of each model. Under a minute for the bundled pair.",
        epilog="example: atts-runtime profile --out profiles/hardware/my-laptop.toml",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the hardware profile (default: profiles/hardware/MACHINE.toml); the engines' go to ../engines beside its "
        "folder where that is named hardware, else into its folder",
    )
    parser.add_argument("--draft", default=BUNDLED, help="folder of the draft model (default: %(default)s)")
    parser.add_argument("--target", default=BUNDLED, help="folder of the target model (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads of each engine (default: half the cores)")
    parser.add_argument("--device", help="torch device (default: CUDA where there is one, else CPU)")
    add_output(parser)
    parser.set_defaults(execute=execute)


@dataclass(frozen=True, slots=True)
class _Files:
    """Where the profiles go."""

    hardware: Path
    engines: Path

    @classmethod
    def at(cls, out: Path) -> _Files:
        if out.is_dir() or out.suffix != ".toml":
            raise InputError(f"{out} is no name of a profile; give --out a file that ends in .toml")
        folder = out.parent
        files = cls(out, folder.parent / "engines" if folder.name == "hardware" else folder)
        for path in (files.hardware.parent, files.engines):
            _check_writable(path)
        return files

    def engine(self, name: str) -> Path:
        return self.engines / f"{name}.toml"


def execute(args: argparse.Namespace) -> int:
    """Measure, fit, write, and print a table."""
    if args.threads is not None and args.threads < 1:
        raise InputError(f"threads must be at least 1, got {args.threads}")
    machine, device = _device(args.device)
    threads = (args.threads or threads_each()) if device.startswith("cpu") else None
    files = _Files.at(args.out or Path("profiles") / "hardware" / f"{slug(machine)}.toml")
    models = models_of(args.draft, args.target)
    with _progress() as show:
        # The models first: one that cannot be loaded is known before a minute of measuring.
        specs = {role: spec_of(folder, role, device) for role, folder in models.items()}
        _check_named_apart(list(specs.values()))
        hardware = measure_hardware(files.hardware.stem, machine, device, sorted({1, threads or 1, cores()}), show)
        peak = hardware.peak(DTYPES[hardware.device], threads)
        profiles = [measure_engine(role, models[role], specs[role], hardware, peak, device, show) for role in models]
    hardware.to_toml(files.hardware)
    for profile in profiles:
        profile.to_toml(files.engine(profile.name))
    found = _found(hardware, profiles, files)
    for profile in profiles:
        for phase in _PHASES:
            if (p90 := profile.residuals(phase)[1].p90) > _TRUSTED_P90:
                print(
                    f"atts-runtime profile: {profile.model}, {phase}: a tenth of the held-out steps are off by "
                    f"{p90:.0%} or more; other programs may have been running, profile again on an idle machine",
                    file=sys.stderr,
                )
    if args.json:
        print(json.dumps(found, allow_nan=False))
    else:
        _print(hardware, profiles, files)
    return 0


# -- what to measure


def _device(asked: str | None) -> tuple[str, str]:
    """The machine's name and the torch device."""
    from atts_runtime.engines.torch_device import torch_device

    device = str(torch_device(asked))
    return machine_name(device) or "unknown machine", device


# -- files and figures


def _check_named_apart(specs: list[ModelSpec]) -> None:
    """InputError where two models would have one engine profile."""
    names = {slug(spec.name): spec.name for spec in specs}
    if len(names) < len(specs):
        raise InputError(f"both models are called {specs[0].name!r}, as their profiles would be; rename a folder")


def _check_writable(folder: Path) -> None:
    """InputError now rather than after a minute: whether profiles can be put into a folder, or it can be made."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        tempfile.TemporaryFile(dir=there).close()  # asking for permissions is not enough for root, nor in /proc
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror}; choose another --out") from error


def _found(hardware: HardwareProfile, profiles: list[EngineProfile], files: _Files) -> dict[str, Any]:
    return {
        "hardware": {
            "name": hardware.name,
            "machine": hardware.machine,
            "file": str(files.hardware),
            "load_average": None if hardware.load_average is None else hardware.load_average.value,
            "peaks": [
                {"dtype": p.dtype, "threads": p.threads, "flops_per_s": p.flops_per_s, "bytes_per_s": p.bytes_per_s}
                for p in hardware.peaks
            ],
        },
        "engines": [
            {
                "name": profile.name,
                "model": profile.model,
                "file": str(files.engine(profile.name)),
                "threads": profile.threads,
                **{phase: _figures(profile, phase) for phase in _PHASES},
            }
            for profile in profiles
        ],
    }


def _figures(profile: EngineProfile, phase: Phase) -> dict[str, Any]:
    fitted, held_out = profile.residuals(phase)
    costs = profile.costs(phase)
    return {
        "mfu": costs.mfu,
        "mfu_attention": costs.mfu_attention,
        "eta": costs.eta,
        "cache_bytes": costs.cache_bytes,
        "eta_beyond": costs.eta_beyond,
        "step_s": costs.step_s,
        "row_s": costs.row_s,
        "group_s": costs.group_s,
        "fitted": asdict(fitted),
        "held_out": asdict(held_out),
    }


def _print(hardware: HardwareProfile, profiles: list[EngineProfile], files: _Files) -> None:
    from rich.console import Console
    from rich.table import Table

    peaks = Table(title=f"{hardware.machine}: {files.hardware}", title_justify="left")
    for heading in ("peak", "GFLOP/s", "GB/s", "FLOP/byte"):
        peaks.add_column(heading, justify="left" if heading == "peak" else "right")
    for peak in hardware.peaks:
        called = peak.dtype if peak.threads is None else f"{peak.dtype}, threads {peak.threads}"
        rates = (f"{peak.flops_per_s / 1e9:,.1f}", f"{peak.bytes_per_s / 1e9:,.1f}", f"{peak.machine_balance:.1f}")
        peaks.add_row(called, *rates)
    steps = Table(title="step times: absolute relative error on points held out of the fit", title_justify="left")
    headings = ("model", "phase", "median", "p90", "points", "MFU", "eta", "cache MB", "beyond", "step ms", "row us")
    for heading in headings:
        steps.add_column(heading, justify="left" if heading in ("model", "phase") else "right")
    for profile in profiles:
        for phase in _PHASES:
            costs, (_, held_out) = profile.costs(phase), profile.residuals(phase)
            errors = (f"{held_out.median:.1%}", f"{held_out.p90:.1%}", f"{held_out.points:.0f}")
            cache = ("", "")
            if costs.cache_bytes is not None and costs.eta_beyond is not None:
                cache = (f"{costs.cache_bytes / 1e6:.0f}", f"{costs.eta_beyond:.2f}")
            overheads = (f"{costs.step_s * 1e3:.2f}", f"{costs.row_s * 1e6:.0f}")
            steps.add_row(profile.model, phase, *errors, f"{costs.mfu:.2f}", f"{costs.eta:.2f}", *cache, *overheads)
    console = Console()
    console.print(peaks)
    console.print(steps)
    for profile in profiles:
        console.print(f"{profile.model}: {files.engine(profile.name)}", highlight=False)


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """A bar on stderr for each stage, told the share that is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<8}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        stages: dict[str, Any] = {}

        def show(stage: str, share: float) -> None:
            if stage not in stages:
                stages[stage] = bar.add_task(stage, total=1.0)
            bar.update(stages[stage], completed=share)

        yield show
