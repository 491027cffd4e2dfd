"""One point of a study, simulated: options to engines, workload and policy, and what came of it as a row."""

from __future__ import annotations

import gc
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from atts_runtime.config import RunConfig
from atts_runtime.control import POLICIES
from atts_runtime.errors import InputError
from atts_runtime.profiler.intensity import ratio
from atts_runtime.session import roles
from atts_sim.calls import SimEngine
from atts_sim.clock import Clock
from atts_sim.collector import no_collection
from atts_sim.cost import StepCost
from atts_sim.demand import demanded
from atts_sim.devices import Device, device
from atts_sim.driver import Role, SimDriver, SimRun
from atts_sim.engine import BatchingEngine
from atts_sim.metrics import Metrics, measure
from atts_sim.options import ROLES, Options, Value
from atts_sim.row import Row, flat_metrics, mean_by_turn, mean_figures
from atts_sim.saturation import Saturation, saturation
from atts_sim.study import Study
from atts_sim.workloads import Source, source_of

Roles = tuple[Role, ...]
_FORMAT = "rows/1"
"""Of fingerprints: rows of another version of the simulator's figures are not taken up again."""


class Points:
    """Simulates points of a study. Workloads and profiles are loaded once, when a point first names them."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._sources: dict[str, Source | InputError] = {}
        self._devices: dict[str, Device | InputError] = {}

    def options(self, chosen: Mapping[str, Value]) -> dict[str, Value]:
        """All options of a point."""
        return {**self._study.base, **chosen}

    def config(self, options: Options) -> RunConfig:
        """The settings of a point: the study's over those that the workload brings. Raises InputError."""
        own = {name.removeprefix("settings."): v for name, v in options.items() if name.startswith("settings.")}
        return RunConfig().with_options({**self._source(options).defaults, **own})

    def fingerprint(self, options: Options) -> str:
        """SHA-256 of everything that the point's figures hang on. Raises InputError where the point cannot be made."""
        config = self.config(options)
        devices = self._engines(options, config)
        told = {
            "format": _FORMAT,
            "config": config.fingerprint(self._source(options).digest),
            "limits": [config.max_rows, config.kv_budget_tokens],
            "devices": {role: repr(found) for role, found in devices.items()},
            "handling_s": options.get("engines.handling_s", 0.0),
            "repeats": self._study.repeats,
            "deadline_s": self._study.deadline_s,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def row(self, place: int, chosen: Mapping[str, Value]) -> Row:
        """The point's row; what makes it impossible is in the row, not raised."""
        options = self.options(chosen)
        fingerprint = "".join(f"{name}={value!r};" for name, value in sorted(options.items()))
        fingerprint = hashlib.sha256(fingerprint.encode()).hexdigest()
        parameters: dict[str, Value | None] = dict(options)
        try:
            fingerprint = self.fingerprint(options)
            with no_collection():
                return self._simulated(place, fingerprint, options)
        except InputError as error:
            return Row(place, fingerprint, parameters, error=str(error))

    def _simulated(self, place: int, fingerprint: str, options: Options) -> Row:
        config = self.config(options)
        devices = self._engines(options, config)
        handling_s = float(options.get("engines.handling_s", 0.0))
        figures, by_turn, states = [], [], []
        warnings: dict[str, None] = {}
        for repeat in range(self._study.repeats):
            seeded = config.with_options({"seed": config.seed + repeat})
            run = self._run(seeded, self._source(options), devices, handling_s)
            if not self._source(options).knows_outcome(run):
                run.correct = dict.fromkeys(run.correct)
            metrics = measure(run, deadline_s=self._study.deadline_s)
            _check_kv(metrics, devices)
            state = _saturation(run, metrics)
            figures.append(_figures(run, metrics, devices, seeded))
            by_turn.append(metrics.takeover_rate_by_turn)
            warnings |= dict.fromkeys(_warnings(figures[-1], devices))
            states.append(state)
            run.requests.clear()  # each knows the driver, which knows them all: nobody need look for that cycle
        found = mean_figures(figures)
        found["verdict"], found["bottleneck"] = _worst(states)
        sources = (self._source(options).told, *dict.fromkeys(d.told for d in devices.values()))
        return Row(
            place,
            fingerprint,
            {**_settings(config), **options, **_limits(devices)},
            found,
            mean_by_turn(by_turn),
            sources,
            tuple(warnings),
        )

    def _run(self, config: RunConfig, source: Source, devices: Mapping[Role, Device], handling_s: float) -> SimRun:
        clock = Clock()
        made: dict[int, SimEngine] = {}
        engines: dict[Role, SimEngine] = {}
        for role, found in devices.items():
            if id(found) not in made:
                made[id(found)] = cast(SimEngine, BatchingEngine(clock, found.spec, cast(StepCost, found.steps)))
            engines[role] = made[id(found)]
        policy = POLICIES[config.policy](config.knobs)
        workload = source.workload(config)
        return SimDriver(policy, config.limits, workload, engines, clock, handling_s=handling_s).run()

    def _source(self, options: Options) -> Source:
        def loaded() -> Source:
            found = source_of(options)
            gc.collect()
            gc.freeze()  # it stays: looking through it again after every point would take longer than the point
            return found

        return cast(Source, _once(self._sources, _part(options, "workload."), loaded))

    def _engines(self, options: Options, config: RunConfig) -> dict[Role, Device]:
        """By role, those that the policy uses; one object under both where they share an engine."""
        brought: dict[str, int | None] = {"max_rows": None, "kv_budget_tokens": config.kv_budget_tokens}
        if "settings.max_rows" in options or "max_rows" in self._source(options).defaults:
            brought["max_rows"] = config.max_rows
        part = _part(options, "engines.") + repr(brought)

        def made(role: str) -> Device:
            return cast(Device, _once(self._devices, f"{role}:{part}", lambda: device(role, options, brought)))

        if options.get("engines.shared", False):
            if draft := [name for name in options if name.startswith("engines.draft.")]:
                raise InputError(f"engines.shared has one model serve both roles, as engines.target; remove {draft[0]}")
            return dict.fromkeys(cast(Roles, roles(config.policy)), made("target"))
        return {role: made(role) for role in cast(Roles, roles(config.policy))}


def _part(options: Options, prefix: str) -> str:
    return repr(sorted((name, value) for name, value in options.items() if name.startswith(prefix)))


def _once(known: dict[str, Any], key: str, make: Any) -> Any:
    """What was made under this key, or the error that came of trying."""
    if key not in known:
        try:
            known[key] = make()
        except InputError as error:
            known[key] = error
    if isinstance(known[key], InputError):
        raise InputError(str(known[key]))
    return known[key]


def _settings(config: RunConfig) -> dict[str, Value | None]:
    from atts_sim.options import HEEDED

    return {f"settings.{name}": getattr(config, name) for name in HEEDED}


def _limits(devices: Mapping[Role, Device]) -> dict[str, Value | None]:
    """What the engines came to, where the study left it open."""
    found: dict[str, Value | None] = {}
    for role, of in devices.items():
        found |= {
            f"engines.{role}.max_rows": of.spec.max_rows,
            f"engines.{role}.step_tokens": of.spec.step_tokens,
            f"engines.{role}.kv_budget_tokens": of.spec.kv_budget_tokens,
        }
    return found


def _figures(
    run: SimRun, metrics: Metrics, devices: Mapping[Role, Device], config: RunConfig
) -> dict[str, float | int | None]:
    found = flat_metrics(metrics)
    wall = metrics.makespan_s
    distinct = list({id(d): d for d in devices.values()}.values())
    for role in cast(Roles, ROLES):
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
    compute_s, memory_s = demanded(run, {role: of.steps for role, of in devices.items()})
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


def _saturation(run: SimRun, metrics: Metrics) -> Saturation:
    last: dict[int, float] = {}
    for finish, end in run.finished:
        last[finish.chain.question] = end
    wall = metrics.makespan_s
    busy = {role: use.busy_s / wall if wall else 0.0 for role, use in metrics.engines.items()}
    arrived = (0.0,) * run.questions  # until studies have arrivals over time
    return saturation(arrived, list(last.values()), busy, admission_s=metrics.admission_s)


def _worst(states: Iterable[Saturation]) -> tuple[str | None, str]:
    """The verdict of the repeat that did worst."""
    order = (None, "closed", "stable", "saturated", "overloaded")
    worst = max(states, key=lambda state: order.index(state.verdict))
    return worst.verdict, worst.bottleneck


def _check_kv(metrics: Metrics, devices: Mapping[Role, Device]) -> None:
    """InputError where the KV of chains at work, which no engine can evict, took more memory than there is."""
    for role, of in devices.items():
        room, peak = of.kv_room_tokens, metrics.engines[role].kv_peak_tokens
        if room is not None and peak > room:
            over_gib = (peak - room) * of.steps.spec.kv_bytes_per_token / 2**30
            raise InputError(
                f"engines.{role}: the KV of chains at work came to {peak:,} tokens, {over_gib:.1f} GiB more than the "
                f"{room:,} that fit beside the weights; raise tp, lower max_rows, or let fewer questions in flight"
            )


def _warnings(figures: Mapping[str, float | int | None], devices: Mapping[Role, Device]) -> list[str]:
    return [
        f"{role}: {outside:.1%} of its time is of steps outside what its profile measured"
        for role in devices
        if (outside := figures[f"{role}.outside_share"])
    ]
