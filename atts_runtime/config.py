"""The settings of a run: defaults, a TOML file, flags; checked once, fingerprinted for `--resume`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from atts_runtime.control import Knobs, Limits, Recipe
from atts_runtime.control.knobs import CUES, LN_2
from atts_runtime.control.registry import recipe as recipe_of
from atts_runtime.errors import InputError
from atts_runtime.settingvalues import scores_of, typed
from atts_runtime.untrusted import json_of, toml_of

BUNDLED = "bundled"
TAKEOVERS = ("continue", "resample")
EMBEDDED = "transformers"
"""The engine in this process; the others are processes of their own."""
ENGINES = (EMBEDDED, "vllm", "http")
P_VALUES = ("smoothed", "plain")
SWITCH = ("on", "off")
ROLES = ("draft", "target")
SERVED_BY = ("url", "name", "key_env")
"""Settings of each role under http, after the role's name."""
POLICY_SETTINGS = (
    "policy", "gate", "action", "schedule", "early_stop", "vote", "alpha", "budget", "gamma", "takeover", "p_value",
    "bank", "threshold", "cues", "attempts", "fork_gap", "fork_width", "deadline_s", "token_budget", "beta_level",
)  # fmt: skip
"""Settings that make a policy."""
MODEL_SETTINGS = (
    "task", "system_prompt", "temperature", "engine", *(f"{role}{what}" for what in ("", "_args") for role in ROLES),
    *(f"{role}_{what}" for role in ROLES for what in SERVED_BY),
)  # fmt: skip
"""Those that say of what, by which models, and where these are."""
LABELLED = ("gate", "action", "schedule", "early_stop", "vote", "deadline_s", "token_budget")
"""Those that a policy's label tells, where they are set."""
# Settings that say where and how fast, not what: a resumed run may change them.
_NOT_FINGERPRINTED = frozenset(
    {"out", "max_rows", "device", "threads", "call_timeout_s", "retries", "profiler", "hardware", "patience_s",
     *(f"{role}_{what}" for role in ROLES for what in SERVED_BY)}
)  # fmt: skip
# Likewise of vLLM's engine arguments.
_PLACING_ARGS = frozenset(
    {"gpu_memory_utilization", "kv_cache_memory_bytes", "num_gpu_blocks_override", "block_size", "cpu_offload_gb",
     "max_model_len", "max_num_batched_tokens", "enable_prefix_caching", "enforce_eager", "compilation_config",
     "device_ids", "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size",
     "distributed_executor_backend"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that a run depends on. Field names are the flags' names and the TOML file's keys.

    `questions` None: all of the task. `system_prompt` None: models get no system message. `questions_in_flight` None:
    all. `budget` None: alpha decides. `gate`, `action`, `schedule`, `early_stop` and `vote` put parts in place of the
    policy's; `takeover` says how the target takes over where it does (None: as the policy has it); the settings of
    parts are told in `control.knobs`. `kv_budget_tokens` bounds the KV each engine keeps for idle chains; None: no
    bound. `bank` is a calibration made before (`atts-sim replay --save-bank`); None: pre-sampled in the run. `hardware`
    is a profile of the device (`profiles/hardware`); None: the one that fits the machine, or a quick measurement.
    `draft_args` and `target_args` are JSON objects of vLLM's engine arguments; in a TOML file they may be tables.

    Of servers: `draft_url` and `target_url` are their addresses (in a TOML file they may be lists), `draft_name` and
    `target_name` the models' names there (None: `draft`, `target`), `draft_key_env` and `target_key_env` environment
    variables that hold their keys; `patience_s` is how long a call waits for one that is down.
    """

    task: str = "arithmetic"
    questions: int | None = None
    system_prompt: str | None = None
    chains: int = 8
    turns: int = 16
    draft_tokens: int = 48
    takeover_tokens: int = 48
    questions_in_flight: int | None = None
    policy: str = "async-marginal"
    gate: str | None = None
    action: str | None = None
    schedule: str | None = None
    early_stop: str | None = None
    vote: str | None = None
    alpha: float = 0.1
    budget: int | None = None
    gamma: float = 0.1
    takeover: str | None = None
    p_value: str = "smoothed"
    bank: str | None = None
    threshold: float = LN_2
    cues: str = ",".join(CUES)
    attempts: int = 3
    fork_gap: float = 0.0
    fork_width: int = 2
    deadline_s: float | None = None
    token_budget: int | None = None
    beta_level: float = 0.95
    draft: str = BUNDLED
    target: str = BUNDLED
    engine: str = EMBEDDED
    draft_args: str | None = None
    target_args: str | None = None
    draft_url: str | None = None
    target_url: str | None = None
    draft_name: str | None = None
    target_name: str | None = None
    draft_key_env: str | None = None
    target_key_env: str | None = None
    patience_s: float = 600.0
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
        if self.takeover not in (*TAKEOVERS, None):
            raise InputError(f"unknown takeover {self.takeover!r}; choose one of {', '.join(TAKEOVERS)}")
        if self.action in TAKEOVERS and self.takeover not in (self.action, None):
            raise InputError(f"action {self.action} and takeover {self.takeover} contradict each other; leave one out")
        recipe = self.recipe
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
        self._check_policy(recipe)
        if self.p_value not in P_VALUES:
            raise InputError(f"unknown p_value {self.p_value!r}; choose one of {', '.join(P_VALUES)}")
        if self.engine not in ENGINES:
            raise InputError(f"unknown engine {self.engine!r}; choose one of {', '.join(ENGINES)}")
        for role in ROLES:
            for name in (f"{role}_{what}" for what in SERVED_BY):
                if getattr(self, name) is not None and self.engine != "http":
                    raise InputError(f"{name}: only engine http takes one, not {self.engine}; leave it out")
            if self.engine_args(role) and self.engine != "vllm":
                raise InputError(f"{role}_args: only engine vllm takes any, not {self.engine}; leave them out")
        if self.profiler not in SWITCH:
            raise InputError(f"profiler must be {' or '.join(SWITCH)}, got {self.profiler!r}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature must be finite and not negative, got {self.temperature}")
        for name in ("call_timeout_s", "patience_s"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        if self.seed < 0 or self.retries < 0:
            raise InputError("seed and retries must not be negative")

    def _check_policy(self, recipe: Recipe) -> None:
        """Raises InputError where settings do not fit the policy's parts."""
        gate, action = recipe.gate.name, recipe.action.name
        if gate in ("adaptive", "budget") and self.budget in (0, self.chains):
            raise InputError(f"{self.policy} needs a budget between 1 and {self.chains - 1}, got {self.budget}")
        if self.chains == 1 and action == "fork":
            raise InputError("action fork copies another chain of the question: it needs at least 2, got chains = 1")
        if self.bank is not None and not recipe.gate.takes_bank:
            raise InputError(f"bank: only gate marginal takes one (async-marginal), not {self.policy}; leave it out")
        if recipe.one_model and self.draft not in (BUNDLED, self.target):
            raise InputError(f"{self.policy} has one model, the target, in both roles; leave draft out")
        smallest = self.draft_tokens if recipe.drafts else self.takeover_tokens
        if self.token_budget is not None and self.token_budget < smallest:
            raise InputError(
                f"token_budget {self.token_budget} is less than one segment may take, {smallest} tokens; raise it"
            )
        try:
            recipe(self._knobs(None))
        except ValueError as error:
            raise InputError(str(error)) from error

    @property
    def recipe(self) -> Recipe:
        """The policy, by its parts; raises InputError where they contradict each other."""
        parts = {"gate": self.gate, "schedule": self.schedule, "early_stop": self.early_stop, "vote": self.vote}
        made = recipe_of(self.policy, action=self.action, **parts)
        if self.takeover in (None, made.action.name) or not made.action.takes_over:
            return made
        return recipe_of(self.policy, action=self.takeover, **parts)

    @property
    def label(self) -> str:
        """The policy's name, and what was put in place of its parts."""
        return label_of({name: getattr(self, name) for name in ("policy", *LABELLED)})

    def engine_args(self, role: str) -> dict[str, Any]:
        """Further arguments of a role's engine; raises InputError where they are no JSON object."""
        text = getattr(self, f"{role}_args")
        try:
            args = json_of(text or "{}")
        except ValueError as error:
            raise InputError(f"{role}_args is not JSON: {error}") from error
        if not isinstance(args, dict):
            raise InputError(f"{role}_args must be a JSON object, got {text}")
        return args

    @property
    def call_deadline_s(self) -> float | None:
        """When the driver gives a call up; None: the engine does, which knows a slow server from one that is down."""
        return None if self.engine == "http" else self.call_timeout_s

    @property
    def knobs(self) -> Knobs:
        """What the policy is told."""
        return self._knobs(None if self.bank is None else scores_of(self.bank))

    def _knobs(self, bank: tuple[float, ...] | None) -> Knobs:
        return Knobs(
            alpha=self.alpha,
            budget=self.budget,
            tie_seed=self.seed if self.p_value == "smoothed" else None,
            gamma=self.gamma,
            bank=bank,
            threshold=self.threshold,
            cues=tuple(cue.strip() for cue in self.cues.split(",")),
            attempts=self.attempts,
            fork_gap=self.fork_gap,
            fork_width=self.fork_width,
            deadline_s=self.deadline_s,
            token_budget=self.token_budget,
            beta_level=self.beta_level,
        )

    @property
    def limits(self) -> Limits:
        """What the controller is told."""
        return Limits(self.turns, self.draft_tokens, self.takeover_tokens, self.questions_in_flight)

    def fingerprint(self, task_fingerprint: str) -> str:
        """SHA-256 over every setting that shapes results, and the task's own fingerprint."""
        shaping = {k: v for k, v in asdict(self).items() if k not in _NOT_FINGERPRINTED}
        for role in ROLES:
            args = {k: v for k, v in self.engine_args(role).items() if k not in _PLACING_ARGS}
            del shaping[f"{role}_args"]
            if args:
                shaping[f"{role}_args"] = args
        if self.bank is not None:
            shaping["bank"] = scores_of(self.bank)  # what is in it, wherever it lies
        text = json.dumps({**shaping, "task_fingerprint": task_fingerprint}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def with_options(self, options: dict[str, Any]) -> RunConfig:
        """A copy with the given settings; raises InputError on unknown names and wrong types."""
        known = {f.name: f for f in fields(self)}
        values = {}
        for name, value in options.items():
            if name not in known:
                raise InputError(f"unknown setting {name!r}; known are {', '.join(known)}")
            values[name] = typed(name, str(known[name].type), value)
        return replace(self, **values)

    def to_toml(self) -> str:
        """The settings as TOML; what is None is left out."""
        import tomli_w

        return tomli_w.dumps({k: v for k, v in asdict(self).items() if v is not None})


def label_of(settings: Mapping[str, Any]) -> str:
    """A policy's name, and what was put in place of its parts."""
    told = [f"{name} {value}" for name in LABELLED if (value := settings.get(name)) is not None]
    return ", ".join([str(settings.get("policy", "unknown policy")), *told])


def read_options(path: Path) -> dict[str, Any]:
    """Settings from a TOML file; raises InputError where it cannot be read."""
    try:
        return toml_of(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read config {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"config {path} is not valid TOML: {error}") from error
