"""The machine that a program runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_each() -> int:
    """Threads of each engine, where none are asked for: half the cores, under every policy. Never more in all than
    cores: oversubscribed, OpenMP spins and crawls."""
    return max(1, cores() // 2)


def cpu_name() -> str | None:
    """The CPU's model name, family and model number; None for what the system does not tell.

    Virtual machines shorten the model's name to the make, so the numbers that tell the core go with it."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return None
    return _name_in(first)


def model_name(cpu: str) -> str:
    """Of a name as `cpu_name` tells it: without the numbers."""
    return cpu.partition(", family ")[0]


def _name_in(processor: str) -> str | None:
    """Of one processor's lines in `/proc/cpuinfo`."""
    told = (line.partition(":") for line in processor.split("\n"))
    fields = {field.strip(): value.strip() for field, _, value in told}
    name, family, model = (fields.get(field) for field in ("model name", "cpu family", "model"))
    if not name:
        return None
    return name if family is None or model is None else f"{name}, family {family}, model {model}"


def described() -> dict[str, Any]:
    """For a run's manifest; None for what the system does not tell."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {"cpu": cpu_name(), "cores": os.cpu_count(), "memory_bytes": memory, "machine": platform.machine()}
