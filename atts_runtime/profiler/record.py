"""Everything sampled of one device: as rows for telemetry.parquet, or asked about a window of time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from atts_runtime.profiler.windows import Energy, Integral, Points, Source, Spans, energy_between

__all__ = ["Record", "TelemetryRow"]


class TelemetryRow(TypedDict):
    """One number of telemetry.parquet."""

    t_s: float
    engine: str
    source: Source
    metric: str
    value: float
    unit: str


@dataclass(slots=True)
class Record:
    """Series by metric; times are those of the clock that took them, units those of `units`."""

    engine: str  # the name in the rows, such as gpu0
    units: Mapping[str, str]
    source: Source = "measured"
    points: defaultdict[str, Points] = field(default_factory=lambda: defaultdict(Points))
    spans: defaultdict[str, Spans] = field(default_factory=lambda: defaultdict(Spans))

    def integral(self, metric: str, begin_s: float, end_s: float) -> Integral | None:
        """Of a metric over the window; None where it has no samples there."""
        for series in (self.points, self.spans):
            if metric in series:
                return series[metric].integral(begin_s, end_s)
        return None

    def energy(self, begin_s: float, end_s: float) -> Energy:
        """Joules over the window, by the counter or else from power; see `energy_between`."""
        counter, power = self.points.get("energy", Points()), self.points.get("power", Points())
        return energy_between(counter, power, begin_s, end_s, self.source)

    def rows(self) -> list[TelemetryRow]:
        """In order of time. A mean over a span stands at its end; `gpm_window` there says how long the span was."""
        return sorted(self._unsorted(), key=lambda row: row["t_s"])

    def _unsorted(self) -> Iterator[TelemetryRow]:
        for metric, points in list(self.points.items()):
            for t_s, value in zip(*(column.tolist() for column in points.columns()), strict=True):
                yield self._row(t_s, metric, value, self.units[metric])
        windows: dict[float, float] = {}  # end -> begin: all spans of a device share their samples
        for metric, spans in list(self.spans.items()):
            for begin_s, end_s, value in zip(*(column.tolist() for column in spans.columns()), strict=True):
                windows[end_s] = begin_s
                yield self._row(end_s, metric, value, self.units[metric])
        for end_s, begin_s in windows.items():
            yield self._row(end_s, "gpm_window", end_s - begin_s, "s")

    def _row(self, t_s: float, metric: str, value: float, unit: str) -> TelemetryRow:
        return {
            "t_s": t_s,
            "engine": self.engine,
            "source": self.source,
            "metric": metric,
            "value": value,
            "unit": unit,
        }
