"""Measured peaks: the best of many short matrix products, and the best of many copies and matrix-vector products.

Other programs can only slow a trial down, so the best of many is what the device can do; a mean would measure the
neighbours. Copies and products work on several times the last-level cache, so that memory and not the cache answers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atts_runtime.errors import InputError
from atts_runtime.profiler.hardware import Peak
from atts_runtime.profiler.provenance import Number

if TYPE_CHECKING:
    import torch

__all__ = ["QUICK_S", "MeasuredPeak", "last_level_cache_bytes", "measure_peaks", "quick_peaks"]

QUICK_S = 0.4
"""For `quick_peaks`; allocation and one trial over it come on top, together under 0.7 s."""

_GEMM_SIZES = {"cpu": (256, 512, 1024), "cuda": (4096, 8192)}
_CACHES = 4  # the working set in last-level caches
# Where sysfs tells no cache, and as a bound: virtual machines may report the cache of a whole socket.
_LEAST_BYTES, _MOST_BYTES = 64 * 2**20, 2**30
_CUDA_BYTES = 2**30  # an H200 has 50 MB of L2
_DTYPES = {"cpu": ("float32",), "cuda": ("float32", "tf32", "float16", "bfloat16")}


@dataclass(frozen=True, slots=True)
class MeasuredPeak:
    """The best trials. `gemm` and `memory` say which they were, `trials` how many there were of either."""

    flops_per_s: float
    bytes_per_s: float
    gemm: str
    memory: str
    trials: tuple[int, int]

    def peak(self, dtype: str, threads: int | None, load_average: float | None) -> Peak:
        """As a profile states it."""
        load = "" if load_average is None else f", load average {load_average:.2f}"
        computed, moved = self.trials
        return Peak(
            dtype,
            threads,
            Number(round(self.flops_per_s), "FLOP/s", "measured", f"best of {computed} products, {self.gemm}{load}"),
            Number(round(self.bytes_per_s), "bytes/s", "measured", f"best of {moved} trials, {self.memory}{load}"),
        )


def measure_peaks(device: str, dtype: str, threads: int | None, seconds: float) -> MeasuredPeak:
    """Peaks of a device in about so many seconds. A copy counts the bytes that it reads and those that it writes.

    `threads` None leaves torch's own count. Raises InputError for a dtype that is not measured on the device.
    """
    import torch

    kind = torch.device(device).type
    if dtype not in _DTYPES.get(kind, ()):
        known = ", ".join(f"{name} on {kind}" for kind, names in _DTYPES.items() for name in names)
        raise InputError(f"cannot measure peaks of {dtype} on {device}; choose one of {known}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device} is not there: torch finds no CUDA GPU")
    if not seconds > 0:
        raise InputError(f"seconds must be above 0, got {seconds}")
    clock = _cuda_clock(torch.device(device)) if kind == "cuda" else _cpu_clock
    element = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    working_set = _CUDA_BYTES if kind == "cuda" else _working_set()
    with _set(threads, tf32=dtype == "tf32"), torch.inference_mode():
        flops, gemm, computed = _best(_gemms(device, element, _GEMM_SIZES[kind]), clock, seconds / 2)
        moved, memory, copied = _best(_moves(device, element, working_set), clock, seconds / 2)
    return MeasuredPeak(flops, moved, gemm, memory, (computed, copied))


def quick_peaks(device: str = "cpu", dtype: str = "float32", threads: int | None = None) -> MeasuredPeak:
    """Peaks in under 0.7 s on a CPU, for the start of a run on a machine without a profile."""
    return measure_peaks(device, dtype, threads, QUICK_S)


# A trial: what it does, how much of it (FLOPs or bytes), and its name.
_Trial = tuple[Callable[[], Any], float, str]


def _best(trials: list[_Trial], clock: Callable[[Callable[[], Any]], float], seconds: float) -> tuple[float, str, int]:
    """The highest rate over trials taken in turn until the time is over, which it was, and how many there were.

    The first pass over the trials warms up (pages, kernels, clocks) and counts only where time allows no second.
    """
    until = time.perf_counter() + seconds
    warm = [(amount / clock(work), name) for work, amount, name in trials]
    timed: list[tuple[float, str]] = []
    while time.perf_counter() < until:
        for work, amount, name in trials:
            timed.append((amount / clock(work), name))
            if time.perf_counter() >= until:
                break
    counted = timed or warm
    rate, name = max(counted)
    return rate, name, len(counted)


def _gemms(device: str, element: torch.dtype, sizes: tuple[int, ...]) -> list[_Trial]:
    return [_gemm(device, element, n) for n in sizes]


def _gemm(device: str, element: torch.dtype, n: int) -> _Trial:
    import torch

    a, b = (torch.rand(n, n, device=device).to(element) for _ in range(2))
    out = torch.empty(n, n, dtype=element, device=device)
    return lambda: torch.mm(a, b, out=out), 2.0 * n**3, f"{n} x {n} x {n}"


def _moves(device: str, element: torch.dtype, working_set: int) -> list[_Trial]:
    """A copy of half the working set onto the other half, and a matrix of all of it times a vector."""
    import torch

    columns = 4096
    rows = working_set // (columns * element.itemsize)
    matrix = torch.ones(rows, columns, dtype=element, device=device)
    source, target = matrix.view(2, -1)
    vector = torch.ones(columns, dtype=element, device=device)
    out = torch.empty(rows, dtype=element, device=device)
    size = matrix.numel() * element.itemsize
    mib = size / 2**20
    return [
        (lambda: target.copy_(source), float(size), f"a copy within {mib:.0f} MiB"),
        (lambda: torch.mv(matrix, vector, out=out), float(size), f"a matrix of {mib:.0f} MiB times a vector"),
    ]


def _cpu_clock(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _cuda_clock(device: torch.device) -> Callable[[Callable[[], Any]], float]:
    """Times work by events on the device's stream: the clock of the CPU would count launches."""
    import torch

    def clock(work: Callable[[], Any]) -> float:
        with torch.cuda.device(device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / 1e3  # it says milliseconds

    return clock


@contextmanager
def _set(threads: int | None, *, tf32: bool) -> Iterator[None]:
    """torch's threads and tensor-core switch as wanted, and afterwards as they were."""
    import torch

    before, allowed = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = tf32
        yield
    finally:
        torch.set_num_threads(before)
        torch.backends.cuda.matmul.allow_tf32 = allowed


def _working_set() -> int:
    """Bytes, a multiple of what two rows of a trial's matrix take."""
    wanted = _CACHES * (last_level_cache_bytes() or 0)
    return min(max(wanted, _LEAST_BYTES), _MOST_BYTES) // 2**16 * 2**16


def last_level_cache_bytes(cpu: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int | None:
    """Size of the first CPU's largest cache, from sysfs; None where it does not say."""
    sizes = [_size(path) for path in sorted(cpu.glob("index*/size"))]
    return max((size for size in sizes if size is not None), default=None)


def _size(path: Path) -> int | None:
    """Bytes of a sysfs cache size such as `32768K`."""
    try:
        stated = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    digits, unit = (stated[:-1], stated[-1]) if stated[-1:] in "KMG" else (stated, "")
    scale = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[unit]
    return int(digits) * scale if digits.isdecimal() and math.isfinite(scale) else None
