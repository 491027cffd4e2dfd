"""Engines of a study: what fits, what is missing, where the numbers come from."""

from __future__ import annotations

import pytest

from atts_runtime.errors import InputError
from atts_sim.calls import Paged
from atts_sim.capacity import kv_blocks
from atts_sim.devices import device, engine_profile, hardware_profile, model_spec
from atts_sim.options import Options

OPEN: dict[str, int | None] = {"max_rows": None, "kv_budget_tokens": None}
QWQ: Options = {"engines.hardware": "nvidia-h100-80gb-sxm", "engines.dtype": "bfloat16", "engines.model": "qwq-32b"}
BUNDLED: Options = {"engines.profile": "bundled-target-amd-epyc-milan"}


def test_what_one_engine_says_goes_over_what_is_said_of_both() -> None:
    found = device("target", {**QWQ, "engines.max_rows": 8, "engines.target.max_rows": 16, "engines.tp": 2}, OPEN)
    assert (found.spec.max_rows, found.devices) == (16, 2)
    assert device("draft", {**QWQ, "engines.max_rows": 8, "engines.target.max_rows": 16}, OPEN).spec.max_rows == 8


def test_kv_has_what_the_weights_leave() -> None:
    spec, hardware = model_spec("qwq-32b"), hardware_profile("nvidia-h100-80gb-sxm")
    assert hardware.memory_bytes is not None
    found = device("target", {**QWQ, "engines.tp": 2, "engines.scheduler": "embedded"}, OPEN)
    left = 0.9 * 2 * hardware.memory_bytes.value - spec.parameters * spec.bytes_per_weight
    assert found.kv_room_tokens == int(left // spec.kv_bytes_per_token)
    # The budget is kept to between steps, and a step adds at most its tokens and one a row.
    assert found.spec.kv_budget_tokens == found.kv_room_tokens - found.spec.step_tokens - found.spec.max_rows


def test_a_paged_engine_has_blocks_beside_weights_and_activations_or_a_budget() -> None:
    found = device("target", {**QWQ, "engines.tp": 2}, OPEN)
    spec, hardware = model_spec("qwq-32b"), hardware_profile("nvidia-h100-80gb-sxm")
    blocks = kv_blocks(spec, hardware, step_tokens=found.spec.step_tokens, max_rows=found.spec.max_rows, tp=2)
    assert found.spec.paged == Paged(16, blocks)
    assert found.kv_room_tokens == 16 * blocks
    less = device("target", {**QWQ, "engines.kv_budget_tokens": 1600}, OPEN).spec
    assert (less.paged, less.kv_budget_tokens) == (Paged(16, 100), None)


def test_a_profile_batches_as_the_engine_that_was_measured() -> None:
    profile = {"engines.profile": "bundled-draft-amd-epyc-milan"}
    assert device("draft", profile, OPEN).spec.paged is None
    assert device("draft", profile | {"engines.scheduler": "vllm"}, OPEN).spec.paged == Paged(16, None)


def test_calls_cost_what_the_profile_of_the_embedded_engine_says_and_elsewhere_nothing() -> None:
    spec = device("target", BUNDLED, OPEN).spec
    profile = engine_profile("bundled-target-amd-epyc-milan")
    assert spec.per_call is not None
    assert spec.per_call.generate == profile.calls("generate")
    assert spec.per_call.score == profile.calls("score")
    assert device("target", BUNDLED | {"engines.scheduler": "vllm"}, OPEN).spec.per_call is None
    assert device("target", QWQ | {"engines.scheduler": "embedded"}, OPEN).spec.per_call is None


def test_weights_that_do_not_fit_say_by_how_much_and_what_holds_them() -> None:
    with pytest.raises(InputError, match=r"\(61\.0 GiB\) exceed 50% of 1 x .* by 23\.8 GiB; tp = 2 holds them"):
        device("target", {**QWQ, "engines.memory_share": 0.5}, OPEN)
    assert device("target", {**QWQ, "engines.memory_share": 0.5, "engines.tp": 2}, OPEN).kv_room_tokens


def test_a_kv_budget_beyond_the_memory_says_what_fits() -> None:
    room = device("target", QWQ, OPEN).kv_room_tokens
    with pytest.raises(InputError, match=f"GiB more than Qwen/QwQ-32B leaves on 1 x .*; {room} tokens fit"):
        device("target", {**QWQ, "engines.kv_budget_tokens": 10**6}, OPEN)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({**QWQ, "engines.step_tokens": 8}, "a step of 8 tokens has no room for 64 rows"),
        ({}, "engines.target.model is missing; give engines.target.profile"),
        ({**QWQ, "engines.model": "qwq"}, "no model 'qwq'; did you mean 'qwq-32b'? There are"),
        ({**QWQ, "engines.hardware": "b300"}, "no hardware profile 'b300'; there are"),
        ({**QWQ, "engines.dtype": "int3"}, "has no peak of int3"),
        ({"engines.profile": "mine"}, "no engine profile 'mine'; there are"),
        ({**BUNDLED, "engines.tp": 2}, "leave out tp, or profile"),
    ],
)
def test_an_error_names_the_option(options: Options, says: str) -> None:
    with pytest.raises(InputError) as raised:
        device("target", options, OPEN)
    assert says in str(raised.value)


def test_an_engine_says_where_its_numbers_come_from() -> None:
    assert "engine profile bundled-target-amd-epyc-milan" in device("target", BUNDLED, OPEN).told
    assert "fitted" in device("target", BUNDLED, OPEN).told
    assert device("target", QWQ, OPEN).told.endswith("(analytic, datasheet)")


def test_power_is_the_data_sheets_and_a_price_only_the_studys() -> None:
    assert (device("target", QWQ, OPEN).power_w, device("target", QWQ, OPEN).usd_per_hour) == (700, None)
    priced = device("target", {**QWQ, "engines.usd_per_hour": 2.5, "engines.power_w": 500.0}, OPEN)
    assert (priced.power_w, priced.usd_per_hour) == (500.0, 2.5)
