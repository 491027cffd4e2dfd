"""The peak that intensity is counted against: of a profile that was asked for, of this machine, or measured quickly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from atts_runtime.engines.base import Placement
from atts_runtime.errors import InputError
from atts_runtime.profiler.hardware import HardwareProfile, Peak, for_machine, shipped
from atts_runtime.profiler.roofline import quick_peaks


@dataclass(frozen=True, slots=True)
class DevicePeak:
    """What a device can do at most, as an engine uses it. `kind` and `source` are those of both rates."""

    name: str
    device: str
    dtype: str
    threads: int | None
    flops_per_s: float
    bytes_per_s: float
    kind: str
    source: str

    @property
    def balance(self) -> float:
        """FLOPs a byte at which computing takes as long as moving."""
        return self.flops_per_s / self.bytes_per_s


def device_peak(placement: Placement | None, hardware: str | None = None) -> DevicePeak | None:
    """The peak of an engine's device. `hardware` is a profile's file or the name of a shipped one.

    None where the engine does not say where it computes. Raises InputError where `hardware` cannot be read, or has no
    peak of the engine's arithmetic and threads.
    """
    if placement is None:
        return None
    threads = placement.threads if placement.device == "cpu" else None
    if hardware is not None:
        profile = _profile(hardware)
        return _stated(profile.name, placement, profile.peak(placement.dtype, threads))
    return _found(placement.device, placement.index, placement.dtype, threads)


def _profile(hardware: str) -> HardwareProfile:
    known = shipped()
    if hardware in known:
        return known[hardware]
    if not Path(hardware).is_file():
        raise InputError(f"no hardware profile {hardware!r}; give a .toml file or one of {', '.join(sorted(known))}")
    return HardwareProfile.from_toml(hardware)


@lru_cache
def _found(device: str, index: int | None, dtype: str, threads: int | None) -> DevicePeak:
    """Looked up, or measured, once a process."""
    where = device if index is None else f"{device}:{index}"
    placement = Placement(device, index, dtype, threads)
    profile = for_machine(where)
    if profile is not None:
        try:
            return _stated(profile.name, placement, profile.peak(dtype, threads))
        except InputError:
            pass  # it was made with other numbers of threads
    return _stated("measured at the start", placement, quick_peaks(where, dtype, threads).peak(dtype, threads, None))


def _stated(name: str, placement: Placement, peak: Peak) -> DevicePeak:
    return DevicePeak(
        name,
        placement.device,
        peak.dtype,
        peak.threads,
        peak.flops_per_s,
        peak.bytes_per_s,
        peak.kind,
        peak.source,
    )
