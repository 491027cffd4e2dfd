from __future__ import annotations

from dataclasses import dataclass

from atts_runtime.engines.base import Placement


@dataclass
class DevicePeak:
    flops_per_s: float = 33e9
    bytes_per_s: float = 11e9


def device_peak(placement: Placement | None, hardware: str | None) -> DevicePeak | None:
    return DevicePeak()
