"""What servers say of themselves at `/metrics`, as the runtime's totals.

Counters are added up by their growth between two looks, since a server that was restarted counts from 0 again. vLLM has
them always, SGLang with ``--enable-metrics``; of others only what the calls show is known.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field, replace

from atts_runtime.engines.base import EngineStats

_MOST = 2.0**63  # of anything that is counted; what is more is no count, and sums stay finite
_LINE = re.compile(r"(?:vllm|sglang):(\w+)(?:\{(.*)\})? (\S+)")
_DIGITS = 18
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_COUNTERS = {
    "iteration_tokens_total_count": "steps",
    "generation_tokens_total": "decode_rows",
    "prompt_tokens_total": "prompt",
    "prompt_tokens_cached_total": "cached",
    "cached_tokens_total": "cached",
    "num_preemptions_total": "preemptions",
    "prefix_cache_queries_total": "prefix_queried_tokens",
    "prefix_cache_hits_total": "prefix_hit_tokens",
    "spec_decode_num_draft_tokens_total": "speculated_tokens",
    "spec_decode_num_accepted_tokens_total": "accepted_tokens",
}
_GAUGES = {
    "num_requests_running": "running",
    "num_running_reqs": "running",
    "num_requests_waiting": "waiting",
    "num_queue_reqs": "waiting",
    "num_used_tokens": "kv",
    "max_total_num_tokens": "capacity",
}


@dataclass(slots=True)
class _Look:
    """An endpoint at the last look: counters as it gave them, and what it has and does."""

    counters: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)


class ServerLog:
    """Totals over all endpoints of a model since the last reset."""

    def __init__(self) -> None:
        self._looks: dict[str, _Look] = {}
        self._open = 0
        self.reset()

    def reset(self) -> None:
        """Forget all totals; what was seen last stays, for growth to be counted from there."""
        self._totals: dict[str, float] = {}
        self._kv_peak = 0.0
        self._busy_s = self._idle_s = 0.0
        self._since_s = time.perf_counter()

    def opened(self) -> None:
        """A call has come in."""
        if not self._open:
            self._idle_s += self._lap_s()
        self._open += 1

    def closed(self) -> None:
        """It is over."""
        self._open -= 1
        if not self._open:
            self._busy_s += self._lap_s()

    def _lap_s(self) -> float:
        now_s = time.perf_counter()
        lap_s, self._since_s = now_s - self._since_s, now_s
        return lap_s

    def look(self, url: str, text: str) -> None:
        """Take in what `/metrics` of an endpoint says."""
        counters, gauges = _read(text)
        known = self._looks.get(url)
        for name, value in counters.items():
            before = value if known is None else known.counters.get(name, 0.0)
            growth = value - before if value >= before else value
            self._totals[name] = self._totals.get(name, 0.0) + growth
        if counters or gauges:
            self._looks[url] = _Look(counters, gauges)
            self._kv_peak = max(self._kv_peak, self._sum("kv") or 0.0)

    @property
    def measured(self) -> bool:
        """Whether any endpoint says anything."""
        return bool(self._looks)

    @property
    def at_rest(self) -> bool:
        """Whether no endpoint is known to have anything to do."""
        return not (self._open or self._sum("running") or self._sum("waiting"))

    def stats(self) -> EngineStats:
        """The totals; those that no endpoint tells are None, or 0 with `measured` false."""
        lap_s = time.perf_counter() - self._since_s

        def total(name: str) -> int | None:
            value = self._totals.get(name)
            return None if value is None else round(value)

        def now(name: str) -> int | None:
            value = self._sum(name)
            return None if value is None else round(value)

        told = EngineStats(
            busy_s=self._busy_s + (lap_s if self._open else 0.0),
            idle_s=self._idle_s + (0.0 if self._open else lap_s),
            evictions=None,
            measured=self.measured,
            running=now("running"),
            waiting=now("waiting"),
            kv_capacity_tokens=now("capacity"),
            preemptions=total("preemptions"),
            prefix_queried_tokens=total("prefix_queried_tokens"),
            prefix_hit_tokens=total("prefix_hit_tokens"),
            speculated_tokens=total("speculated_tokens"),
            accepted_tokens=total("accepted_tokens"),
        )
        return replace(
            told,
            steps=total("steps") or 0,
            decode_rows=total("decode_rows") or 0,
            prefilled_tokens=(total("prompt") or 0) - (total("cached") or 0),
            kv_tokens=now("kv") or 0,
            kv_peak_tokens=round(self._kv_peak),
        )

    def _sum(self, gauge: str) -> float | None:
        values = [look.gauges[gauge] for look in self._looks.values() if gauge in look.gauges]
        return sum(values) if values else None


def _read(text: str) -> tuple[dict[str, float], dict[str, float]]:
    """Counters and gauges of a page in Prometheus' text format, summed over engine cores."""
    counters: dict[str, float] = {}
    gauges: dict[str, float] = {}
    usage: list[float] = []
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        name, labels, number = found.groups()
        try:
            value = float(number)
        except ValueError:
            continue
        if not abs(value) <= _MOST:  # NaN, which the format allows, included
            continue
        if name in _COUNTERS:
            counters[_COUNTERS[name]] = counters.get(_COUNTERS[name], 0.0) + value
        elif name in _GAUGES:
            gauges[_GAUGES[name]] = gauges.get(_GAUGES[name], 0.0) + value
        elif name == "kv_cache_usage_perc":
            usage.append(value)
        elif name == "cache_config_info":
            told = dict(_LABEL.findall(labels or ""))
            sizes = [told.get(name, "") for name in ("num_gpu_blocks", "block_size")]
            if all(size.isdecimal() and len(size) < _DIGITS for size in sizes):
                gauges["capacity"] = gauges.get("capacity", 0.0) + math.prod(map(int, sizes))
    if usage and "capacity" in gauges:
        gauges["kv"] = sum(usage) / len(usage) * gauges["capacity"]
    return counters, gauges
