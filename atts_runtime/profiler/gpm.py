"""GPM, the performance counters of Hopper and later GPUs, read through NVML.

A counter's value is its mean between two samples, which NVML wants more than 100 ms apart (NVML API reference,
"GPM Functions"). A device keeps two sample buffers and fills the older one each time, so windows follow one another
without holes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["COUNTERS", "GAP_S", "Counter", "Gpm", "Reading", "Window"]

GAP_S = 0.1


@dataclass(frozen=True, slots=True)
class Counter:
    """One GPM metric: its id in nvmlGpmMetricId_t, and NVML's unit times `scale` is `unit`."""

    id: int
    name: str
    unit: str
    scale: float = 1.0


_MIB = float(2**20)
COUNTERS = (
    Counter(2, "gpm_sm", "%"),  # of SMs that were busy
    Counter(3, "gpm_occupancy", "%"),  # warps that were active, of the theoretical maximum
    Counter(5, "gpm_tensor", "%"),  # of the time that SMs did any tensor operation
    Counter(7, "gpm_hmma", "%"),  # likewise half-precision tensor operations
    Counter(10, "gpm_dram", "%"),  # of the theoretical maximum bandwidth
    Counter(12, "gpm_fp32", "%"),  # of the time that SMs did non-tensor FP32 math
    Counter(13, "gpm_fp16", "%"),
    Counter(20, "gpm_pcie_tx", "bytes/s", _MIB),  # from the GPU; NVML: MiB/s
    Counter(21, "gpm_pcie_rx", "bytes/s", _MIB),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """Of one counter: `value` in the counter's unit, valid where `code` (nvmlReturn_t) is 0."""

    counter: Counter
    code: int
    value: float


@dataclass(frozen=True, slots=True)
class Window:
    """What the counters were on average between two samples."""

    begin_s: float
    end_s: float
    readings: tuple[Reading, ...]


class Gpm:
    """The two sample buffers of one device. Every method raises pynvml.NVMLError where the library refuses."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self._since_s: float | None = None
        self._buffers: list[Any] = []
        self._request = nvml.c_nvmlGpmMetricsGet_t()
        self._request.version = nvml.NVML_GPM_METRICS_GET_VERSION
        self._request.numMetrics = len(COUNTERS)
        for slot, counter in zip(self._request.metrics, COUNTERS, strict=False):  # the array has room for all ids
            slot.metricId = counter.id
        try:
            for _ in range(2):
                self._buffers.append(nvml.nvmlGpmSampleAlloc())
        except BaseException:
            self.close()
            raise

    def sample(self, now_s: float) -> Window | None:
        """The window that ends now; None at the first sample, and where the last one is too recent to take another."""
        begin_s = self._since_s
        if begin_s is not None and now_s - begin_s <= GAP_S:
            return None
        older, newer = self._buffers
        self._nvml.nvmlGpmSampleGet(self._handle, older)
        # From here on this is the newer one, even where the metrics cannot be had: the next window begins here.
        self._buffers, self._since_s = [newer, older], now_s
        if begin_s is None:
            return None
        self._request.sample1, self._request.sample2 = self._buffers
        self._nvml.nvmlGpmMetricsGet(self._request)
        return Window(begin_s, now_s, tuple(map(self._reading, range(len(COUNTERS)))))

    def _reading(self, index: int) -> Reading:
        slot = self._request.metrics[index]
        return Reading(COUNTERS[index], int(slot.nvmlReturn), float(slot.value) * COUNTERS[index].scale)

    def close(self) -> None:
        """Free the buffers; a second call does nothing."""
        while self._buffers:
            self._nvml.nvmlGpmSampleFree(self._buffers.pop())
