"""How many takeovers the target's KV memory holds at a time."""

from __future__ import annotations

from dataclasses import replace

from atts_runtime.config import RunConfig
from atts_runtime.control import Knobs
from atts_runtime.control.gates.budget import budget_of
from atts_runtime.errors import InputError


def longest_chain(config: RunConfig, prompt_tokens: int) -> int:
    """Tokens that a chain may come to: its prompt, and every turn a whole segment and a whole takeover after it."""
    return prompt_tokens + config.turns * (config.draft_tokens + config.takeover_tokens)


def bounded(config: RunConfig, prompt_tokens: int, capacity_tokens: int | None) -> Knobs:
    """What the gate `budget` is told: no more takeovers at a time than chains of full length fit into the KV memory
    (None: no bound is known). Raises InputError where that is less than the budget."""
    if capacity_tokens is None:
        return config.knobs
    budget, longest = budget_of(config.knobs, config.chains), longest_chain(config, prompt_tokens)
    fit = capacity_tokens // longest
    if fit < budget:
        raise InputError(
            f"a budget of {budget} takeovers needs {budget * longest:,} KV tokens at the target ({longest:,} a chain), "
            f"which has {capacity_tokens:,}: {fit} fit; lower budget, turns or the segments' lengths"
        )
    return replace(config.knobs, takeovers_in_flight=fit)
