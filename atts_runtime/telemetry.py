"""What is sampled while a run goes on: its progress, the engines' counters, and the machine's NVIDIA GPUs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Self

from atts_runtime.chain import Progress
from atts_runtime.driver import Driver
from atts_runtime.engines.base import Engine
from atts_runtime.profiler.nvml import NO_DEVICE, NvmlReader, NvmlSampler

OnProgress = Callable[[Progress], None]
COLUMNS = ("t_s", "engine", "source", "metric", "value", "unit")
_TICK_S = 0.5


class Telemetry:
    """Around `driver.run()`: ``async with Telemetry(...)``. Times are the run's clock. `gpus` false: no NVML."""

    def __init__(self, driver: Driver, engines: Mapping[str, Engine], on_progress: OnProgress, *, gpus: bool) -> None:
        self._driver, self._engines, self._on_progress = driver, engines, on_progress
        self._rows: list[dict[str, Any]] = []
        self._nvml = NvmlSampler(NvmlReader(time.perf_counter)) if gpus else None

    async def __aenter__(self) -> Self:
        if self._nvml is not None:
            await asyncio.to_thread(self._nvml.start)  # the driver may take seconds to wake
        self._watch = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        if self._nvml is not None:
            await asyncio.to_thread(self._nvml.stop)

    async def _sample(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            self._on_progress(self._driver.progress)
            for role, engine in self._engines.items():
                stats = engine.stats()
                row = {"t_s": self._driver.now_s, "engine": role, "source": "measured"}
                self._rows.append({**row, "metric": "kv", "value": float(stats.kv_tokens), "unit": "tokens"})
                self._rows.append({**row, "metric": "busy", "value": stats.busy_s, "unit": "s"})
                self._rows.append({**row, "metric": "decode_rows", "value": float(stats.decode_rows), "unit": "rows"})

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
        reader, zero_s = self._nvml.reader, self._driver.zero_s
        states = reader.states()
        if not reader.devices:
            return {"unavailable": next(iter(states[NO_DEVICE].values())).reason}
        end_s = zero_s + self._driver.now_s
        return {
            "states": {name: {k: asdict(state) for k, state in found.items()} for name, found in states.items()},
            "energy": {name: asdict(record.energy(zero_s, end_s)) for name, record in reader.records.items()},
            "sampler_cores": self._nvml.cost.cores,
        }
