"""One GPU as NVML shows it: what a sample asks, and what each answer or refusal means.

A metric is in one of five states, and only ever asked again in the last three:

    unavailable   cannot be reached from here: no library, driver, GPU or permission
    unsupported   the device, its mode (MIG) or its driver does not have it
    warming       no value yet: the device has none ready, or a mean needs a second sample
    available     the last attempt gave a value
    error         the last attempt failed in another way

No refusal is an exception: it changes the state of that metric and touches no other. Functions, units and return
codes are those of the NVML API reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from atts_runtime.profiler.gpm import COUNTERS, GAP_S, Gpm, Window
from atts_runtime.profiler.record import Record

__all__ = ["FAKE", "QUERIES", "UNITS", "Device", "MetricState", "State", "verdict"]

State: TypeAlias = Literal["unavailable", "unsupported", "warming", "available", "error"]
FAKE = "ATTS fake"
"""A device whose name begins so is a test double; its numbers say `fake`."""

# nvmlReturn_t; every other code is an error that may pass.
_MEANING: dict[int, State] = {
    1: "unavailable",  # uninitialized
    3: "unsupported",  # not supported
    4: "unavailable",  # no permission
    9: "unavailable",  # driver not loaded
    12: "unavailable",  # library not found
    13: "unsupported",  # function not found
    15: "unavailable",  # the GPU is lost
    18: "unavailable",  # the library and the driver are of different versions
    21: "warming",  # no data
    25: "unsupported",  # version of an argument not known
    26: "unsupported",  # deprecated
    27: "warming",  # not ready
    28: "unavailable",  # GPU not found
}
_FINAL = ("unavailable", "unsupported")


@dataclass(frozen=True, slots=True)
class MetricState:
    """`reason` says why a metric has no value, or what its last failure was; counts since the device was opened."""

    state: State
    reason: str = ""
    samples: int = 0
    failures: int = 0


def verdict(error: Exception) -> MetricState:
    """What a failed call means: an NVML return code, or a binding too old to have the function."""
    if isinstance(error, AttributeError):
        return MetricState("unsupported", f"pynvml: {error}")
    code = getattr(error, "value", None)
    state: State = _MEANING.get(code, "error") if isinstance(code, int) else "error"
    return MetricState(state, str(error) or type(error).__name__)


@dataclass(frozen=True, slots=True)
class Query:
    """One call, and the metrics and units of the numbers that it returns; `read` is given pynvml and a handle."""

    metrics: tuple[tuple[str, str], ...]
    read: Callable[[Any, Any], tuple[float, ...]]
    in_turn: bool = False  # blocks for long: one such call a sample


def _clock_hz(nvml: Any, handle: Any, kind: int) -> tuple[float]:
    return (nvml.nvmlDeviceGetClockInfo(handle, kind) * 1e6,)


def _pcie_bytes_per_s(nvml: Any, handle: Any, direction: int) -> tuple[float]:
    return (nvml.nvmlDeviceGetPcieThroughput(handle, direction) * 1e3,)


def _utilization(nvml: Any, handle: Any) -> tuple[float, float]:
    rates = nvml.nvmlDeviceGetUtilizationRates(handle)
    return float(rates.gpu), float(rates.memory)


QUERIES = (
    # Allocated by processes; what the driver reserves is apart from it in version 2.
    Query((("memory_used", "bytes"),), lambda nvml, h: (nvml.nvmlDeviceGetMemoryInfo(h, nvml.nvmlMemory_v2).used,)),
    # From Ampere on (but for GA100, the A100's chip) a mean over the last second.
    Query((("power", "W"),), lambda nvml, h: (nvml.nvmlDeviceGetPowerUsage(h) / 1e3,)),
    # Since the driver was loaded; Volta and later.
    Query((("energy", "J"),), lambda nvml, h: (nvml.nvmlDeviceGetTotalEnergyConsumption(h) / 1e3,)),
    Query((("sm_clock", "Hz"),), lambda nvml, h: _clock_hz(nvml, h, nvml.NVML_CLOCK_SM)),
    Query((("memory_clock", "Hz"),), lambda nvml, h: _clock_hz(nvml, h, nvml.NVML_CLOCK_MEM)),
    # Of the last sample period (1/6 to 1 s): time with a kernel running, and with device memory read or written.
    Query((("gpu_busy", "%"), ("memory_busy", "%")), _utilization),
    # NVML counts for 20 ms within the call, and says KB/s (taken as 1000 bytes).
    Query((("pcie_tx", "bytes/s"),), lambda nvml, h: _pcie_bytes_per_s(nvml, h, nvml.NVML_PCIE_UTIL_TX_BYTES), True),
    Query((("pcie_rx", "bytes/s"),), lambda nvml, h: _pcie_bytes_per_s(nvml, h, nvml.NVML_PCIE_UTIL_RX_BYTES), True),
)
_GPM = tuple(counter.name for counter in COUNTERS)
UNITS: Mapping[str, str] = {
    **{name: unit for query in QUERIES for name, unit in query.metrics},
    **{counter.name: counter.unit for counter in COUNTERS},
    "dram_rate": "bytes/s",  # gpm_dram times the peak
}
"""Every metric, with its unit."""


class Device:
    """A GPU by its NVML index. Its samples go to `record`; no method raises."""

    def __init__(self, nvml: Any, index: int, clock: Callable[[], float], record: Record) -> None:
        self.record = record
        self.name: str | None = None
        self.dram_peak_bytes_per_s: float | None = None
        self.states = {metric: MetricState("warming", "not sampled yet") for metric in UNITS}
        self._nvml, self._clock = nvml, clock
        self._handle: Any = None
        self._gpm: Gpm | None = None
        try:
            self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except Exception as error:
            self._refuse(UNITS, replace(verdict(error), state="unavailable"))
            return
        self._describe()
        self._open_gpm()

    def _describe(self) -> None:
        name, _ = self._constant("nvmlDeviceGetName")
        self.name = name
        if name is not None and name.startswith(FAKE):
            self.record.source = "fake"
        # At two transfers a cycle; the clock is the highest, as GPM's percentage is of the theoretical maximum.
        mhz, why_no_clock = self._constant("nvmlDeviceGetMaxClockInfo", self._nvml.NVML_CLOCK_MEM)
        bits, why_no_width = self._constant("nvmlDeviceGetMemoryBusWidth")
        if mhz and bits:
            self.dram_peak_bytes_per_s = 2 * mhz * 1e6 * bits / 8
        else:
            lacks = f"memory bus width: {why_no_width}" if not bits else f"highest memory clock: {why_no_clock}"
            self._refuse(["dram_rate"], MetricState("unsupported", lacks))

    def _constant(self, function: str, *args: Any) -> tuple[Any, str]:
        """A fact about the device, or None; and why it is unknown, should it be."""
        try:
            return getattr(self._nvml, function)(self._handle, *args), "reported as 0"
        except Exception as error:
            return None, verdict(error).reason

    def _open_gpm(self) -> None:
        """Where the device has GPM outside MIG mode, get it ready."""
        mode, _ = self._constant("nvmlDeviceGetMigMode")
        try:
            if mode is not None and mode[0] == self._nvml.NVML_DEVICE_MIG_ENABLE:
                refusal = MetricState("unsupported", "MIG mode is on")
            elif not self._nvml.nvmlGpmQueryDeviceSupport(self._handle).isSupportedDevice:
                refusal = MetricState("unsupported", "the device has no GPM (Hopper and later do)")
            else:
                self._gpm = Gpm(self._nvml, self._handle)
                refusal = MetricState("warming", f"needs a second sample more than {GAP_S:g} s after the first")
        except Exception as error:
            refusal = verdict(error)
        self._refuse([*_GPM, "dram_rate"], refusal)

    @property
    def queries_in_turn(self) -> list[Query]:
        """The slow calls that still get answers."""
        return [query for query in QUERIES if query.in_turn and self._asks(query)]

    def sample(self, slow: Query | None) -> None:
        """One reading of everything that is quick, and of one slow query."""
        for query in QUERIES:
            if (query is slow or not query.in_turn) and self._asks(query):
                try:
                    values = query.read(self._nvml, self._handle)
                except Exception as error:
                    self._refuse([name for name, _ in query.metrics], verdict(error))
                else:
                    now_s = self._clock()
                    for (name, _), value in zip(query.metrics, values, strict=True):
                        self.record.points[name].add(now_s, value)
                        self._count(name)
        if self._gpm is None and self._asks_any(_GPM):
            self._open_gpm()  # it failed, but not for good
        if self._gpm is not None:
            self._sample_gpm(self._gpm, self._clock())

    def _sample_gpm(self, gpm: Gpm, now_s: float) -> None:
        try:
            window = gpm.sample(now_s)
        except Exception as error:
            self._refuse([*_GPM, "dram_rate"], verdict(error))
            if not self._asks_any(_GPM):
                self._close_gpm()
            return
        if window is None:
            return
        for reading in window.readings:
            name, value = reading.counter.name, reading.value
            names = [name, "dram_rate"] if name == "gpm_dram" else [name]
            if reading.code != 0:
                self._refuse(names, verdict(self._nvml.NVMLError(reading.code)))
            elif not math.isfinite(value):
                self._refuse(names, MetricState("error", f"NVML gave {value}"))
            else:
                self._add(name, window, value)
                if self.dram_peak_bytes_per_s is not None and name == "gpm_dram":
                    self._add("dram_rate", window, value / 100 * self.dram_peak_bytes_per_s)

    def _add(self, name: str, window: Window, value: float) -> None:
        if self.states[name].state not in _FINAL:
            self.record.spans[name].add(window.begin_s, window.end_s, value)
            self._count(name)

    def _asks(self, query: Query) -> bool:
        return self._asks_any(name for name, _ in query.metrics)

    def _asks_any(self, names: Iterable[str]) -> bool:
        return any(self.states[name].state not in _FINAL for name in names)

    def _count(self, name: str) -> None:
        """A value came: of earlier reasons only that of a failure is kept."""
        old = self.states[name]
        reason = old.reason if old.failures else ""
        self.states[name] = MetricState("available", reason, old.samples + 1, old.failures)

    def _refuse(self, names: Iterable[str], refusal: MetricState) -> None:
        """No value came. A final state stays."""
        for name in names:
            old = self.states[name]
            if old.state not in _FINAL:
                failures = old.failures + (refusal.state != "warming")
                self.states[name] = replace(refusal, samples=old.samples, failures=failures)

    def _close_gpm(self) -> None:
        gpm, self._gpm = self._gpm, None
        if gpm is not None:
            try:
                gpm.close()
            except Exception:
                return  # the library is gone or refuses: nothing is left to free

    def close(self) -> None:
        """Free what the device holds; series and states stay readable."""
        self._close_gpm()
