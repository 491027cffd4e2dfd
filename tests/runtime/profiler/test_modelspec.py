"""A model's dimensions come from its config or its profile, give its parameters, and are refused where they lack."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import MixtralConfig

from atts_runtime.errors import InputError
from atts_runtime.profiler import Experts, ModelSpec
from atts_runtime.profiler.published import FAMILIES
from tests.runtime.profiler.models import DENSE, MIXTURES, built, configs

PROFILES = Path(__file__).parents[3] / "profiles" / "models"
BUNDLED = Path(__file__).parents[3] / "atts_runtime" / "models"

# Totals by the safetensors metadata of each model's hub page.
PUBLISHED = {
    "qwen2.5-7b-instruct": 7_615_616_512,
    "qwq-32b": 32_763_876_352,
    "deepseek-r1-distill-qwen-1.5b": 1_777_088_000,
    "deepseek-r1-distill-llama-8b": 8_030_261_248,
    "deepseek-r1-distill-llama-70b": 70_553_706_496,
    "llama-3.1-8b-instruct": 8_030_261_248,
    "s1.1-32b": 32_763_876_352,
    "skywork-or1-32b": 32_763_876_352,
}

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 12,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 20,
    "vocab_size": 30,
    "torch_dtype": "bfloat16",
}
QWEN3_30B_A3B = {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 48,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@pytest.mark.parametrize("make", sorted(DENSE | MIXTURES))
@given(st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_parameters_are_those_of_the_transformers_model(make: str, data: st.DataObject) -> None:
    config = data.draw(configs({make: (DENSE | MIXTURES)[make]}))
    model, spec = built(config)
    assert spec.parameters == sum(p.numel() for p in model.parameters())
    assert spec.embedding_parameters == model.get_input_embeddings().weight.numel()
    head = 0 if config.tie_word_embeddings else model.lm_head.weight.numel()
    assert spec.head_parameters == head


def test_every_known_make_is_drawn() -> None:
    assert {*DENSE, *MIXTURES} == set(FAMILIES)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_profiles_give_the_published_parameters(name: str) -> None:
    assert ModelSpec.from_toml(PROFILES / f"{name}.toml").parameters == PUBLISHED[name]


def test_every_profile_is_of_a_known_model_or_bundled() -> None:
    assert {p.stem for p in PROFILES.glob("*.toml")} == {*PUBLISHED, "bundled-draft", "bundled-target"}


@pytest.mark.parametrize("role", ["draft", "target"])
def test_the_bundled_profiles_are_the_bundled_models(role: str) -> None:
    from safetensors.torch import load_file

    profile = ModelSpec.from_toml(PROFILES / f"bundled-{role}.toml")
    config = ModelSpec.from_config(BUNDLED / role, bytes_per_weight=4, bytes_per_kv_element=4)
    assert replace(profile, name=config.name) == config
    weights = load_file(BUNDLED / role / "model.safetensors")
    assert profile.parameters == sum(w.numel() for w in weights.values())
    assert ModelSpec.from_config(BUNDLED / role).bytes_per_weight == 2  # as published, float16


def test_mixtures_have_their_published_parameters_total_and_active() -> None:
    qwen = ModelSpec.from_config(QWEN3_30B_A3B)
    assert round(qwen.parameters / 1e9, 1) == 30.5
    assert round(qwen.active_parameters / 1e9, 1) == 3.4  # its card says 3.3
    mixtral = ModelSpec.from_config(MixtralConfig(dtype="bfloat16"))
    assert round(mixtral.parameters / 1e9, 1) == 46.7
    assert round(mixtral.active_parameters / 1e9, 1) == 12.9


def test_a_config_is_read_from_a_mapping_a_file_a_folder_and_an_object(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    spec = ModelSpec.from_config(LLAMA)
    for other in (tmp_path, str(tmp_path), tmp_path / "config.json"):
        assert replace(ModelSpec.from_config(other), name=spec.name) == spec
    made = DENSE["llama"](**{k: v for k, v in LLAMA.items() if k not in ("model_type", "torch_dtype")})
    made.dtype = torch.bfloat16
    assert replace(ModelSpec.from_config(made), name=spec.name) == spec


def test_what_a_config_leaves_out_is_what_the_architecture_says() -> None:
    old = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
    spec = ModelSpec.from_config(old)
    assert (spec.kv_heads, spec.head_dim, spec.tied, spec.qkv_bias, spec.experts) == (4, 3, False, False, None)
    assert ModelSpec.from_config(LLAMA | {"model_type": "qwen2"}).qkv_bias
    shared = {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 5}
    assert ModelSpec.from_config(QWEN3_30B_A3B | shared).qkv_bias
    windowless = LLAMA | {"model_type": "qwen2", "sliding_window": 8}
    assert ModelSpec.from_config(windowless).layers == 2


def test_an_mlp_without_a_gate_has_two_matrices() -> None:
    spec = ModelSpec.from_config(LLAMA)
    gateless = replace(spec, gated_mlp=False)
    gates = spec.layers * 12 * 20
    assert spec.parameters - gateless.parameters == gates
    assert spec.multiplied_elements - gateless.multiplied_elements == gates


def test_a_shared_expert_and_its_gate_serve_every_token() -> None:
    mixture = ModelSpec.from_config(QWEN3_30B_A3B)
    assert mixture.experts is not None
    sharing = replace(mixture, experts=replace(mixture.experts, shared_ffn=5))
    more = 48 * (3 * 2048 * 5 + 2048)
    for total in ("parameters", "active_parameters", "common_parameters", "multiplied_elements"):
        assert getattr(sharing, total) - getattr(mixture, total) == more


def test_layers_without_experts_are_dense() -> None:
    spec = ModelSpec.from_config(QWEN3_30B_A3B | {"decoder_sparse_step": 2, "mlp_only_layers": [1, 2]})
    assert spec.experts is not None
    assert (spec.experts.layers, spec.dense_layers, spec.ffn) == (23, 25, 6144)
    dense = ModelSpec.from_config(QWEN3_30B_A3B | {"num_experts": 0})
    assert dense.experts is None
    assert dense.dense_layers == 48
    assert ModelSpec.from_config(QWEN3_30B_A3B | {"mlp_only_layers": list(range(48))}).experts is None


def test_kv_bytes_are_two_vectors_a_layer_and_key_head() -> None:
    spec = ModelSpec.from_config(LLAMA)
    assert spec.kv_bytes_per_token == 2 * 2 * 2 * 3 * 2
    assert replace(spec, bytes_per_kv_element=1).kv_bytes_per_token == spec.kv_bytes_per_token / 2


@pytest.mark.parametrize("field", sorted(LLAMA.keys() - {"num_key_value_heads", "torch_dtype"}))
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(InputError, match=f"'{field}' is missing"):
        ModelSpec.from_config({k: v for k, v in LLAMA.items() if k != field})


MOE_FIELDS = ["num_experts", "num_experts_per_tok", "moe_intermediate_size"]


@pytest.mark.parametrize("field", MOE_FIELDS)
def test_a_missing_field_of_a_mixture_is_named(field: str) -> None:
    with pytest.raises(InputError, match=f"'{field}' is missing"):
        ModelSpec.from_config({k: v for k, v in QWEN3_30B_A3B.items() if k != field})


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown architecture": ({"model_type": "mamba"}, "model_type 'mamba' is not known; give a config of type llama"),
    "a list for a type": ({"model_type": ["llama"]}, "model_type"),
    "null": ({"hidden_size": None}, "'hidden_size' is missing"),
    "zero": ({"vocab_size": 0}, "'vocab_size' must be a whole number above 0, got 0"),
    "a fraction": ({"num_hidden_layers": 2.5}, "'num_hidden_layers' must be a whole number"),
    "true": ({"num_hidden_layers": True}, "'num_hidden_layers' must be a whole number"),
    "text": ({"intermediate_size": "20"}, "'intermediate_size' must be a whole number"),
    "heads that do not divide": ({"hidden_size": 13}, "'head_dim' is missing"),
    "kv heads that do not divide": ({"num_key_value_heads": 3}, "heads .4. must be a multiple of kv_heads .3."),
    "a flag that is none": ({"tie_word_embeddings": "no"}, "'tie_word_embeddings' must be true or false"),
    "own kv heads unknown": ({"model_type": "mistral", "num_key_value_heads": None}, "'num_key_value_heads'"),
    "head_dim unknown": ({"model_type": "qwen3"}, "'head_dim' is missing"),
    "a window": ({"model_type": "mistral", "sliding_window": 8}, "'sliding_window' asks for other than full"),
    "windowed layers": ({"layer_types": ["full_attention", "sliding_attention"]}, "'layer_types' asks"),
    "a kind for a list of them": ({"layer_types": 1}, "'layer_types' must be a list of str, got 1"),
    "text for a window": ({"sliding_window": "9", "max_position_embeddings": 9}, "'sliding_window' must be a whole"),
    "text for the longest": (
        {"sliding_window": 8, "max_position_embeddings": "9"},
        "'max_position_embeddings' must be",
    ),
    "a number that is no model's": ({"num_hidden_layers": 10**400}, "'num_hidden_layers' must be at most 2147483647"),
    "no dtype": ({"torch_dtype": None}, "'dtype' is missing; add it, or give bytes_per_weight"),
    "an odd dtype": ({"torch_dtype": "int3"}, "'dtype' is 'int3'"),
    "quantised": ({"quantization_config": {"quant_method": "awq"}}, "'quantization_config' leaves"),
}


@pytest.mark.parametrize("change", sorted(BAD))
def test_bad_configs_are_refused_in_one_line_that_names_the_field(change: str) -> None:
    fields, message = BAD[change]
    with pytest.raises(InputError, match=message) as caught:
        ModelSpec.from_config(LLAMA | fields)
    assert "\n" not in str(caught.value)


def test_windows_that_no_context_reaches_or_nobody_uses_are_full_attention() -> None:
    whole = LLAMA | {"sliding_window": 4096, "max_position_embeddings": 4096, "model_type": "mistral"}
    assert ModelSpec.from_config(whole).layers == 2
    unused = LLAMA | {"sliding_window": 8, "use_sliding_window": False, "model_type": "qwen2"}
    assert ModelSpec.from_config(unused).layers == 2


def test_bytes_that_are_given_win_over_the_dtype() -> None:
    quantised = LLAMA | {"quantization_config": {"bits": 4}}
    spec = ModelSpec.from_config(quantised, bytes_per_weight=0.5)
    assert (spec.bytes_per_weight, spec.bytes_per_kv_element) == (0.5, 2)


def test_dense_layers_are_a_list_and_layers_are_counted_without_going_through_them() -> None:
    with pytest.raises(InputError, match="'mlp_only_layers' must be a list of int, got 3"):
        ModelSpec.from_config(QWEN3_30B_A3B | {"mlp_only_layers": 3})
    many = {"num_hidden_layers": 2**31 - 1, "decoder_sparse_step": 2, "mlp_only_layers": [1, 2, -1, 2**31]}
    spec = ModelSpec.from_config(QWEN3_30B_A3B | many)
    assert spec.experts is not None
    assert spec.experts.layers == 2**30 - 2


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), pytest.param(10**400, id="huge"), True, "2"])
def test_bytes_are_positive_numbers(value: Any) -> None:
    with pytest.raises(InputError, match="bytes_per_weight must be positive"):
        ModelSpec.from_config(LLAMA, bytes_per_weight=value)


def test_experts_are_checked() -> None:
    with pytest.raises(InputError, match="3 of 2 experts"):
        Experts(layers=1, experts=2, per_token=3, ffn=4)
    with pytest.raises(InputError, match="3 mixture layers exceed its 2 layers"):
        replace(ModelSpec.from_config(LLAMA), experts=Experts(layers=3, experts=2, per_token=1, ffn=4))
    with pytest.raises(InputError, match="ffn must be a whole number"):
        replace(ModelSpec.from_config(LLAMA), ffn=None)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not JSON"), ("[" * 100_000, "is not JSON"), ("[]", "must hold")]
)
def test_files_that_are_no_config_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        ModelSpec.from_config(path)


def test_a_path_that_is_not_there_is_said() -> None:
    with pytest.raises(InputError, match=r"nowhere.*cannot be read"):
        ModelSpec.from_config("nowhere")
    with pytest.raises(InputError, match=r"nowhere.*cannot be read"):
        ModelSpec.from_toml("nowhere")


Rewrite = Callable[[str], str]
DAMAGE: dict[str, tuple[Rewrite, str]] = {
    "not TOML": (lambda t: t + "=", "is not TOML"),
    "nested too deep": (lambda t: "note = " + "[" * 100_000, "is not TOML"),
    "a number that is no model's": (
        lambda t: t.replace("value = 28,", f"value = {10**400},"),
        "layers must be at most",
    ),
    "no name": (lambda t: t.replace('name = "', 'note = "', 1), "'name' is missing"),
    "a typing error in a number": (lambda t: t.replace("3584", "3585"), r"heads|totals.parameters is 7615616512"),
    "another total": (lambda t: t.replace("57344", "57345"), "totals.kv_bytes_per_token is 57345"),
    "no source": (lambda t: t.replace("config: vocab_size", " "), "spec.vocab has no source"),
    "no kind": (lambda t: t.replace('kind = "datasheet", source = "config: vocab', 'source = "'), "spec.vocab must be"),
    "an odd kind": (lambda t: t.replace('"analytic"', '"guessed"'), "kind 'guessed'; choose one of datasheet"),
    "another unit": (lambda t: t.replace('"layers"', '"blocks"'), "spec.layers has unit 'blocks'"),
    "a bare number": (lambda t: t.replace("[totals]", "gated_mlp = true\n[totals]"), "spec.gated_mlp must be a table"),
    "an unknown number": (lambda t: t.replace("vocab ", "vocabulary "), "unknown entry spec.vocabulary"),
    "an unknown section": (lambda t: t + "\n[extra]\n", "unknown entry 'extra'"),
    "a flag for a number": (lambda t: t.replace("value = 28,", "value = true,"), "spec.layers must be a number"),
    "a number for a flag": (lambda t: t.replace("value = true", "value = 1"), "spec.qkv_bias must be true or false"),
    "no numbers": (lambda t: t.replace("[spec]", "[totals.spec]"), "section .spec. is missing"),
    "a number left out": (lambda t: t.replace("kv_heads  ", "ffn2 "), "unknown entry spec.ffn2"),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_damaged_profiles_are_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    rewrite, message = DAMAGE[damage]
    text = (PROFILES / "qwen2.5-7b-instruct.toml").read_text(encoding="utf-8")
    path = tmp_path / "m.toml"
    path.write_text(rewrite(text), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        ModelSpec.from_toml(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("name", ["layers", "width", "vocab", "tied", "bytes_per_weight"])
def test_a_number_that_a_profile_leaves_out_is_named(name: str, tmp_path: Path) -> None:
    lines = (PROFILES / "qwen2.5-7b-instruct.toml").read_text(encoding="utf-8").splitlines()
    path = tmp_path / "m.toml"
    path.write_text("\n".join(x for x in lines if x.split(" ")[0] != name), encoding="utf-8")
    with pytest.raises(InputError, match=f"spec.{name} is missing"):
        ModelSpec.from_toml(path)


def test_a_profile_can_describe_a_mixture(tmp_path: Path) -> None:
    spec = ModelSpec.from_config(QWEN3_30B_A3B)
    assert spec.experts is not None
    units = {"layers": "layers", "heads": "heads", "kv_heads": "heads", "vocab": "tokens"}
    units |= {
        "bytes_per_weight": "bytes",
        "bytes_per_kv_element": "bytes",
        "experts": "experts",
        "per_token": "experts",
    }

    def lines(fields: dict[str, Any]) -> list[str]:
        known = {name: value for name, value in fields.items() if value is not None}
        return [
            f'{name} = {{ value = {json.dumps(value)}, kind = "datasheet", source = "card"'
            + ("" if isinstance(value, bool) else f', unit = "{units.get(name, "elements")}"')
            + " }"
            for name, value in known.items()
        ]

    fields = asdict(spec)
    name, experts = fields.pop("name"), fields.pop("experts")
    text = [f'name = "{name}"', "[spec]", *lines(fields), "[experts]", *lines(experts)]
    path = tmp_path / "m.toml"
    path.write_text("\n".join(text), encoding="utf-8")
    assert ModelSpec.from_toml(path) == spec


def test_the_counts_load_without_torch() -> None:
    heavy = {"torch", "transformers", "pandas", "pyarrow"}
    probe = f"import sys, atts_runtime.profiler; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
