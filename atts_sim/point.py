"""One point of a study, simulated: options to engines, workload and policy, and what came of it as a row."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from atts_runtime.config import RunConfig
from atts_runtime.control import Knobs
from atts_runtime.control.registry import plugins_digest
from atts_runtime.errors import InputError
from atts_runtime.kvroom import bounded
from atts_runtime.session import roles
from atts_sim.arrivals import AllAtOnce, Arrivals, Poisson, arrivals_of, refuse_late
from atts_sim.assess import check_kv, figures_of, saturation_of, warnings_of, without_latency, worst
from atts_sim.calls import SimEngine
from atts_sim.clock import Clock
from atts_sim.collector import no_collection
from atts_sim.contention import contending
from atts_sim.cost import DecodeRuns, StepCost
from atts_sim.costs_store import FittedCosts, load_costs
from atts_sim.desk import Role
from atts_sim.device import Device as SharedDevice
from atts_sim.devices import Device, check_one_device, device
from atts_sim.driver import SimDriver
from atts_sim.engine import BatchingEngine
from atts_sim.handling import AT_ONCE, Handling
from atts_sim.metrics import measure
from atts_sim.options import ARRIVALS, HEEDED, Options, Value
from atts_sim.row import Row, mean_by_turn, mean_figures
from atts_sim.simrun import SimRun
from atts_sim.study import Study
from atts_sim.workload import Workload
from atts_sim.workloads import Source, source_of

_FORMAT = "rows/6"
"""Of fingerprints: rows of another version of the simulator's figures are not taken up again."""


class Points:
    """Simulates points of a study. Workloads and profiles are loaded once, when a point first names them."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._sources: dict[str, Source | InputError] = {}
        self._devices: dict[str, Device | InputError] = {}
        self._arrivals: dict[str, Arrivals | InputError] = {}
        self._costs: dict[str, FittedCosts | InputError] = {}
        self._at_once_s: dict[str, float] = {}
        self._runs: list[tuple[StepCost, DecodeRuns]] = []

    def options(self, chosen: Mapping[str, Value]) -> dict[str, Value]:
        """All options of a point."""
        return {**self._study.base, **chosen}

    def config(self, options: Options) -> RunConfig:
        """The settings of a point: the study's over those that the workload brings; a bank is for the policy that
        takes one. Raises InputError."""
        own = {name.removeprefix("settings."): v for name, v in options.items() if name.startswith("settings.")}
        config = RunConfig().with_options({**self._source(options).defaults, **own, "bank": None})
        if own.get("bank") is None or (self._study.sweeps("settings.policy") and not config.recipe.gate.takes_bank):
            return config
        return config.with_options({"bank": own["bank"]})

    def fingerprint(self, options: Options) -> str:
        """SHA-256 of everything that the point's figures hang on. Raises InputError where the point cannot be made."""
        return self._fingerprint(options, self._arrivals_of(options))

    def parameters(self, options: Options) -> dict[str, Value | None]:
        """The options of a point, with what its settings and engines came to where they leave it open. Raises
        InputError where the point cannot be made."""
        config = self.config(options)
        return _parameters(options, config, self._engines(options, config))

    def says_of_what(self, options: Options) -> bool:
        """Whether the study or its workload says by which models, and of which task, a point would be run."""
        return "settings.task" in options or "task" in self._source(options).defaults

    def _fingerprint(self, options: Options, arrivals: Arrivals) -> str:
        config = self.config(options)
        devices = self._engines(options, config)
        told = {
            "format": _FORMAT,
            "config": config.fingerprint(self._source(options).digest),
            "limits": [config.max_rows, config.kv_budget_tokens],
            "devices": {role: repr(found) for role, found in devices.items()},
            "one_device": _one_device(options, devices),
            "handling": repr(self._handling(options)),
            "arrivals": repr(arrivals),
            "repeats": self._study.repeats,
            "deadline_s": self._study.deadline_s,
            "plugins": plugins_digest() if config.gate is not None else None,
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
        config, source, arrivals = self.config(options), self._source(options), self._arrivals_of(options)
        devices = self._engines(options, config)
        figures, by_turn, states = [], [], []
        warnings: dict[str, None] = {}
        for repeat in range(self._study.repeats):
            seeded = config.with_options({"seed": config.seed + repeat})
            run = self._run(seeded, options, arrivals)
            if not source.knows_outcome(run):
                run.correct = dict.fromkeys(run.correct)
            metrics = measure(run, deadline_s=self._study.deadline_s)
            check_kv(metrics, devices)
            at_once_s = self._at_once(seeded, options) if any(run.arrived_s) else None
            state = saturation_of(run, metrics, at_once_s)
            found = figures_of(run, metrics, devices) | {"load": state.load}
            warnings |= dict.fromkeys(warnings_of(found, devices))
            figures.append(without_latency(found) if state.verdict == "saturated" else found)
            by_turn.append(metrics.takeover_rate_by_turn)
            states.append(state)
            run.requests.clear()  # each knows the driver, which knows them all: nobody need look for that cycle
        means = mean_figures(figures)
        means["verdict"], means["bottleneck"] = worst(states)
        sources = (source.told, *dict.fromkeys(d.told for d in devices.values()))
        parameters = _parameters(options, config, devices)
        return Row(place, fingerprint, parameters, means, mean_by_turn(by_turn), sources, tuple(warnings))

    def _at_once(self, config: RunConfig, options: Options) -> float:
        """The makespan with all questions there at once."""
        key = f"{self._fingerprint(options, AllAtOnce())}+{config.seed}"
        if key not in self._at_once_s:
            run = self._run(config, options, AllAtOnce())
            self._at_once_s[key] = run.wall_s
            run.requests.clear()
        return self._at_once_s[key]

    def _run(self, config: RunConfig, options: Options, arrivals: Arrivals) -> SimRun:
        clock = Clock()
        engines = self._made(clock, options, self._engines(options, config))
        workload = self._source(options).workload(config)
        policy = config.recipe(self._knobs(config, options, workload))
        times_s = arrivals.times_s(workload.questions, config.seed)
        refuse_late(policy, times_s)
        handling = self._handling(options)
        driver = SimDriver(policy, config.limits, workload, engines, clock, handling=handling, arrivals_s=times_s)
        return driver.run()

    def _made(self, clock: Clock, options: Options, devices: Mapping[Role, Device]) -> dict[Role, SimEngine]:
        """An engine for each device. Costs that runs corrected depend on the other engine, so they go step by step."""
        corrected = {id(of): (of.spec, of.costs) for of in devices.values() if of.costs is not None}
        made = contending(clock, corrected)
        device = SharedDevice(clock) if _one_device(options, devices) else None
        for of in devices.values():
            if id(of) not in made:
                steps = cast(StepCost, of.steps)
                engine = BatchingEngine(clock, of.spec, steps, device, self._runs_of(steps))
                made[id(of)] = cast(SimEngine, engine)
        return {role: made[id(of)] for role, of in devices.items()}

    def _fitted(self, options: Options) -> FittedCosts | None:
        """What runs say of the engines, where the study names such a file. Raises InputError."""
        path = options.get("engines.costs")
        if path is None:
            return None
        return cast(FittedCosts, _once(self._costs, str(path), lambda: load_costs(Path(str(path)))))

    def _handling(self, options: Options) -> Handling:
        """What the study says the driver takes for an answer, or else the runs that its costs were fitted to."""
        stated, fitted = options.get("engines.handling_s"), self._fitted(options)
        if stated is not None:
            return Handling.one_at_a_time(float(stated))
        return AT_ONCE if fitted is None else fitted.handling

    def _knobs(self, config: RunConfig, options: Options, workload: Workload) -> Knobs:
        """What the policy is told: as `atts_runtime.session.knobs_for`."""
        target = self._engines(options, config).get("target")
        if config.recipe.gate.name != "budget" or target is None:
            return config.knobs
        prompt = max(workload.prompt_tokens(question, "target") for question in range(workload.questions))
        return bounded(config, prompt, target.spec.kv_tokens)

    def _runs_of(self, steps: StepCost) -> DecodeRuns:
        """What is known of the step model: many points differ in all but that."""
        known = next((runs for model, runs in self._runs if model == steps), None)
        if known is None:
            known = DecodeRuns(steps)
            self._runs.append((steps, known))
        return known

    def _arrivals_of(self, options: Options) -> Arrivals:
        """When questions come. Raises InputError where it is said twice, or their file cannot be read."""
        text, per_s = (options.get(name) for name in ARRIVALS)
        if text is not None and per_s is not None:
            raise InputError(f"{ARRIVALS[0]} and {ARRIVALS[1]} exclude each other; leave one out")
        if per_s is not None:
            return Poisson(float(per_s))
        if text is None:
            return AllAtOnce()
        return cast(Arrivals, _once(self._arrivals, str(text), lambda: arrivals_of(str(text))))

    def _source(self, options: Options) -> Source:
        def loaded() -> Source:
            found = source_of(options)
            gc.collect()
            gc.freeze()  # it stays: looking through it again after every point would take longer than the point
            return found

        named = {name: value for name, value in options.items() if name not in ARRIVALS}
        return cast(Source, _once(self._sources, _part(named, "workload."), loaded))

    def _engines(self, options: Options, config: RunConfig) -> dict[Role, Device]:
        """By role, those that the policy uses; one object under both where they share an engine."""
        brought: dict[str, int | None] = {"max_rows": None, "kv_budget_tokens": config.kv_budget_tokens}
        if "settings.max_rows" in options:
            brought["max_rows"] = config.max_rows
        part = _part(options, "engines.") + repr(brought)

        def made(role: str) -> Device:
            return cast(
                Device,
                _once(self._devices, f"{role}:{part}", lambda: device(role, options, brought, self._fitted(options))),
            )

        if options.get("engines.shared", False):
            if draft := [name for name in options if name.startswith("engines.draft.")]:
                raise InputError(f"engines.shared has one model serve both roles, as engines.target; remove {draft[0]}")
            return {cast(Role, role): made("target") for role in roles(config)}
        devices = {cast(Role, role): made(of) for role, of in roles(config).items()}
        if _one_device(options, devices):
            check_one_device(cast("Mapping[str, Device]", devices))
        return devices


def _one_device(options: Options, devices: Mapping[Role, Device]) -> bool:
    """Whether two engines take turns on a device."""
    return bool(options.get("engines.one_device", False)) and len({id(of) for of in devices.values()}) > 1


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


def _parameters(options: Options, config: RunConfig, devices: Mapping[Role, Device]) -> dict[str, Value | None]:
    """The options, with what they came to as settings and, where they leave it open, in the engines."""
    settled = {f"settings.{name}": getattr(config, name) for name in HEEDED}
    left_open = {name: limit for name, limit in _limits(devices).items() if name not in options}
    return {**settled, **options, **settled, **left_open}  # settings come first, and as the config has them


def _limits(devices: Mapping[Role, Device]) -> dict[str, Value | None]:
    """What the engines came to."""
    found: dict[str, Value | None] = {}
    for role, of in devices.items():
        found |= {
            f"engines.{role}.max_rows": of.spec.max_rows,
            f"engines.{role}.step_tokens": of.spec.step_tokens,
            f"engines.{role}.kv_budget_tokens": of.spec.kv_tokens,
        }
    return found
