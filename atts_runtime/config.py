"""The settings of a run: defaults, a TOML file, flags; checked once, fingerprinted for `--resume`."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from atts_runtime.control import POLICIES, Knobs, Limits
from atts_runtime.errors import InputError

BUNDLED = "bundled"
ENGINES = ("transformers", "vllm", "http")
TAKEOVERS = ("continue", "resample")
P_VALUES = ("smoothed", "plain")
SWITCH = ("on", "off")
# Settings that say where and how fast, not what: a resumed run may change them.
_NOT_FINGERPRINTED = frozenset(
    {"out", "max_rows", "device", "threads", "call_timeout_s", "retries", "profiler", "hardware"}
)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that a run depends on. Field names are the flags' names and the TOML file's keys.

    `questions` None: all of the task. `budget` None: alpha decides. `questions_in_flight` None: all.
    `kv_budget_tokens` bounds the KV each engine keeps for idle chains; None: no bound. `hardware` is a profile of the
    device (`profiles/hardware`); None: the one that fits the machine, or a quick measurement.
    """

    task: str = "arithmetic"
    questions: int | None = None
    chains: int = 8
    turns: int = 16
    draft_tokens: int = 48
    takeover_tokens: int = 48
    questions_in_flight: int | None = None
    policy: str = "async-marginal"
    alpha: float = 0.1
    budget: int | None = None
    gamma: float = 0.1
    takeover: str = "resample"
    p_value: str = "smoothed"
    draft: str = BUNDLED
    target: str = BUNDLED
    engine: str = "transformers"
    temperature: float = 0.8
    seed: int = 0
    max_rows: int = 64
    kv_budget_tokens: int | None = None
    device: str | None = None
    threads: int | None = None
    call_timeout_s: float = 600.0
    retries: int = 2
    profiler: str = "on"
    hardware: str | None = None
    out: str | None = None

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise InputError(f"unknown policy {self.policy!r}; choose one of {', '.join(POLICIES)}")
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha must lie strictly between 0 and 1, got {self.alpha}")
        for name in (
            "questions",
            "chains",
            "turns",
            "draft_tokens",
            "takeover_tokens",
            "questions_in_flight",
            "max_rows",
            "kv_budget_tokens",
            "threads",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if self.budget is not None and not 0 <= self.budget <= self.chains:
            raise InputError(f"budget must lie between 0 and the {self.chains} chains, got {self.budget}")
        if self.policy == "async-adaptive" and self.budget in (0, self.chains):
            raise InputError(f"async-adaptive needs a budget between 1 and {self.chains - 1}, got {self.budget}")
        if not (math.isfinite(self.gamma) and self.gamma > 0):
            raise InputError(f"gamma must be positive, got {self.gamma}")
        if self.takeover not in TAKEOVERS:
            raise InputError(f"unknown takeover {self.takeover!r}; choose one of {', '.join(TAKEOVERS)}")
        if self.p_value not in P_VALUES:
            raise InputError(f"unknown p_value {self.p_value!r}; choose one of {', '.join(P_VALUES)}")
        if self.engine not in ENGINES:
            raise InputError(f"unknown engine {self.engine!r}; choose one of {', '.join(ENGINES)}")
        if self.engine != "transformers":
            raise InputError(f"engine {self.engine!r} arrives in a later release; this one has transformers")
        if self.profiler not in SWITCH:
            raise InputError(f"profiler must be {' or '.join(SWITCH)}, got {self.profiler!r}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature must be finite and not negative, got {self.temperature}")
        if not self.call_timeout_s > 0:
            raise InputError(f"call_timeout_s must be positive, got {self.call_timeout_s}")
        if self.seed < 0 or self.retries < 0:
            raise InputError("seed and retries must not be negative")

    @property
    def knobs(self) -> Knobs:
        """What the policy is told."""
        tie_seed = self.seed if self.p_value == "smoothed" else None
        return Knobs(
            alpha=self.alpha,
            budget=self.budget,
            replace=self.takeover == "resample",
            tie_seed=tie_seed,
            gamma=self.gamma,
        )

    @property
    def limits(self) -> Limits:
        """What the controller is told."""
        return Limits(self.turns, self.draft_tokens, self.takeover_tokens, self.questions_in_flight)

    def fingerprint(self, task_fingerprint: str) -> str:
        """SHA-256 over every setting that shapes results, and the task's own fingerprint."""
        shaping = {k: v for k, v in asdict(self).items() if k not in _NOT_FINGERPRINTED}
        text = json.dumps({**shaping, "task_fingerprint": task_fingerprint}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def with_options(self, options: dict[str, Any]) -> RunConfig:
        """A copy with the given settings; raises InputError on unknown names and wrong types."""
        known = {f.name: f for f in fields(self)}
        typed = {}
        for name, value in options.items():
            if name not in known:
                raise InputError(f"unknown setting {name!r}; known are {', '.join(known)}")
            typed[name] = _typed(name, str(known[name].type), value)
        return replace(self, **typed)

    def to_toml(self) -> str:
        """The settings as TOML; what is None is left out."""
        import tomli_w

        return tomli_w.dumps({k: v for k, v in asdict(self).items() if v is not None})


def _typed(name: str, annotation: str, value: Any) -> Any:
    """The value as its setting's type: an int serves as a float, and must then fingerprint like one."""
    wanted = annotation.split(" | ")
    actual = "None" if value is None else type(value).__name__
    if actual == "int" and "float" in wanted:
        return float(value)
    if actual not in wanted:
        raise InputError(f"{name} must be {annotation}, got {value!r}")
    return value


def read_options(path: Path) -> dict[str, Any]:
    """Settings from a TOML file; raises InputError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"config {path} is not valid TOML: {error}") from error
