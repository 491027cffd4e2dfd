"""The names that a study may use, and the values that they may have: one table for base values, `--set` and `[sweep]`.

Options are flat: a dotted name and a value. A setting of `atts_runtime.config.RunConfig` goes by its own name or as
`settings.NAME`; `engines.NAME` says something of both engines, `engines.draft.NAME` of one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from atts_runtime.config import RunConfig
from atts_runtime.control.registry import GATES, PARTS, load_plugins
from atts_runtime.errors import InputError
from atts_runtime.profiler.hardware import profiles_folder
from atts_runtime.wholenumbers import LARGEST_EXACT
from atts_sim.arrivals import FORMS, TRACE, arrivals_of
from atts_sim.nearest import did_you_mean

Value: TypeAlias = str | int | float | bool
Options: TypeAlias = Mapping[str, Value]
Kind: TypeAlias = Literal["text", "whole", "positive", "share", "not negative", "flag", "arrivals", "scheduler"]

SCHEDULERS = ("embedded", "vllm")
_SAYS: Mapping[Kind, str] = {
    "text": "text",
    "whole": "a whole number above 0",
    "positive": "a number above 0",
    "share": "a number above 0 and at most 1",
    "not negative": "a number not below 0",
    "flag": "true or false",
    "arrivals": f"text: {FORMS}",
    "scheduler": f"one of {', '.join(SCHEDULERS)}",
}

ROLES = ("draft", "target")
PER_ENGINE: Mapping[str, Kind] = {
    "profile": "text",  # a shipped engine profile's name, or a file
    "model": "text",  # likewise of profiles/models
    "hardware": "text",  # likewise of profiles/hardware
    "dtype": "text",
    "tp": "whole",
    "scheduler": "scheduler",
    "max_rows": "whole",
    "step_tokens": "whole",
    "kv_budget_tokens": "whole",
    "memory_share": "share",
    "usd_per_hour": "not negative",
    "power_w": "positive",
}
_FIXED: dict[str, Kind] = {
    "engines.shared": "flag",
    "engines.one_device": "flag",
    "engines.handling_s": "not negative",
    "engines.costs": "text",  # a file of fitted costs, which correct the engines' profiles
    "workload.kind": "text",
    "workload.path": "text",
    "workload.token_scale": "positive",
    "workload.arrivals": "arrivals",
    "workload.arrivals_per_s": "positive",  # Poisson's
}
KINDS: Mapping[str, Kind] = (
    _FIXED
    | {f"engines.{name}": kind for name, kind in PER_ENGINE.items()}
    | {f"engines.{role}.{name}": kind for role in ROLES for name, kind in PER_ENGINE.items()}
)
ARRIVALS = ("workload.arrivals", "workload.arrivals_per_s")
PROFILES = tuple(
    f"engines.{of}{name}" for of in ("", *(f"{role}." for role in ROLES)) for name in ("profile", "model", "hardware")
)
PATHS = ("workload.path", "workload.arrivals", "engines.costs", "settings.bank", *PROFILES)
"""Options that name files, relative to the study's folder; a profile may be a shipped one's name instead."""

SETTINGS = tuple(field.name for field in fields(RunConfig))
# What a simulation heeds; the others only travel to best.toml, and to sweep over them would say nothing.
HEEDED = (
    "questions",
    "chains",
    "turns",
    "draft_tokens",
    "takeover_tokens",
    "questions_in_flight",
    "policy",
    "gate",
    "action",
    "schedule",
    "early_stop",
    "vote",
    "alpha",
    "budget",
    "gamma",
    "takeover",
    "p_value",
    "bank",
    "threshold",
    "cues",
    "attempts",
    "fork_gap",
    "fork_width",
    "deadline_s",
    "token_budget",
    "beta_level",
    "seed",
    "max_rows",
    "kv_budget_tokens",
)
_LARGE = 1 << 30  # chains of a stand-in, so that a budget is judged by itself


def flat(entries: Mapping[str, Any], prefix: str = "", stop: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """Leaves of nested tables with their dotted names; a table that has one of the entries in `stop` is a leaf."""
    for name, value in entries.items():
        if isinstance(value, Mapping) and not any(key in value for key in stop):
            yield from flat(value, f"{prefix}{name}.", stop)
        else:
            yield f"{prefix}{name}", value


def full_name(where: str, name: str) -> str:
    """The option that a name means; InputError, with the nearest, where there is none."""
    if name in SETTINGS:
        return f"settings.{name}"
    if name in KINDS or name.removeprefix("settings.") in SETTINGS:
        return name
    told = did_you_mean(name, known_names(), "parameters are the settings of a run, workload.NAME and engines.NAME")
    raise InputError(f"{where}: unknown parameter {name!r}; {told}")


def known_names() -> tuple[str, ...]:
    """Every option, settings by their short names and by their long ones."""
    return (*SETTINGS, *(f"settings.{name}" for name in SETTINGS), *KINDS)


def checked(where: str, name: str, value: Any) -> Value:
    """The value of an option, if it can be one at all; whether it goes with others shows when a point is made."""
    if name.startswith("settings."):
        setting = name.removeprefix("settings.")
        if setting in PARTS:
            return _part(where, setting, value)
        stand_in: dict[str, Value] = {} if setting == "chains" else {"chains": _LARGE}
        if setting == "token_budget":
            stand_in |= {"draft_tokens": 1, "takeover_tokens": 1}
        if setting == "bank":
            stand_in["policy"] = "async-marginal"
        try:
            return cast(Value, getattr(RunConfig().with_options({**stand_in, setting: value}), setting))
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    kind = KINDS[name]
    if not _is(kind, value):
        raise InputError(f"{where}: {name} must be {_SAYS[kind]}, got {value!r}")
    if kind == "whole" and value > LARGEST_EXACT:
        raise InputError(f"{where}: {name} must be at most {LARGEST_EXACT}, got {value}")
    if kind == "arrivals" and not value.startswith(TRACE):
        try:
            arrivals_of(value)
        except InputError as error:
            raise InputError(f"{where}: {name}: {error}") from error
    return float(value) if kind in ("positive", "share", "not negative") else cast(Value, value)


def _part(where: str, setting: str, value: Any) -> Value:
    """The name of a policy's part; whether it goes with the others shows when a point is made."""
    if setting == "gate" and isinstance(value, str) and value not in GATES:
        load_plugins()  # in a process of a pool
    names = value.split(",") if setting == "early_stop" and isinstance(value, str) else [value]
    for name in names:
        if not isinstance(name, str) or name.strip() not in PARTS[setting]:
            raise InputError(f"{where}: unknown {setting} {name!r}; choose one of {', '.join(PARTS[setting])}")
    return cast(Value, value)


def _is(kind: Kind, value: Any) -> bool:
    if kind in ("text", "arrivals"):
        return isinstance(value, str) and bool(value.strip())
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "scheduler":
        return value in SCHEDULERS
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return False
    if kind == "whole":
        return isinstance(value, int) and value >= 1
    return value >= 0 if kind == "not negative" else 0 < value <= (1 if kind == "share" else math.inf)


def anchored(name: str, value: Value, folder: Path) -> Value:
    """A value that names a file, relative to a folder, or a fitted workload that is shipped; any other as it is, as
    a profile's name for which the folder has no file."""
    if name not in PATHS:
        return value
    if name in PROFILES:
        path = folder / str(value)
        return str(path) if path.is_file() or (path / "config.json").is_file() else value
    if name == "workload.path" and not (folder / str(value)).exists():
        shipped = profiles_folder() / "workloads" / f"{value}.json"
        return str(shipped if shipped.is_file() else folder / str(value))
    if name != "workload.arrivals":
        return str(folder / str(value))
    return f"{TRACE}{folder / str(value).removeprefix(TRACE)}" if str(value).startswith(TRACE) else value


def is_whole(name: str) -> bool:
    """Whether the option takes whole numbers only."""
    setting = name.removeprefix("settings.")
    if name.startswith("settings."):
        return next(str(field.type) for field in fields(RunConfig) if field.name == setting).startswith("int")
    return KINDS[name] == "whole"


def is_number(name: str) -> bool:
    """Whether the option takes numbers."""
    if name.startswith("settings."):
        setting = name.removeprefix("settings.")
        return next(str(f.type) for f in fields(RunConfig) if f.name == setting).startswith(("int", "float"))
    return KINDS[name] not in ("text", "flag", "arrivals", "scheduler")
