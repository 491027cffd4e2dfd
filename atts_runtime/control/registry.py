"""Parts and policies by name: what runtime, simulator and command line choose from.

A user's own gate joins them by `register_gate`, in a Python file that ``--plugin`` or the environment variable
``ATTS_PLUGINS`` names (several: separated as in PATH). A settings file cannot name one: reading it runs no code.
"""

from __future__ import annotations

import hashlib
import os
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from atts_runtime.control.actions import Action, Continue, Fork, Redraft, Resample
from atts_runtime.control.gates import Gate
from atts_runtime.control.gates.adaptive import AdaptiveGate
from atts_runtime.control.gates.budget import Budget
from atts_runtime.control.gates.plain import Cue, Open, Shut, Threshold
from atts_runtime.control.gates.presampled import Conditional, Marginal
from atts_runtime.control.gates.worst import Worst
from atts_runtime.control.policies import Recipe, check_parts
from atts_runtime.control.schedules import Barrier, Schedule
from atts_runtime.control.stops import Beta, Majority, Stop
from atts_runtime.control.votes import Best, Confidence, Vote
from atts_runtime.errors import InputError

PLUGINS = "ATTS_PLUGINS"

GATES: dict[str, type[Gate]] = {
    g.name: g for g in (Open, Shut, Worst, Marginal, Conditional, AdaptiveGate, Budget, Threshold, Cue)
}
ACTIONS: dict[str, type[Action]] = {a.name: a for a in (Continue, Resample, Redraft, Fork)}
SCHEDULES: dict[str, type[Schedule]] = {s.name: s for s in (Schedule, Barrier)}
STOPS: dict[str, type[Stop]] = {s.name: s for s in (Majority, Beta)}
VOTES: dict[str, type[Vote]] = {v.name: v for v in (Vote, Confidence, Best)}
PARTS: Mapping[str, Mapping[str, Any]] = {
    "gate": GATES,
    "action": ACTIONS,
    "schedule": SCHEDULES,
    "early_stop": STOPS,
    "vote": VOTES,
}
"""All of them, by the setting that names one."""

POLICIES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("target-only", "the target writes everything: the reference", Shut, Resample),
        Recipe("draft-only", "the draft writes everything, unguarded", Open, Resample),
        Recipe("barrier", "score, rank, take over the worst B of a turn; all wait", Worst, Resample, Barrier),
        Recipe("async-marginal", "conformal takeover, one bank for all questions", Marginal, Resample),
        Recipe("async-conditional", "conformal takeover, a bank a question", Conditional, Resample),
        Recipe("async-adaptive", "conformal takeover that keeps its rate", AdaptiveGate, Resample),
        Recipe("budget", "conformal takeover of B a turn, bounded in flight", Budget, Resample),
        Recipe("self", "one model drafts, scores itself and writes on", Marginal, Continue, one_model=True),
        Recipe("self-reject", "one model drafts again what it rejects", Marginal, Redraft, one_model=True),
        Recipe("fork", "draft again, then go on from a copy of the best peer", Marginal, Fork),
        Recipe("threshold", "take over above a fixed score", Threshold, Resample),
        Recipe("speculative-thinking", "take over where the draft reflects", Cue, Continue),
        Recipe("best-of-n", "drafts; the target scores whole chains and picks", Open, Resample, vote=Best),
    )
}

_Part = TypeVar("_Part")


def register_gate(gate: type[Gate]) -> type[Gate]:
    """Let settings name the gate. A decorator; raises ValueError where the name is taken by another one."""
    known = GATES.get(gate.name)
    if known is not None and known.__qualname__ != gate.__qualname__:
        raise ValueError(f"a gate named {gate.name!r} exists; choose another name")
    GATES[gate.name] = gate
    return gate


def load_plugins(paths: Sequence[str] = ()) -> None:
    """Run the Python files given and those of `ATTS_PLUGINS`, and leave them there for processes that this one starts.

    Raises InputError where one cannot be run.
    """
    named = list(dict.fromkeys([*_plugins(), *(str(Path(path).resolve()) for path in paths)]))
    for path in named:
        try:
            runpy.run_path(path)
        except OSError as error:
            raise InputError(f"cannot read plugin {path}: {error.strerror or error}") from error
        except Exception as error:
            raise InputError(f"plugin {path} failed: {type(error).__name__}: {error}") from error
    if named:
        os.environ[PLUGINS] = os.pathsep.join(named)


def plugins_digest() -> str:
    """SHA-256 of the files of `ATTS_PLUGINS`, in their order. Raises InputError where one cannot be read."""
    total = hashlib.sha256()
    for path in _plugins():
        try:
            total.update(hashlib.sha256(Path(path).read_bytes()).digest())
        except OSError as error:
            raise InputError(f"cannot read plugin {path}: {error.strerror}") from error
    return total.hexdigest()


def _plugins() -> list[str]:
    return [path for path in os.environ.get(PLUGINS, "").split(os.pathsep) if path]


def recipe(
    policy: str,
    *,
    gate: str | None = None,
    action: str | None = None,
    schedule: str | None = None,
    early_stop: str | None = None,
    vote: str | None = None,
) -> Recipe:
    """The policy by name, with parts of it replaced; `early_stop` names rules, separated by commas. Raises InputError
    where a name is unknown or the parts contradict each other."""
    made = _named("policy", policy, POLICIES)
    if gate is not None and gate not in GATES:
        load_plugins()  # in a process that another one started
    if gate is not None:
        made = replace(made, gate=_named("gate", gate, GATES))
    if action is not None:
        made = replace(made, action=_named("action", action, ACTIONS))
    if schedule is not None:
        made = replace(made, schedule=_named("schedule", schedule, SCHEDULES))
    if vote is not None:
        made = replace(made, vote=_named("vote", vote, VOTES))
    if early_stop is not None:
        names = [name.strip() for name in early_stop.split(",")]
        made = replace(made, stops=tuple(_named("early stop", name, STOPS) for name in dict.fromkeys(names)))
    try:
        check_parts(made.gate, made.action, made.schedule, made.stops, made.vote)
    except ValueError as error:
        raise InputError(str(error)) from error
    return made


def _named(what: str, name: str, known: dict[str, _Part]) -> _Part:
    if name not in known:
        own = "; --plugin FILE brings in one of your own" if what == "gate" else ""
        raise InputError(f"unknown {what} {name!r}; choose one of {', '.join(known)}{own}")
    return known[name]
