"""What is sampled while a run goes on: its progress, the engines' counters, and the machine's NVIDIA GPUs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Self

from atts_runtime.chain import Progress
from atts_runtime.driver import Driver
from atts_runtime.engines.base import Engine, Placement
from atts_runtime.profiler.nvml import NO_DEVICE, NvmlReader, NvmlSampler
from atts_runtime.profiler.record import Record
from atts_runtime.profiler.windows import covers

OnProgress = Callable[[Progress], None]
COLUMNS = ("t_s", "engine", "source", "metric", "value", "unit")
_TICK_S = 0.5
_SERVER_METRICS = {
    "running": "requests",
    "waiting": "requests",
    "preemptions": "requests",
    "prefix_queried_tokens": "tokens",
    "prefix_hit_tokens": "tokens",
    "kv_capacity_tokens": "tokens",
    "endpoints_up": "endpoints",
    "retried": "requests",
    "throttled": "requests",
}
"""Of `EngineStats`, where an engine has them."""


class Telemetry:
    """Around `driver.run()`: ``async with Telemetry(...)``. Times are the run's clock. `gpus` false: no NVML."""

    def __init__(self, driver: Driver, engines: Mapping[str, Engine], on_progress: OnProgress, *, gpus: bool) -> None:
        self._driver, self._engines, self._on_progress = driver, engines, on_progress
        self._rows: list[dict[str, Any]] = []
        self._window_s = (0.0, 0.0)  # of the run, on the sampler's clock
        self._nvml = NvmlSampler(NvmlReader(time.perf_counter)) if gpus else None

    async def __aenter__(self) -> Self:
        if self._nvml is not None:
            await asyncio.to_thread(self._nvml.start)  # the driver may take seconds to wake
        self._watch = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._window_s = (self._driver.zero_s, time.perf_counter())
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        if self._nvml is not None:
            await asyncio.to_thread(self._nvml.stop)

    async def _sample(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            if not self._driver.zero_s:
                continue  # the run has not begun
            self._on_progress(self._driver.progress)
            for role, engine in self._engines.items():
                stats = engine.stats()
                row = {"t_s": self._driver.now_s, "engine": role, "source": "measured"}
                self._rows.append({**row, "metric": "busy", "value": stats.busy_s, "unit": "s"})
                if stats.measured:
                    rows = float(stats.decode_rows)
                    self._rows.append({**row, "metric": "kv", "value": float(stats.kv_tokens), "unit": "tokens"})
                    self._rows.append({**row, "metric": "decode_rows", "value": rows, "unit": "rows"})
                for metric, unit in _SERVER_METRICS.items():
                    if (value := getattr(stats, metric)) is not None:
                        self._rows.append({**row, "metric": metric, "value": float(value), "unit": unit})

    def table(self) -> Any:
        """telemetry.parquet."""
        import pandas as pd

        zero_s = self._driver.zero_s
        gpus = [] if self._nvml is None else self._nvml.reader.rows()
        rows = self._rows + [{**row, "t_s": row["t_s"] - zero_s} for row in gpus]
        return pd.DataFrame(sorted(rows, key=lambda row: float(row["t_s"])), columns=list(COLUMNS))

    def gpus(self) -> dict[str, Any] | None:
        """By device: each metric's state, the run's joules and where they come from; and what sampling cost. Where
        there is no device, why. None: not sampled."""
        if self._nvml is None:
            return None
        reader = self._nvml.reader
        states = reader.states()
        if not reader.devices:
            return {"unavailable": next(iter(states[NO_DEVICE].values())).reason}
        moved = {name: record.integral("dram_rate", *self._window_s) for name, record in reader.records.items()}
        return {
            "states": {name: {k: asdict(state) for k, state in found.items()} for name, found in states.items()},
            "energy": {name: asdict(record.energy(*self._window_s)) for name, record in reader.records.items()},
            "dram_bytes": {name: None if found is None else asdict(found) for name, found in moved.items()},
            "sampler_cores": self._nvml.cost.cores,
        }

    def joules(self, placement: Placement | None) -> float | None:
        """What the GPU of an engine drew in the run. None for other devices, where NVML has none or saw too little of
        the run, and where CUDA_VISIBLE_DEVICES may have given the GPUs other numbers than NVML's."""
        record = self._gpu(placement)
        return None if record is None else record.energy(*self._window_s).joules

    def dram_bytes(self, placement: Placement | None) -> float | None:
        """What GPM saw the GPU of an engine read and write in the run; None as in `joules`."""
        record = self._gpu(placement)
        moved = None if record is None else record.integral("dram_rate", *self._window_s)
        return moved.value if moved is not None and covers(moved.covered_s, *self._window_s) else None

    def _gpu(self, placement: Placement | None) -> Record | None:
        if (
            self._nvml is None
            or placement is None
            or placement.device != "cuda"
            or "CUDA_VISIBLE_DEVICES" in os.environ
        ):
            return None
        return self._nvml.reader.records.get(f"gpu{placement.index or 0}")
