"""Claims about settings: what is refused and why, and what makes two runs the same."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from atts_runtime.config import RunConfig, read_options
from atts_runtime.conformal import SealedBank
from atts_runtime.conformal.store import save_bank
from atts_runtime.control import POLICIES
from atts_runtime.errors import InputError

NAN = float("nan")
ENGINE_ARGS = ("draft_args", "target_args")
SERVERS = tuple(f"{role}_{what}" for role in ("draft", "target") for what in ("url", "name", "key_env"))


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_has_a_default_configuration(policy: str) -> None:
    config = RunConfig(policy=policy)
    assert config.knobs.alpha == config.alpha
    assert config.limits.turns == config.turns


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "nonsense"}, "unknown policy 'nonsense'; choose one of target-only"),
        ({"alpha": 0.0}, "alpha must lie strictly between 0 and 1, got 0.0"),
        ({"alpha": 1.0}, "alpha must lie strictly between 0 and 1, got 1.0"),
        ({"alpha": NAN}, "alpha must lie strictly between 0 and 1, got nan"),
        ({"bank": "b.npz", "policy": "barrier"}, "bank: only gate marginal takes one (async-marginal), not barrier"),
        ({"profiler": "maybe"}, "profiler must be on or off"),
        ({"budget": 9}, "budget must lie between 0 and the 8 chains, got 9"),
        ({"budget": -1}, "budget must lie between 0 and the 8 chains, got -1"),
        ({"chains": 0}, "chains must be at least 1, got 0"),
        ({"questions": 0}, "questions must be at least 1"),
        ({"turns": -1}, "turns must be at least 1"),
        ({"draft_tokens": 0}, "draft_tokens must be at least 1"),
        ({"takeover_tokens": 0}, "takeover_tokens must be at least 1"),
        ({"questions_in_flight": 0}, "questions_in_flight must be at least 1"),
        ({"max_rows": 0}, "max_rows must be at least 1"),
        ({"kv_budget_tokens": 0}, "kv_budget_tokens must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"takeover": "restart"}, "unknown takeover 'restart'; choose one of continue, resample"),
        ({"p_value": "exact"}, "unknown p_value 'exact'; choose one of smoothed, plain"),
        ({"engine": "abacus"}, "unknown engine 'abacus'; choose one of transformers"),
        ({"draft_url": "http://here"}, "draft_url: only engine http takes one"),
        ({"target_key_env": "KEY", "engine": "vllm"}, "target_key_env: only engine http takes one"),
        ({"patience_s": 0.0}, "patience_s must be positive"),
        ({"draft_args": "{}}", "engine": "vllm"}, "draft_args is not JSON"),
        ({"target_args": "[1]", "engine": "vllm"}, "target_args must be a JSON object, got [1]"),
        ({"target_args": '{"block_size": 16}'}, "target_args: only engine vllm takes any, not transformers"),
        ({"temperature": -0.1}, "temperature must be finite and not negative"),
        ({"temperature": NAN}, "temperature must be finite and not negative"),
        ({"temperature": float("inf")}, "temperature must be finite and not negative"),
        ({"call_timeout_s": 0.0}, "call_timeout_s must be positive"),
        ({"call_timeout_s": NAN}, "call_timeout_s must be positive"),
        ({"seed": -1}, "seed and retries must not be negative"),
        ({"retries": -1}, "seed and retries must not be negative"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        RunConfig(**settings)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": 1}, "unknown setting 'colour'; known are task, questions"),
        ({"chains": "8"}, "chains must be int, got '8'"),
        ({"chains": 8.0}, "chains must be int, got 8.0"),
        ({"chains": True}, "chains must be int, got True"),
        ({"alpha": "0.4"}, "alpha must be float, got '0.4'"),
        ({"alpha": True}, "alpha must be float, got True"),
        ({"policy": ["barrier"]}, "policy must be str, got ['barrier']"),
        ({"budget": 0.5}, "budget must be int | None, got 0.5"),
        ({"chains": None}, "chains must be int, got None"),
        ({"seed": 2**63}, "seed must fit into 64 bits, got 9223372036854775808"),
        ({"alpha": 10**400}, "alpha must fit into 64 bits"),
    ],
)
def test_an_unknown_name_or_a_wrong_type_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        RunConfig().with_options(options)
    assert str(raised.value).startswith(message)


def test_an_integer_serves_as_a_float_and_fingerprints_like_one() -> None:
    integer = RunConfig().with_options({"temperature": 1, "call_timeout_s": 60})
    assert type(integer.temperature) is float
    assert integer.fingerprint("task") == RunConfig(temperature=1.0).fingerprint("task")


@pytest.mark.parametrize("name", SERVERS)
def test_where_a_server_is_shapes_nothing(name: str) -> None:
    assert RunConfig(engine="http", **{name: "x"}).fingerprint("task") == RunConfig(engine="http").fingerprint("task")


@pytest.mark.parametrize(
    "name", [f.name for f in fields(RunConfig) if f.name not in ("engine", "bank", *ENGINE_ARGS, *SERVERS)]
)
def test_the_fingerprint_changes_with_every_setting_that_shapes_results(name: str) -> None:
    changes: dict[str, Any] = {
        "policy": "barrier",
        "takeover": "continue",
        "p_value": "plain",
        "alpha": 0.3,
        "temperature": 0.0,
        "call_timeout_s": 1.5,
        "profiler": "off",
        "gate": "conditional",
        "action": "redraft",
        "schedule": "barrier",
        "early_stop": "majority",
        "vote": "best",
        "beta_level": 0.9,
        "token_budget": 500,
        "cues": "hm",
        **dict.fromkeys(("task", "system_prompt", "draft", "target", "device", "hardware", "out"), "other"),
    }
    changed = RunConfig().with_options({name: changes.get(name, 5)})
    free = ("out", "max_rows", "device", "threads", "call_timeout_s", "retries", "profiler", "hardware", "patience_s")
    shapes = name not in free
    assert (changed.fingerprint("task") != RunConfig().fingerprint("task")) == shapes


@pytest.mark.parametrize("name", ENGINE_ARGS)
def test_engine_arguments_shape_results_unless_they_say_where_and_how_fast(name: str) -> None:
    plain = RunConfig(engine="vllm").fingerprint("task")
    placed = {"gpu_memory_utilization": 0.3, "tensor_parallel_size": 2, "block_size": 16}
    assert RunConfig(engine="vllm").with_options({name: placed}).fingerprint("task") == plain
    quantized = RunConfig(engine="vllm").with_options({name: {"quantization": "fp8", **placed}})
    assert quantized.fingerprint("task") != plain
    assert quantized.fingerprint("task") == RunConfig(engine="vllm", **{name: '{"quantization": "fp8"}'}).fingerprint(
        "task"
    )


def test_engine_arguments_may_be_a_table_and_are_written_as_json(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('engine = "vllm"\n[target_args]\nquantization = "fp8"\ntensor_parallel_size = 2\n')
    config = RunConfig().with_options(read_options(path))
    assert config.engine_args("target") == {"quantization": "fp8", "tensor_parallel_size": 2}
    path.write_text(config.to_toml())
    assert RunConfig().with_options(read_options(path)) == config


def test_engine_arguments_that_json_cannot_say_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('engine = "vllm"\n[target_args]\nsince = 2026-01-01\n')
    with pytest.raises(InputError, match=r"^target_args: .*date is not JSON serializable; write it as text"):
        RunConfig().with_options(read_options(path))


def test_the_fingerprint_changes_with_the_task_s() -> None:
    assert RunConfig().fingerprint("one") != RunConfig().fingerprint("other")


def test_smoothed_p_values_draw_their_ties_from_the_seed() -> None:
    assert RunConfig(seed=5).knobs.tie_seed == 5
    assert RunConfig(seed=5, p_value="plain").knobs.tie_seed is None


def test_a_config_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read config .*gone\.toml: No such file"):
        read_options(tmp_path / "gone.toml")
    with pytest.raises(InputError, match="cannot read config"):
        read_options(tmp_path)


@pytest.mark.parametrize("content", [b"chains = ", b"{}", b"alpha: 0.4", b"a = 1\na = 2", b"\xff\xfe\x00"])
def test_a_config_that_is_not_toml_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"config .*study\.toml is not valid TOML"):
        read_options(path)


def test_a_bank_is_known_by_its_scores_and_not_by_its_file(tmp_path: Path) -> None:
    one, same, other = (tmp_path / f"{name}.npz" for name in ("one", "same", "other"))
    for path, scores in ((one, [0.5, 2.0]), (same, [2.0, 0.5]), (other, [0.5, 3.0])):
        save_bank(SealedBank(scores), path)
    configs = [RunConfig(bank=str(path)) for path in (one, same, other)]
    assert configs[0].knobs.bank == (0.5, 2.0)
    prints = [config.fingerprint("task") for config in configs]
    assert prints[0] == prints[1]
    assert len({*prints, RunConfig().fingerprint("task")}) == 3


@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot read bank"), (b"no bank", "is not a bank"), ("empty", "holds no scores")]
)
def test_a_bank_that_cannot_serve_is_named(tmp_path: Path, content: bytes | str | None, says: str) -> None:
    path = tmp_path / "bank.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_bank(SealedBank(), path)
    with pytest.raises(InputError, match=says):
        RunConfig(bank=str(path)).knobs  # noqa: B018
