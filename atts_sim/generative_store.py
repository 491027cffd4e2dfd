"""A fitted workload as JSON. A file that was not written here raises InputError, whatever is in it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from atts_runtime.errors import InputError
from atts_sim.generative import WRITERS, Effects, Ells, Errors, FittedWorkload, Lengths, Scores, Stops
from atts_sim.recorded import Prompt

_FORMAT = "atts-fitted-workload/3"
T = TypeVar("T")


def save_workload(workload: FittedWorkload, path: Path) -> None:
    """Write it. Raises InputError where that fails."""
    text = json.dumps({"format": _FORMAT} | asdict(workload), allow_nan=False, indent=1)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another file") from error


def load_workload(path: Path) -> FittedWorkload:
    """Read it back. Raises InputError where it cannot be read or is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise InputError(f"{path} is no fitted workload of this version; fit it again with atts-sim validate --save")
    try:
        return _workload(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no fitted workload: {error!r}; fit it again") from error


def _workload(data: Mapping[str, Any]) -> FittedWorkload:
    prompts = tuple(Prompt(_count(p["draft"], 1), _count(p["target"], 1)) for p in data["prompts"])
    effects = tuple(Effects(*(_real(e[name]) for name in ("progress", "strange", "hard"))) for e in data["effects"])
    if not prompts or len(prompts) != len(effects):
        raise ValueError(f"{len(prompts)} prompts and {len(effects)} effects")
    writers = [writer for writer in WRITERS if writer in dict(data["stops"])]
    if not writers:
        raise ValueError("nobody writes")
    return FittedWorkload(
        replaces=_flag(data["replaces"]),
        prompts=prompts,
        effects=effects,
        stops={writer: _stops(data["stops"][writer]) for writer in writers},
        lengths={writer: _lengths(data["lengths"][writer]) for writer in writers},
        scores=_maybe(data["scores"], _scores),
        errors=_maybe(data["errors"], _errors),
        elsewhere={writer: _real(data["elsewhere"][writer], 0.0) for writer in WRITERS},
        sources=tuple(str(name) for name in data["sources"]),
        agreement=_shares(data["agreement"]),
    )


def _stops(data: Mapping[str, Any]) -> Stops:
    per_takeover, pending, wrong = (_real(data[name]) for name in ("per_takeover", "pending", "wrong"))
    return Stops(
        _turns(data["by_turn"], _real), per_takeover, pending, wrong, _share(data["ends"]), _share(data["eos"])
    )


def _lengths(data: Mapping[str, Any]) -> Lengths:
    last, others = (_turns(data[name], lambda turn: _ascending(turn, _tokens)) for name in ("last", "others"))
    return Lengths(last, others)


def _scores(data: Mapping[str, Any]) -> Scores:
    a, b, c, d, e, f = (_ells(kind) for kind in data["kinds"])
    after, chain_sd, noise_sd = (_real(data[name]) for name in ("after_takeover", "chain_sd", "noise_sd"))
    if chain_sd < 0 or noise_sd < 0:
        raise ValueError("a negative standard deviation")
    return Scores((a, b, c, d, e, f), after, chain_sd, noise_sd)


def _ells(data: Mapping[str, Any]) -> Ells:
    by_turn = _turns(data["by_turn"], lambda turn: _ascending(turn, _real))
    centres, spreads = _turns(data["centres"], _real), _turns(data["spreads"], lambda spread: _real(spread, 1e-9))
    if not len(by_turn) == len(centres) == len(spreads):
        raise ValueError("scores, centres and spreads of unlike numbers of turns")
    return Ells(by_turn, centres, spreads)


def _errors(data: Mapping[str, Any]) -> Errors:
    return Errors(
        _turns(data["level"], _real), _real(data["answering"]), _pair(data["stands"]), _pair(data["mends"]),
        _pair(data["spoils"]), _count(data["chains"], 0), _count(data["wrong"], 0),
    )  # fmt: skip


def _pair(data: Any) -> tuple[float, float]:
    without, answered = data
    return _share(without), _share(answered)


def _maybe(data: Any, make: Callable[[Any], T]) -> T | None:
    return None if data is None else make(data)


def _turns(data: Any, make: Callable[[Any], T]) -> tuple[T, ...]:
    if not isinstance(data, list) or not data:
        raise ValueError("no turn at all")
    return tuple(make(turn) for turn in data)


def _ascending(data: Any, make: Callable[[Any], T]) -> tuple[T, ...]:
    values = _turns(data, make)
    if sorted(values, key=lambda v: v) != list(values):  # type: ignore[arg-type, return-value]
        raise ValueError("values that do not ascend")
    return values


def _real(value: Any, least: float = -math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        raise ValueError(f"{value!r} where a number belongs")
    return float(value)


def _share(value: Any) -> float:
    if _real(value, 0.0) > 1:
        raise ValueError(f"{value!r} where a share belongs")
    return float(value)


def _shares(data: Any) -> tuple[float, ...]:
    """Parts of a whole; none is fine."""
    if not isinstance(data, list) or math.fsum(shares := [_share(share) for share in data]) > 1 + 1e-9:
        raise ValueError(f"{data!r} where shares belong")
    return tuple(shares)


def _count(value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{value!r} where a count belongs")
    return value


def _tokens(value: Any) -> int:
    return _count(value, 1)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} where true or false belongs")
    return value
