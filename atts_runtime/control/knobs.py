"""What a policy may be told."""

from __future__ import annotations

import math
from dataclasses import dataclass

CUES = ("wait", "alternatively", "hold on", "let me check", "let me verify", "on second thought")
LN_2 = math.log(2)


@dataclass(frozen=True, slots=True)
class Knobs:
    """Settings of all gates, actions and stop rules; each reads its own.

    Gates: `alpha`, the nominal takeover rate; `budget`, chains a turn, which overrides alpha at a barrier and bounds
    the takeovers in flight of a question under `budget` and `adaptive`, as `takeovers_in_flight` does for all questions
    together; `tie_seed` smooths p-values with tie-breakers drawn from it (None: plain p-values, which ties make
    conservative); `gamma`, the step of an adaptive alpha; `bank`, the scores of an earlier calibration, nats per token,
    that `marginal` tests against instead of pre-sampling its own; `threshold`, nats per token, above which the
    gate `threshold` rejects (default: a token has half a chance on average); `cues`, words that the gate `cue` rejects.

    Actions: `attempts` a turn under `redraft` and `fork`; `fork_gap`, nats per token by which a peer's segment must
    score better; `fork_width`, how often one chain may be forked from.

    Stop rules: `deadline_s` from a question's admission; `token_budget` a question; `beta_level`, the probability that
    the leading answer is the majority at which the rule `beta` stops.
    """

    alpha: float
    budget: int | None = None
    tie_seed: int | None = None
    gamma: float = 0.1
    bank: tuple[float, ...] | None = None
    threshold: float = LN_2
    cues: tuple[str, ...] = CUES
    takeovers_in_flight: int | None = None
    attempts: int = 3
    fork_gap: float = 0.0
    fork_width: int = 2
    deadline_s: float | None = None
    token_budget: int | None = None
    beta_level: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie strictly between 0 and 1, got {self.alpha!r}")
        if self.budget is not None and self.budget < 0:
            raise ValueError(f"budget must not be negative, got {self.budget!r}")
        for name in ("gamma", "threshold"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise ValueError(f"{name} must be positive, got {value!r}")
        for name in ("attempts", "fork_width", "takeovers_in_flight", "token_budget"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, got {count!r}")
        if not (math.isfinite(self.fork_gap) and self.fork_gap >= 0):
            raise ValueError(f"fork_gap must not be negative, got {self.fork_gap!r}")
        if self.deadline_s is not None and not (math.isfinite(self.deadline_s) and self.deadline_s > 0):
            raise ValueError(f"deadline_s must be positive, got {self.deadline_s!r}")
        if not 0.5 < self.beta_level < 1:
            raise ValueError(f"beta_level must lie strictly between 0.5 and 1, got {self.beta_level!r}")
        if not self.cues or not all(cue.strip() for cue in self.cues):
            raise ValueError("cues must be words, none of them empty")
