"""Sampling NVIDIA GPUs in the background: a reader that knows no thread, and a thread that calls it.

NVML validates what the runtime counts; it never decides anything. A machine without a GPU or without the library is
an ordinary case: every metric is `unavailable` and nothing else changes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from atts_runtime.profiler.nvml_device import UNITS, Device, MetricState, verdict
from atts_runtime.profiler.record import Record, TelemetryRow

__all__ = ["NO_DEVICE", "NvmlReader", "NvmlSampler", "SamplerCost"]

NO_DEVICE = "gpu"
"""Stands for any GPU in `NvmlReader.states` where there is none."""


class NvmlReader:
    """Devices by NVML index (PCI bus order, whatever CUDA_VISIBLE_DEVICES says), read when told to.

    `clock` gives seconds that never go back; pass the run's, so that its rows and these share a time axis. `indices`
    picks devices, by default all.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter, indices: Sequence[int] | None = None) -> None:
        self.devices: dict[str, Device] = {}
        self.records: dict[str, Record] = {}
        self._clock, self._indices = clock, indices
        self._nvml: Any = None
        self._absence = MetricState("unavailable", "not opened")
        self._samples = 0

    def open(self) -> None:
        """Find the devices. Never raises; a reader that is open stays as it is.

        May take seconds where no other program holds the driver (persistence mode off).
        """
        if self._nvml is not None:
            return
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception as error:
            self._absence = MetricState("unavailable", str(error) or type(error).__name__)
            return
        self._nvml = pynvml
        try:
            count = pynvml.nvmlDeviceGetCount()
        except Exception as error:
            self._absence = MetricState("unavailable", verdict(error).reason)
            count = 0
        else:
            self._absence = MetricState("unavailable", "NVML sees no GPU")
        indices = range(count) if self._indices is None or count == 0 else self._indices
        self.devices = {}
        for index in indices:
            engine = f"gpu{index}"
            record = self.records.setdefault(engine, Record(engine, UNITS))
            self.devices[engine] = Device(pynvml, index, self._clock, record)

    @property
    def is_open(self) -> bool:
        return self._nvml is not None

    def sample(self) -> None:
        """One reading of every device. Never raises (but for the clock); does nothing where there is none."""
        slow = [(device, query) for device in self.devices.values() for query in device.queries_in_turn]
        turn = slow[self._samples % len(slow)] if slow else None
        for device in self.devices.values():
            device.sample(turn[1] if turn is not None and turn[0] is device else None)
        self._samples += 1

    def close(self) -> None:
        """Free everything that the library holds; records and states stay readable. Never raises."""
        if self._nvml is None:
            return
        for device in self.devices.values():
            device.close()
        with contextlib.suppress(Exception):  # a driver that is gone has nothing to shut down
            self._nvml.nvmlShutdown()
        self._nvml = None

    def states(self) -> dict[str, dict[str, MetricState]]:
        """By device (gpu0, ...) and metric; under `NO_DEVICE`, the reason, where there is no device."""
        if not self.devices:
            return {NO_DEVICE: dict.fromkeys(UNITS, self._absence)}
        return {engine: dict(device.states) for engine, device in self.devices.items()}

    def rows(self) -> list[TelemetryRow]:
        """Of all devices, in order of time, ready for telemetry.parquet."""
        rows = [row for record in list(self.records.values()) for row in record.rows()]
        return sorted(rows, key=lambda row: row["t_s"])


@dataclass(frozen=True, slots=True)
class SamplerCost:
    """What sampling took of the host: the thread's CPU seconds (user and system) and how long it ran."""

    samples: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0

    @property
    def cores(self) -> float | None:
        """Share of one core; None before the first sample."""
        return self.cpu_s / self.wall_s if self.wall_s > 0 else None


class NvmlSampler:
    """A thread that samples a reader every `interval_s` seconds, from `start` to `stop`.

    Both may be called again at any time, and a stopped sampler started again. A sample that comes late drops the
    ones it has missed. The first sample is at once and the last at the stop, so that a run lies within them.
    """

    def __init__(self, reader: NvmlReader, interval_s: float = 0.1) -> None:
        if not interval_s > 0:
            raise ValueError(f"interval_s must be positive, not {interval_s}")
        self.reader = reader
        self.interval_s = interval_s
        self.cost = SamplerCost()
        self._halt = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the reader and begin; without a device no thread is started."""
        if self._thread is not None:
            return
        self.reader.open()
        if self.reader.devices:
            self._halt.clear()
            self._thread = threading.Thread(target=self._run, name="atts-nvml", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread, wait for it, close the reader."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._halt.set()
            thread.join()
        self.reader.close()

    def __enter__(self) -> NvmlSampler:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _run(self) -> None:
        before = self.cost
        began_s, cpu_began_s = time.perf_counter(), time.thread_time()
        due_s = began_s
        last = False
        while not last:
            last = self._halt.is_set()
            self.reader.sample()
            now_s = time.perf_counter()
            self.cost = replace(
                before,
                samples=self.cost.samples + 1,
                cpu_s=before.cpu_s + time.thread_time() - cpu_began_s,
                wall_s=before.wall_s + now_s - began_s,
            )
            due_s = max(due_s + self.interval_s, now_s)
            if not last:
                self._halt.wait(due_s - now_s)
