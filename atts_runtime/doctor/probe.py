"""What has to be tried rather than looked up, in a process of its own: ``python -m atts_runtime.doctor.probe WHAT``.

Importing torch or vLLM takes seconds, and a build that does not fit the machine may end the process. Each check is one
line of JSON on stdout as soon as it is known, so that what was found before the end is not lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from atts_runtime.doctor.checks import Check
from atts_runtime.machine import cores

_GIB = 2**30
_OLD_DRIVER = "update the NVIDIA driver, or install the build of torch that fits it (pytorch.org)"


def devices() -> Iterator[Check]:
    """What torch can compute on, and whether there is a profile of it."""
    import torch

    from atts_runtime.profiler.hardware import for_machine, machine_name
    from atts_runtime.profiler.nvml import NvmlReader

    yield Check("devices", "CPU", "works", f"{machine_name() or 'unknown make'}, {cores()} cores to use")
    reader = NvmlReader()
    reader.open()
    gpus = len(reader.devices)
    reader.close()
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            yield Check("devices", f"cuda:{index}", "works", f"{about.name}, {about.total_memory / _GIB:.0f} GiB")
    elif gpus:
        found = f"the driver has {gpus} GPU{'s' * (gpus > 1)}, of which torch {torch.__version__} sees none"
        mend = "install a CUDA build of torch (pytorch.org)" if torch.version.cuda is None else _OLD_DRIVER
        yield Check("devices", "CUDA", "broken", found, mend)
    else:
        yield Check(
            "devices", "CUDA", "absent", "no NVIDIA GPU; the bundled pair needs none, larger models do",
            "for large models use a machine with GPUs, or --engine http with a server that has them",
        )  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    profile = for_machine(device)
    if profile is None:
        yield Check(
            "devices", "hardware profile", "absent", f"none of {machine_name(device) or 'this machine'}: r is counted "
            "against a quick measurement at the start of each run", "atts-runtime profile measures this machine",
        )  # fmt: skip
    else:
        measured = f", measured on {profile.measured_on}" if profile.measured_on else ""
        yield Check("devices", "hardware profile", "works", f"{profile.name}{measured}")


def embedded() -> Iterator[Check]:
    """One turn of one chain of the bundled pair, start to end."""
    from atts_runtime.config import RunConfig
    from atts_runtime.rundir import RunDir
    from atts_runtime.session import engines_for, load, roles, run_once

    config, task = load(RunConfig(questions=1, chains=1, turns=1, profiler="off"))

    async def run(path: Path) -> str | None:
        async with engines_for(config, set(roles(config).values())) as engines:
            made = RunDir.create(path, config, config.fingerprint(task.fingerprint))
            summary = await run_once(config, task, engines, made, lambda progress: None)
            where = ", ".join(sorted({str(e.placement.device) for e in engines.values() if e.placement}))
        if summary["failed_chains"]:
            raise RuntimeError(next(record.detail for record in made.finished) or "the chain failed")
        return where

    with tempfile.TemporaryDirectory() as folder:
        where = asyncio.run(run(Path(folder) / "run"))
    yield Check(
        "engines", "transformers", "works", f"drafted, scored and decided one segment of the bundled pair ({where})"
    )


def vllm() -> Iterator[Check]:
    """Whether vLLM can be imported; starting it would take a model."""
    import vllm as installed
    from vllm.platforms import current_platform

    where = getattr(current_platform, "device_type", "an unknown device")
    yield Check("engines", "vllm", "works", f"{installed.__version__}, for {where}; imported, not started")


PROBES: Mapping[str, Callable[[], Iterator[Check]]] = {"devices": devices, "embedded": embedded, "vllm": vllm}


def main() -> int:
    """Write the checks of one probe; exits with 1, the reason on the last line of stderr, where it fails."""
    told = io.StringIO()  # what libraries say on stdout is none of ours
    try:
        with contextlib.redirect_stdout(told):
            for check in PROBES[sys.argv[1]]():
                print(json.dumps(asdict(check)), file=sys.__stdout__, flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
