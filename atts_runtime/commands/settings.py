"""The settings of a run as flags: in which groups ``--help`` shows them, and under which names their values."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from atts_runtime.config import P_VALUES, SWITCH, TAKEOVERS, RunConfig

GROUPS: Mapping[str, Sequence[str]] = {
    "what is asked": ("task", "questions", "system_prompt", "seed", "temperature"),
    "scaling": ("chains", "turns", "draft_tokens", "takeover_tokens", "questions_in_flight"),
    "policy": ("policy", "alpha", "budget", "gamma", "takeover", "p_value", "bank", "threshold", "cues"),
    "parts of the policy": (
        "gate", "action", "schedule", "vote", "attempts", "fork_gap", "fork_width", "early_stop", "beta_level",
        "deadline_s", "token_budget",
    ),
    "models and engine": ("draft", "target", "engine", "device", "threads", "max_rows", "kv_budget_tokens"),
    "engine vllm": ("draft_args", "target_args"),
    "engine http": (
        "draft_url", "target_url", "draft_name", "target_name", "draft_key_env", "target_key_env", "patience_s",
    ),
    "failures and measuring": ("call_timeout_s", "retries", "profiler", "hardware"),
    "files": ("out",),
}  # fmt: skip
"""Settings by the heading under which they are shown; one that is named nowhere comes under `OTHERS`."""
OTHERS = "further settings"

_METAVARS = {
    "system_prompt": "TEXT", "draft_tokens": "TOKENS", "takeover_tokens": "TOKENS", "kv_budget_tokens": "TOKENS",
    "bank": "FILE", "draft": "MODEL", "target": "MODEL", "draft_args": "JSON", "target_args": "JSON",
    "draft_url": "URL", "target_url": "URL", "draft_name": "NAME", "target_name": "NAME", "draft_key_env": "VARIABLE",
    "target_key_env": "VARIABLE", "patience_s": "SECONDS", "call_timeout_s": "SECONDS", "profiler": "|".join(SWITCH),
    "deadline_s": "SECONDS", "token_budget": "TOKENS", "threshold": "NATS", "fork_gap": "NATS", "cues": "WORD,...",
    "early_stop": "RULE,...", "takeover": "|".join(TAKEOVERS), "p_value": "|".join(P_VALUES),
    "hardware": "PROFILE", "out": "DIR",
}  # fmt: skip
_TYPES: Mapping[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
_LETTERS = {"int": "N", "float": "X"}


def add_settings(
    command: argparse.ArgumentParser, about: Mapping[str, str], skip: Sequence[str] = ()
) -> dict[str, Any]:
    """Add a flag a field of RunConfig, but for those in `skip`, with its default; returns the groups by heading.

    `about` says of each what it is. Nothing is put into the namespace for a flag that was not given.
    """
    grouped = {name for names in GROUPS.values() for name in names}
    of_all = {field.name: field for field in fields(RunConfig)}
    headings = {**GROUPS, OTHERS: [name for name in of_all if name not in grouped]}
    groups = {}
    for heading, names in headings.items():
        shown = [of_all[name] for name in names if name not in skip]
        if not shown:
            continue
        groups[heading] = group = command.add_argument_group(heading)
        for field in shown:
            kind = str(field.type).split(" | ")[0]
            default = "" if field.default is None else f" (default: {field.default})"
            group.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=_TYPES[kind],
                default=argparse.SUPPRESS,
                metavar=_METAVARS.get(field.name, _LETTERS.get(kind, field.name.upper())),
                help=about[field.name] + default,
            )
    return groups
