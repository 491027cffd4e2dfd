"""Hardware profiles: how fast a device computes and moves bytes at most, measured or by its data sheet.

The files are `profiles/hardware/*.toml`; docs/profiles.md describes them. Rates are dense, without sparsity.
"""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

from atts_runtime.errors import InputError
from atts_runtime.machine import cpu_name
from atts_runtime.profiler.provenance import Number, known_entries, load_profile, number, save_profile, text

__all__ = ["DeviceKind", "HardwareProfile", "Peak", "for_machine", "machine_name", "profiles_folder", "shipped"]

DeviceKind: TypeAlias = Literal["cpu", "cuda"]

_LIMITS = {"memory_bytes": "bytes", "power_w": "W", "link_bytes_per_s": "bytes/s"}


@dataclass(frozen=True, slots=True)
class Peak:
    """What a device does at most in one number format, with so many CPU threads (None: it has no such count)."""

    dtype: str
    threads: int | None
    flops: Number  # FLOP/s
    bandwidth: Number  # bytes/s, reads and writes together

    def __post_init__(self) -> None:
        if self.flops.kind != self.bandwidth.kind:
            raise InputError(f"a peak's numbers must be of one kind, got {self.flops.kind} and {self.bandwidth.kind}")

    @property
    def flops_per_s(self) -> float:
        return self.flops.value

    @property
    def bytes_per_s(self) -> float:
        return self.bandwidth.value

    @property
    def machine_balance(self) -> float:
        """FLOP a byte at which computing takes as long as moving."""
        return self.flops_per_s / self.bytes_per_s

    @property
    def t_c_s_per_flop(self) -> float:
        return 1 / self.flops_per_s

    @property
    def t_m_s_per_byte(self) -> float:
        return 1 / self.bytes_per_s

    @property
    def kind(self) -> str:
        """`measured` or `datasheet`, of both numbers."""
        return self.flops.kind

    @property
    def source(self) -> str:
        flops, bandwidth = self.flops.source, self.bandwidth.source
        return flops if flops == bandwidth else f"{flops}; {bandwidth}"


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """A device. `machine` is the name by which it is known again (`machine_name`).

    memory_bytes, power_w    what it has and may draw
    link_bytes_per_s         to its peers, one way
    load_average             runnable processes (one minute's mean) before the peaks were measured, on `measured_on`
                             (ISO date)
    """

    name: str
    device: DeviceKind
    machine: str
    peaks: tuple[Peak, ...]
    memory_bytes: Number | None = None
    power_w: Number | None = None
    link_bytes_per_s: Number | None = None
    load_average: Number | None = None
    measured_on: str | None = None

    def __post_init__(self) -> None:
        keys = [(peak.dtype, peak.threads) for peak in self.peaks]
        if not keys or len(set(keys)) < len(keys):
            raise InputError(f"{self.name}: give one peak or more, each with another dtype or number of threads")

    def peak(self, dtype: str, threads: int | None = None) -> Peak:
        """The peak in a number format with so many threads; InputError, naming those there are, where it is not one."""
        for peak in self.peaks:
            if (peak.dtype, peak.threads) == (dtype, threads):
                return peak
        there = ", ".join(_called(peak.dtype, peak.threads) for peak in self.peaks)
        raise InputError(f"hardware profile {self.name} has no peak of {_called(dtype, threads)}; it has {there}")

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Raises InputError where the file cannot be read, or a number is missing, not positive or without source."""
        entries = load_profile(path, "a hardware profile")
        optional = {"note", "sources", "limits", "load_average", "measured_on"}
        known_entries(path, entries, ("name", "device", "machine", "peaks"), optional)
        device = text(path, entries, "device")
        if device not in get_args(DeviceKind):
            raise InputError(f"{path}: device is {device!r}; choose one of {', '.join(get_args(DeviceKind))}")
        if not isinstance(entries["peaks"], list):
            raise InputError(f"{path}: 'peaks' must be a list of tables, each below [[peaks]]")
        limits = entries.get("limits", {})
        known_entries(f"{path}: limits", limits, (), _LIMITS)
        load = entries.get("load_average")
        where = f"{path}: load_average"
        try:
            return cls(
                text(path, entries, "name"),
                "cpu" if device == "cpu" else "cuda",
                text(path, entries, "machine"),
                tuple(_peak(f"{path}: peaks[{i}]", peak) for i, peak in enumerate(entries["peaks"])),
                load_average=None if load is None else number(where, load, "processes", zero=True),
                measured_on=text(path, entries, "measured_on") if "measured_on" in entries else None,
                **{name: number(f"{path}: limits.{name}", limits[name], _LIMITS[name]) for name in limits},
            )
        except InputError as error:
            raise error if str(error).startswith(str(path)) else InputError(f"{path}: {error}") from error

    def to_toml(self, path: Path) -> None:
        """Write the file that `from_toml` reads; InputError where it cannot be written."""
        limits = {name: stated.to_toml() for name in _LIMITS if (stated := getattr(self, name)) is not None}
        entries: dict[str, Any] = {"name": self.name, "device": self.device, "machine": self.machine}
        if self.measured_on is not None:
            entries["measured_on"] = self.measured_on
        if self.load_average is not None:
            entries["load_average"] = self.load_average.to_toml()
        if limits:
            entries["limits"] = limits
        entries["peaks"] = [
            {"dtype": peak.dtype}
            | ({} if peak.threads is None else {"threads": peak.threads})
            | {"flops_per_s": peak.flops.to_toml(), "bytes_per_s": peak.bandwidth.to_toml()}
            for peak in self.peaks
        ]
        save_profile(path, entries, "A hardware profile of ATTS; docs/profiles.md describes it.")


def _peak(where: str, entries: Any) -> Peak:
    known_entries(where, entries, ("dtype", "flops_per_s", "bytes_per_s"), ("threads",))
    threads = entries.get("threads")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"{where}: 'threads' must be a whole number above 0, got {threads!r}")
    flops = number(f"{where}.flops_per_s", entries["flops_per_s"], "FLOP/s")
    bandwidth = number(f"{where}.bytes_per_s", entries["bytes_per_s"], "bytes/s")
    return Peak(text(where, entries, "dtype"), threads, flops, bandwidth)


def _called(dtype: str, threads: int | None) -> str:
    return dtype if threads is None else f"{dtype} with {threads} thread{'s' if threads > 1 else ''}"


def profiles_folder() -> Path:
    """The folder `profiles`: in the source tree, or where the installed package put it (by user or for all)."""
    source = Path(__file__).parents[2] / "profiles"
    if source.is_dir():
        return source
    kept = Path("share", "atts", "profiles")
    schemes = {sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")}
    folders = [Path(sysconfig.get_path("data", scheme)) / kept for scheme in sorted(schemes)]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def shipped() -> dict[str, HardwareProfile]:
    """The hardware profiles that come with ATTS, by name."""
    files = sorted((profiles_folder() / "hardware").glob("*.toml"))
    return {profile.name: profile for profile in map(HardwareProfile.from_toml, files)}


def for_machine(device: str = "cpu") -> HardwareProfile | None:
    """The profile of this machine's device (a torch device name) in that folder, of several the one that was measured
    last; None where there is none."""
    machine = machine_name(device)
    kind = device.split(":")[0]
    found = [p for p in shipped().values() if p.device == kind and p.machine == machine]
    return None if machine is None else max(found, key=lambda p: p.measured_on or "", default=None)


def machine_name(device: str = "cpu") -> str | None:
    """What a device calls itself: the CPU's model name, family and model number, or the GPU's name. None: unknown."""
    if device.split(":")[0] == "cuda":
        import torch

        return torch.cuda.get_device_name(device) if torch.cuda.is_available() else None
    return cpu_name()
