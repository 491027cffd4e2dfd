"""Model dimensions as others state them: Hugging Face configs, and our profiles with unit and source on each number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from atts_runtime.errors import InputError
from atts_runtime.profiler.provenance import load_profile, stated_value, whole
from atts_runtime.untrusted import json_of

__all__ = ["FAMILIES", "fields_of_config", "fields_of_profile"]

_T = TypeVar("_T")

# A config field that decides, and what holds without it; no field: the architecture decides.
_Rule = tuple[str | None, bool]
_NO: _Rule = (None, False)
_ATTENTION_BIAS: _Rule = ("attention_bias", False)


@dataclass(frozen=True, slots=True)
class _Family:
    """What an architecture fixes beyond its config. Names in quotes are config fields."""

    qkv_bias: _Rule = _NO
    out_bias: _Rule = _NO
    mlp_bias: _Rule = _NO
    qk_norm: bool = False
    kv_heads_default: bool = False  # without "num_key_value_heads" each head has its own
    head_dim_default: bool = True  # without "head_dim" it is width / heads
    window_default: bool = True  # "sliding_window" holds without "use_sliding_window"
    experts: str | None = None
    expert_ffn: str | None = None
    shared_ffn: str | None = None


# By "model_type". Read off transformers 5.23, models/*/configuration_*.py and modeling_*.py.
FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(_ATTENTION_BIAS, _ATTENTION_BIAS, ("mlp_bias", False), kv_heads_default=True),
    "mistral": _Family(),
    "mixtral": _Family(experts="num_local_experts", expert_ffn="intermediate_size"),
    "qwen2": _Family((None, True), window_default=False),
    "qwen2_moe": _Family(
        ("qkv_bias", True),
        window_default=False,
        experts="num_experts",
        expert_ffn="moe_intermediate_size",
        shared_ffn="shared_expert_intermediate_size",
    ),
    "qwen3": _Family(_ATTENTION_BIAS, _ATTENTION_BIAS, qk_norm=True, head_dim_default=False, window_default=False),
    "qwen3_moe": _Family(
        _ATTENTION_BIAS,
        _ATTENTION_BIAS,
        qk_norm=True,
        window_default=False,
        experts="num_experts",
        expert_ffn="moe_intermediate_size",
    ),
}

_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

# Units of a profile's numbers; what has none is true or false.
_SPEC_UNITS = {
    "layers": "layers",
    "width": "elements",
    "heads": "heads",
    "kv_heads": "heads",
    "head_dim": "elements",
    "ffn": "elements",
    "vocab": "tokens",
    "bytes_per_weight": "bytes",
    "bytes_per_kv_element": "bytes",
}
_SPEC_FLAGS = ("tied", "gated_mlp", "qkv_bias", "out_bias", "mlp_bias", "qk_norm")
_EXPERT_UNITS = {
    "layers": "layers",
    "experts": "experts",
    "per_token": "experts",
    "ffn": "elements",
    "shared_ffn": "elements",
}
_TOTAL_UNITS = {"parameters": "parameters", "active_parameters": "parameters", "kv_bytes_per_token": "bytes"}
_OPTIONAL = {"ffn", "shared_ffn", "gated_mlp", "qkv_bias", "out_bias", "mlp_bias", "qk_norm"}


@dataclass(frozen=True, slots=True)
class _Config:
    """A config's fields; one that is null counts as missing. `where` names the config in errors."""

    where: str
    fields: Mapping[str, Any]

    def get(self, field: str, default: Any = None) -> Any:
        value = self.fields.get(field)
        return default if value is None else value

    def whole(self, field: str) -> int:
        """A whole number above 0."""
        value = self.get(field)
        if value is None:
            raise InputError(f"{self.where}: field {field!r} is missing; add it to the config")
        return whole(f"{self.where}: field {field!r}", value)

    def items(self, field: str, kind: type[_T]) -> set[_T] | None:
        """What is in a list of one kind; None where it is missing."""
        value = self.get(field)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or any(type(item) is not kind for item in value):
            raise InputError(f"{self.where}: field {field!r} must be a list of {kind.__name__}, got {value!r:.40}")
        return set(value)

    def holds(self, rule: _Rule) -> bool:
        """Whether a rule holds: true or false."""
        field, default = rule
        value = default if field is None else self.get(field, default)
        if not isinstance(value, bool):
            raise InputError(f"{self.where}: field {field!r} must be true or false, got {value!r}")
        return value


def fields_of_config(
    config: Mapping[str, Any] | str | Path | Any, bytes_per_weight: float | None, bytes_per_kv_element: float | None
) -> dict[str, Any]:
    """`ModelSpec`'s fields, those of its experts in a mapping of their own; see `ModelSpec.from_config`."""
    c = _loaded(config)
    kind = c.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        said = "field 'model_type' is missing" if kind is None else f"model_type {kind!r} is not known"
        raise InputError(f"{c.where}: {said}; give a config of type {', '.join(FAMILIES)}")
    _refuse_windows(c, family)
    layers, width, heads = c.whole("num_hidden_layers"), c.whole("hidden_size"), c.whole("num_attention_heads")
    own_kv = family.kv_heads_default and c.get("num_key_value_heads") is None
    if family.head_dim_default and c.get("head_dim") is None:
        if width % heads:
            raise InputError(f"{c.where}: field 'head_dim' is missing and {heads} heads do not divide width {width}")
        head_dim = width // heads
    else:
        head_dim = c.whole("head_dim")
    experts = _experts(c, family, layers)
    dense = experts is None or experts["layers"] < layers
    if bytes_per_weight is None and c.get("quantization_config") is not None:
        raise InputError(f"{c.where}: field 'quantization_config' leaves the weights' size open; give bytes_per_weight")
    return {
        "name": c.where,
        "layers": layers,
        "width": width,
        "heads": heads,
        "kv_heads": heads if own_kv else c.whole("num_key_value_heads"),
        "head_dim": head_dim,
        "ffn": c.whole("intermediate_size") if dense else None,
        "vocab": c.whole("vocab_size"),
        "tied": c.holds(("tie_word_embeddings", False)),
        "bytes_per_weight": _dtype_bytes(c) if bytes_per_weight is None else bytes_per_weight,
        "bytes_per_kv_element": _dtype_bytes(c) if bytes_per_kv_element is None else bytes_per_kv_element,
        "qkv_bias": c.holds(family.qkv_bias),
        "out_bias": c.holds(family.out_bias),
        "mlp_bias": c.holds(family.mlp_bias),
        "qk_norm": family.qk_norm,
        "experts": experts,
    }


def _loaded(config: Mapping[str, Any] | str | Path | Any) -> _Config:
    if isinstance(config, str | Path):
        path = Path(config).expanduser()
        path = path / "config.json" if path.is_dir() else path
        try:
            fields = json_of(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give a config.json or its folder") from error
        except ValueError as error:
            raise InputError(f"{path}: is not JSON ({error}); give a model's config.json") from error
        where = str(path)
    else:
        fields = config.to_dict() if hasattr(config, "to_dict") else config
        where = str(fields.get("_name_or_path") or "config") if isinstance(fields, Mapping) else "config"
    if not isinstance(fields, Mapping):
        raise InputError(f"{where}: must hold a mapping of fields, got {type(fields).__name__}")
    return _Config(where, fields)


def _refuse_windows(c: _Config, family: _Family) -> None:
    """Attention to a window, or in another kind of layer, costs other than the counts say."""
    kinds = c.items("layer_types", str)
    if kinds is not None:
        field, windowed = "layer_types", bool(kinds - {"full_attention"})
    else:
        field, longest = "sliding_window", c.get("max_position_embeddings")
        windowed = c.holds(("use_sliding_window", family.window_default)) and bool(c.get(field))
        if windowed and longest is not None:
            windowed = c.whole(field) < c.whole("max_position_embeddings")
    if windowed:
        raise InputError(f"{c.where}: field {field!r} asks for other than full attention, which is all that is counted")


def _experts(c: _Config, family: _Family, layers: int) -> dict[str, Any] | None:
    """The fields of `Experts`; None for a dense model."""
    if family.experts is None or family.expert_ffn is None:
        return None
    # transformers writes either name, whichever the config class calls its own.
    field = next((f for f in (family.experts, "num_local_experts") if c.get(f) is not None), family.experts)
    if c.get(field) == 0:
        return None
    dense = c.items("mlp_only_layers", int) or set()
    every = 1 if c.get("decoder_sparse_step") is None else c.whole("decoder_sparse_step")
    mixtures = layers // every - sum(0 <= i < layers and (i + 1) % every == 0 for i in dense)
    if not mixtures:
        return None
    return {
        "layers": mixtures,
        "experts": c.whole(field),
        "per_token": c.whole("num_experts_per_tok"),
        "ffn": c.whole(family.expert_ffn),
        "shared_ffn": None if family.shared_ffn is None else c.whole(family.shared_ffn),
    }


def _dtype_bytes(c: _Config) -> int:
    """Bytes of an element in the dtype that the config names, by its new or its old field."""
    dtype = c.get("dtype", c.get("torch_dtype"))
    if dtype is None:
        raise InputError(f"{c.where}: field 'dtype' is missing; add it, or give bytes_per_weight and _kv_element")
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPE_BYTES:
        raise InputError(f"{c.where}: field 'dtype' is {name!r}, not one of {', '.join(_DTYPE_BYTES)}; give the bytes")
    return _DTYPE_BYTES[name]


def fields_of_profile(path: str | Path) -> tuple[dict[str, Any], dict[str, float]]:
    """`ModelSpec`'s fields, and the totals that it must reproduce, of a profile.

    A profile has a `name`, optional `[sources]` (short names of documents) and a `note`, its numbers in `[spec]` and
    `[experts]`, and what follows from them in `[totals]`. Every number is a table `{ value, unit, kind, source }`;
    flags have no unit.
    """
    profile = load_profile(path, "a model profile")
    if extra := sorted(profile.keys() - {"name", "note", "sources", "spec", "experts", "totals"}):
        raise InputError(f"{path}: unknown entry {extra[0]!r}; remove it")
    if not isinstance(profile.get("name"), str):
        raise InputError(f"{path}: 'name' is missing; give the model's name")
    fields = {"name": profile["name"], "ffn": None, **_section(path, profile, "spec", _SPEC_UNITS, _SPEC_FLAGS)}
    if "experts" in profile:
        fields["experts"] = _section(path, profile, "experts", _EXPERT_UNITS)
    totals = _section(path, profile, "totals", _TOTAL_UNITS) if "totals" in profile else {}
    return fields, totals


def _section(
    path: str | Path, profile: Mapping[str, Any], section: str, units: Mapping[str, str], flags: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The values of a section, each with a source, a known kind and its unit."""
    entries = profile.get(section)
    if not isinstance(entries, Mapping):
        raise InputError(f"{path}: section [{section}] is missing; add it")
    if extra := sorted(entries.keys() - units.keys() - set(flags)):
        raise InputError(f"{path}: unknown entry {section}.{extra[0]}; remove it")
    optional = units.keys() if section == "totals" else _OPTIONAL
    for name in (*units, *flags):
        if name not in entries and name not in optional:
            raise InputError(f"{path}: {section}.{name} is missing; add it")
    return {name: stated_value(f"{path}: {section}.{name}", entry, units.get(name)) for name, entry in entries.items()}
