"""KV blocks follow from memory, weights and what steps need."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atts_runtime.errors import InputError
from atts_runtime.profiler.hardware import HardwareProfile, profiles_folder
from atts_runtime.profiler.modelspec import ModelSpec
from atts_sim.capacity import activation_bytes, kv_blocks

A100 = HardwareProfile.from_toml(profiles_folder() / "hardware" / "nvidia-a100-80gb-sxm.toml")
QWEN_7B = ModelSpec.from_toml(profiles_folder() / "models" / "qwen2.5-7b-instruct.toml")
QWQ_32B = ModelSpec.from_toml(profiles_folder() / "models" / "qwq-32b.toml")
GIB = 1 << 30


def test_blocks_fill_what_weights_and_steps_leave_of_the_engines_share() -> None:
    assert A100.memory_bytes is not None
    blocks = kv_blocks(QWEN_7B, A100, share=0.9, reserve_bytes=2 * GIB)
    weights = QWEN_7B.parameters * QWEN_7B.bytes_per_weight
    taken = blocks * 16 * QWEN_7B.kv_bytes_per_token + weights + 2 * GIB
    assert taken <= 0.9 * A100.memory_bytes.value < taken + 16 * QWEN_7B.kv_bytes_per_token


def test_more_devices_hold_more() -> None:
    assert kv_blocks(QWQ_32B, A100, tp=2) > 2 * kv_blocks(QWQ_32B, A100)


def test_steps_of_more_tokens_and_rows_leave_less() -> None:
    assert (
        activation_bytes(QWEN_7B, 2048, 64) < activation_bytes(QWEN_7B, 8192, 64) < activation_bytes(QWEN_7B, 8192, 99)
    )
    assert kv_blocks(QWEN_7B, A100, step_tokens=65536) < kv_blocks(QWEN_7B, A100)


def test_weights_that_do_not_fit_are_told_by_how_much() -> None:
    half = replace(A100, memory_bytes=replace(A100.memory_bytes, value=A100.memory_bytes.value / 2))  # type: ignore[type-var,union-attr]
    with pytest.raises(InputError, match=r"QwQ-32B does not fit on 1 x nvidia-a100.* \d+\.\d GiB too much"):
        kv_blocks(QWQ_32B, half)


def test_memory_that_is_not_known_is_not_guessed() -> None:
    with pytest.raises(InputError, match="memory_bytes"):
        kv_blocks(QWEN_7B, replace(A100, memory_bytes=None))


@pytest.mark.parametrize(
    "wrong", [{"share": 0.0}, {"share": 1.5}, {"share": float("nan")}, {"tp": 0}, {"block_tokens": 0}]
)
def test_shares_and_sizes_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must"):
        kv_blocks(QWEN_7B, A100, **wrong)  # type: ignore[arg-type]
