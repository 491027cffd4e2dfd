"""A study's engines: step times, limits, room for KV, what devices cost; each with the sources of its numbers.

An engine is an engine profile, fitted to measurements, or else a model on `tp` devices of a hardware profile with the
constants of `profiler.analytic`. The first batches as the engine that was measured, the second as vLLM, unless
`scheduler` says otherwise. Where the hardware's memory is known, weights must fit into `memory_share` of it, and what
they leave is the KV's: vLLM's scheduler keeps to it, with preemption; the embedded engine's bounds that of idle chains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from atts_runtime.errors import InputError
from atts_runtime.profiler.analytic import analytic_model
from atts_runtime.profiler.engineprofile import EngineProfile, shipped_engines
from atts_runtime.profiler.hardware import HardwareProfile, profiles_folder, shipped
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.steptime import StepModel
from atts_sim.calibrate import EngineCosts
from atts_sim.calls import EngineSpec, Paged, per_call_of
from atts_sim.capacity import kv_blocks
from atts_sim.costs_store import FittedCosts
from atts_sim.nearest import did_you_mean
from atts_sim.options import PER_ENGINE, Options

_GIB = 2**30
_MEMORY_SHARE = 0.9
"""Of a device's memory that weights and KV may take: the rest is for activations and the allocator, as vLLM's
gpu_memory_utilization has it by default."""
_MAX_ROWS, _STEP_TOKENS = 64, 8192
"""Of an engine without a profile: the runtime's rows, and the tokens of a step of vLLM on such devices
(max_num_batched_tokens)."""

_BLOCK = 16
"""Tokens of a block of KV, vLLM's default (block_size)."""

T = TypeVar("T")


@dataclass(frozen=True)
class Device:
    """An engine and what it runs on.

    costs            the step times as runs corrected them; None: they are as `steps` has them
    on               the hardware profile's name
    memory_share     of their memory that weights and KV may take; None: it is not known
    kv_room_tokens   KV that fits beside the weights; None: the memory is not known
    usd_per_hour, power_w
                     of one device; None: not known
    """

    spec: EngineSpec
    steps: StepModel
    devices: int
    kv_room_tokens: int | None
    usd_per_hour: float | None
    power_w: float | None
    told: str
    on: str
    memory_share: float | None = None
    costs: EngineCosts | None = None


def device(
    role: str, options: Options, defaults: Mapping[str, int | None], fitted: FittedCosts | None = None
) -> Device:
    """The engine of a role. `defaults`: max_rows and kv_budget_tokens where no engine option names them; `fitted`: what
    the study's engines.costs holds.

    InputError says which option is missing, unknown, or asks for more memory than there is.
    """
    given = {name: _option(role, name, options) for name in PER_ENGINE}
    if given["profile"] is not None:
        if clash := [name for name in ("hardware", "dtype", "tp", "memory_share") if given[name] is not None]:
            raise InputError(f"engines.{role}: a profile is of one model and device; leave out {clash[0]}, or profile")
        return _profiled(role, given, defaults, fitted)
    if fitted is not None:
        raise InputError(f"engines.costs corrects engine profiles; give engines.{role}.profile, or leave it out")
    if missing := [name for name in ("model", "hardware", "dtype") if given[name] is None]:
        raise InputError(
            f"engines.{role}.{missing[0]} is missing; give engines.{role}.profile, or model, hardware and dtype"
        )
    return _analytic(role, given, defaults)


def _option(role: str, name: str, options: Options) -> Any:
    own = options.get(f"engines.{role}.{name}")
    return options.get(f"engines.{name}") if own is None else own


def _profiled(
    role: str, given: Mapping[str, Any], defaults: Mapping[str, int | None], fitted: FittedCosts | None
) -> Device:
    mine = None if fitted is None else fitted.of(role)
    named = str(given["profile"])
    profile = engine_profile(mine.profile if mine is not None and mine.profile in _engine_profiles() else named)
    rows = given["max_rows"] or defaults["max_rows"] or profile.max_rows
    budget = given["kv_budget_tokens"] or defaults["kv_budget_tokens"]
    told = f"{role}: engine profile {profile.name}, {profile.model}, measured on {profile.measured_on}"
    about = model_spec(str(given["model"] or profile.model))
    model = profile.step_model(about)
    paged = (given["scheduler"] or profile.engine) == "vllm"
    spec = _spec(role, rows, given["step_tokens"] or profile.step_tokens, budget, paged=paged, room=None)
    costs, per_call, wake_s = None, per_call_of(profile), 0.0
    if fitted is not None and mine is not None:
        costs = mine.costs(profile, about)
        per_call, wake_s = costs.per_call or per_call, costs.wake_s
        told += f", corrected by runs ({', '.join(fitted.sources)})"
    return Device(
        spec if paged else replace(spec, per_call=per_call, wake_s=wake_s),
        model,
        1,
        None,
        given["usd_per_hour"],
        given["power_w"],
        f"{told} ({_kinds(model)})",
        profile.hardware,
        costs=costs,
    )


def _analytic(role: str, given: Mapping[str, Any], defaults: Mapping[str, int | None]) -> Device:
    spec, hardware = model_spec(str(given["model"])), hardware_profile(str(given["hardware"]))
    tp, dtype = given["tp"] or 1, str(given["dtype"])
    steps = analytic_model(spec, hardware, dtype, tp=tp)
    rows = given["max_rows"] or defaults["max_rows"] or _MAX_ROWS
    share = given["memory_share"] or _MEMORY_SHARE
    step_tokens = given["step_tokens"] or _STEP_TOKENS
    budget = given["kv_budget_tokens"] or defaults["kv_budget_tokens"]
    paged = given["scheduler"] != "embedded"
    room = _kv_room(role, spec, hardware, tp, share)
    if room is not None and paged:
        room = _BLOCK * kv_blocks(
            spec, hardware, block_tokens=_BLOCK, share=share, step_tokens=step_tokens, max_rows=rows, tp=tp
        )
    if room is not None and budget is not None and budget > room:
        over = (budget - room) * spec.kv_bytes_per_token / _GIB
        raise InputError(
            f"kv_budget_tokens = {budget} of engines.{role} takes {over:.1f} GiB more than {spec.name} leaves on "
            f"{tp} x {hardware.name}; {room} tokens fit"
        )
    if room is not None and budget is None and not paged:
        budget = max(1, room - step_tokens - rows)  # kept to between steps: a step may add so much before
    power = given["power_w"] or (None if hardware.power_w is None else hardware.power_w.value)
    return Device(
        _spec(role, rows, step_tokens, budget, paged=paged, room=room),
        steps,
        tp,
        room,
        given["usd_per_hour"],
        power,
        f"{role}: {spec.name} on {tp} x {hardware.name}, {dtype}{', batched as vLLM does' if paged else ''} "
        f"({_kinds(steps)})",
        hardware.name,
        None if hardware.memory_bytes is None else share,
    )


def check_one_device(devices: Mapping[str, Device]) -> None:
    """Raises InputError where two engines cannot share a device: they ask for others, or for more memory than all."""
    one, other = devices.values()
    if (one.on, one.devices) != (other.on, other.devices):
        raise InputError(
            f"engines.one_device: {' and '.join(devices)} run on {one.devices} x {one.on} and {other.devices} x "
            f"{other.on}; give both the same hardware and tp"
        )
    if one.costs is not None or other.costs is not None:
        raise InputError("engines.one_device: with engines.costs the engines step beside one another; leave one out")
    shares = one.memory_share, other.memory_share
    if None not in shares and sum(share or 0.0 for share in shares) > 1:
        raise InputError(
            f"engines.one_device: shares of the memory of {shares[0]:g} and {shares[1]:g} exceed 1; lower "
            + " or ".join(f"engines.{role}.memory_share" for role in devices)
        )


def _spec(role: str, rows: int, step_tokens: int, budget: int | None, *, paged: bool, room: int | None) -> EngineSpec:
    """Of a paged engine the budget bounds all KV, and `room` does where there is none."""
    if not paged:
        return EngineSpec(rows, step_tokens, budget)
    if step_tokens < rows:
        raise InputError(
            f"engines.{role}: a step of {step_tokens} tokens has no room for {rows} rows; raise step_tokens, or lower "
            "max_rows"
        )
    tokens = room if budget is None else budget
    return EngineSpec(rows, step_tokens, paged=Paged(_BLOCK, None if tokens is None else max(1, tokens // _BLOCK)))


def _kv_room(role: str, spec: ModelSpec, hardware: HardwareProfile, tp: int, share: float) -> int | None:
    """Tokens of KV that fit beside the weights on `tp` devices; InputError where the weights do not fit."""
    if hardware.memory_bytes is None:
        return None
    weights, memory = spec.parameters * spec.bytes_per_weight, tp * hardware.memory_bytes.value * share
    if weights >= memory:
        needed = int(weights // (hardware.memory_bytes.value * share)) + 1
        raise InputError(
            f"engines.{role}: the weights of {spec.name} ({weights / _GIB:.1f} GiB) exceed {share:.0%} of {tp} x "
            f"{hardware.name} by {(weights - memory) / _GIB:.1f} GiB; tp = {needed} holds them"
        )
    return int((memory - weights) // spec.kv_bytes_per_token)


def _kinds(steps: StepModel) -> str:
    counts = Counter(number.kind for number in steps.provenance.values())
    return ", ".join(kind for kind, _ in sorted(counts.items()))


# -- profiles by name or file


def engine_profile(name: str) -> EngineProfile:
    """A shipped engine profile by its name, or one from a file."""
    return _found("engine profile", name, _engine_profiles(), EngineProfile.from_toml)


def hardware_profile(name: str) -> HardwareProfile:
    """A shipped hardware profile by its name, or one from a file."""
    return _found("hardware profile", name, _hardware_profiles(), HardwareProfile.from_toml)


def model_spec(name: str) -> ModelSpec:
    """A shipped model by the name of its file or of the model, one from a file, or of a folder's config.json."""
    read: Callable[[Path], ModelSpec] = ModelSpec.from_toml
    return _found("model", name, _models(), lambda path: ModelSpec.from_config(path) if path.is_dir() else read(path))


# Many points have engines of their own, made of the same profiles: the shipped ones are read once.


@cache
def _engine_profiles() -> Mapping[str, EngineProfile]:
    return shipped_engines()


@cache
def _hardware_profiles() -> Mapping[str, HardwareProfile]:
    return shipped()


def shipped_name(spec: ModelSpec) -> str | None:
    """What the shipped model of these dimensions is called."""
    return next((known.name for known in _models().values() if replace(known, name=spec.name) == spec), None)


@cache
def _models() -> Mapping[str, ModelSpec]:
    files = {path.stem: path for path in sorted((profiles_folder() / "models").glob("*.toml"))}
    known = {stem: ModelSpec.from_toml(path) for stem, path in files.items()}
    return known | {spec.name: spec for spec in known.values()}


def _found(what: str, name: str, known: Mapping[str, T], read: Callable[[Path], T]) -> T:
    if name in known:
        return known[name]
    path = Path(name)
    if path.exists():
        return read(path)
    near = did_you_mean(name, known)
    files = [entry for entry in known if "/" not in entry]  # models also go by the names that their hubs have
    told = f"{near} There" if near else "there"
    raise InputError(f"no {what} {name!r}; {told} are {', '.join(files)}, or give a file")
