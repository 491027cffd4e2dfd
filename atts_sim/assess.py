"""What a simulated point comes to: the figures of its row, its verdict, its warnings, and whether its KV fits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import cast

from atts_runtime.errors import InputError
from atts_runtime.profiler.counts import Rates
from atts_runtime.profiler.intensity import ratio
from atts_sim.demand import demanded
from atts_sim.desk import Role
from atts_sim.devices import Device
from atts_sim.metrics import Metrics, quantiles
from atts_sim.options import ROLES
from atts_sim.row import QUANTILES, flat_metrics
from atts_sim.saturation import Saturation, saturation
from atts_sim.simrun import SimRun

Figures = dict[str, float | int | None]


def figures_of(run: SimRun, metrics: Metrics, devices: Mapping[Role, Device]) -> Figures:
    """All but the load and the verdict."""
    found = flat_metrics(metrics) | _from_arrival(run, metrics)
    wall = metrics.makespan_s
    distinct = list({id(d): d for d in devices.values()}.values())[: 1 if run.one_device else None]
    for role in cast(tuple[Role, ...], ROLES):
        of, use = devices.get(role), metrics.engines.get(role)
        known = of is not None and use is not None
        found[f"{role}.utilisation"] = use.busy_s / wall if known and use is not None and wall else None
        # Nothing vouches for a model without ranges, so that nothing lies outside them says nothing.
        outside = run.totals[role].outside_s if known and of is not None and of.steps.ranges else None
        found[f"{role}.outside_share"] = (
            outside / use.busy_s if outside is not None and use is not None and use.busy_s else None
        )
        room = None if of is None else of.kv_room_tokens
        found[f"{role}.kv_share"] = None if room is None or use is None else use.kv_peak_tokens / room if room else None
    devices_s = wall * sum(of.devices for of in distinct)
    prices, powers = [of.usd_per_hour for of in distinct], [of.power_w for of in distinct]
    found["devices"] = sum(of.devices for of in distinct)
    found["device_s"] = devices_s
    found["usd"] = _priced(distinct, prices, wall / 3600)
    found["energy_bound_j"] = _priced(distinct, powers, wall)
    rates = {role: Rates(of.steps.spec) for role, of in devices.items()}
    peaks = {
        role: (of.steps.tp * of.steps.flops_per_s, of.steps.tp * of.steps.bytes_per_s) for role, of in devices.items()
    }
    compute_s, memory_s = demanded(run, rates, peaks)
    stall_s = math.fsum(metrics.stall_s.values())
    found["stall_s.all"] = stall_s
    found["T_c_s"], found["T_m_s"], found["r"] = compute_s, memory_s, ratio(compute_s, memory_s, stall_s)
    return found


def _priced(devices: Iterable[Device], each: Iterable[float | None], amount: float) -> float | None:
    """Of all devices; None where one has no price."""
    known = [(of.devices, price) for of, price in zip(devices, each, strict=True)]
    if any(price is None for _, price in known):
        return None
    return amount * math.fsum(count * (price or 0.0) for count, price in known)


def _from_arrival(run: SimRun, metrics: Metrics) -> Figures:
    """Latencies from a question's arrival on, where questions come over time: to wait for admission is to wait."""
    if not any(run.arrived_s):
        return {}
    last: dict[int, float] = {}
    first: dict[int, float] = {}
    for finish, end in run.finished:
        question = finish.chain.question
        last[question] = end
        if finish.reason == "answered":
            first.setdefault(question, end)
    found: Figures = {}
    for name, ends in (("latency_s", last), ("first_answer_s", first)):
        times = [end - run.arrived_s[question] for question, end in sorted(ends.items())]
        known = quantiles(times)
        found |= {f"{name}.{q}": None if known is None else getattr(known, q) for q in QUANTILES}
        if name == "latency_s" and metrics.deadline_s is not None and run.wall_s:
            found["goodput_per_s"] = sum(time <= metrics.deadline_s for time in times) / run.wall_s
    return found


def saturation_of(run: SimRun, metrics: Metrics, at_once_s: float | None) -> Saturation:
    """at_once_s: the makespan with all questions there at once; None: they are."""
    wall = metrics.makespan_s
    busy = {role: use.busy_s / wall if wall else 0.0 for role, use in metrics.engines.items()}
    return saturation(run.arrived_s, busy, at_once_s=at_once_s, admission_s=metrics.admission_s)


def without_latency(figures: Mapping[str, float | int | None]) -> Figures:
    """Of a stream that piles up: how long questions take hangs on how long one looks, so that is not known."""
    return {
        name: None if name.startswith(("latency_s.", "first_answer_s.")) or name == "goodput_per_s" else value
        for name, value in figures.items()
    }


def worst(states: Iterable[Saturation]) -> tuple[str | None, str]:
    """The verdict of the repeat that did worst."""
    order = (None, "closed", "stable", "saturated")
    worst = max(states, key=lambda state: order.index(state.verdict))
    return worst.verdict, worst.bottleneck


def check_kv(metrics: Metrics, devices: Mapping[Role, Device]) -> None:
    """InputError where the KV of chains at work, which no engine can evict, took more memory than there is."""
    for role, of in devices.items():
        room, peak = of.kv_room_tokens, metrics.engines[role].kv_peak_tokens
        if room is not None and peak > room:
            over_gib = (peak - room) * of.steps.spec.kv_bytes_per_token / 2**30
            raise InputError(
                f"engines.{role}: the KV of chains at work came to {peak:,} tokens, {over_gib:.2g} GiB more than the "
                f"{room:,} that fit beside the weights; raise tp, lower max_rows, let fewer questions in flight, "
                "or take scheduler = 'vllm'"
            )


def warnings_of(figures: Mapping[str, float | int | None], devices: Mapping[Role, Device]) -> list[str]:
    return [
        f"{role}: {outside:.1%} of its time is of steps outside what its profile measured"
        for role in devices
        if (outside := figures[f"{role}.outside_share"])
    ]
