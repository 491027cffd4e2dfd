"""A fitted workload as JSON. A file that was not written here raises InputError, whatever is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atts_sim import jsonfile
from atts_sim.generative import WRITERS, Effects, Ells, Errors, FittedWorkload, Lengths, Nearness, Pace, Scores, Stops
from atts_sim.jsonfile import ascending, count, flag, listed, maybe, real, share, shares, tokens
from atts_sim.recorded import Prompt

_FORMAT = "atts-fitted-workload/5"
_REFUSAL = " is no fitted workload of this version; fit it again with atts-sim validate --save"


def save_workload(workload: FittedWorkload, path: Path) -> None:
    """Write it. Raises InputError where that fails."""
    jsonfile.write(path, _FORMAT, asdict(workload))


def load_workload(path: Path) -> FittedWorkload:
    """Read it back. Raises InputError where it cannot be read or is none."""
    return jsonfile.read(path, _FORMAT, _workload, _REFUSAL)


def _workload(data: Mapping[str, Any]) -> FittedWorkload:
    prompts = tuple(Prompt(count(p["draft"], 1), count(p["target"], 1)) for p in data["prompts"])
    effects = tuple(Effects(_near(e["near"]), real(e["strange"]), real(e["hard"])) for e in data["effects"])
    if not prompts or len(prompts) != len(effects):
        raise ValueError(f"{len(prompts)} prompts and {len(effects)} effects")
    writers = [writer for writer in WRITERS if writer in dict(data["stops"])]
    if not writers:
        raise ValueError("nobody writes")
    return FittedWorkload(
        replaces=flag(data["replaces"]),
        prompts=prompts,
        effects=effects,
        stops={writer: _stops(data["stops"][writer]) for writer in writers},
        lengths={writer: _lengths(data["lengths"][writer]) for writer in writers},
        scores=maybe(data["scores"], _scores),
        errors=maybe(data["errors"], _errors),
        elsewhere={writer: real(data["elsewhere"][writer], 0.0) for writer in WRITERS},
        sources=tuple(str(name) for name in data["sources"]),
        agreement=shares(data["agreement"]),
        pace=_pace(data["pace"]),
    )


def _near(data: Any) -> Nearness:
    level, trend, (first, both, second) = data
    return Nearness(real(level), real(trend), (real(first, 0.0), real(both), real(second, 0.0)))


def _pace(data: Mapping[str, Any]) -> Pace:
    return Pace(share(data["lost"]), real(data["delay"], 0.0))


def _stops(data: Mapping[str, Any]) -> Stops:
    per_takeover, pending, wrong = (real(data[name]) for name in ("per_takeover", "pending", "wrong"))
    return Stops(listed(data["by_turn"], real), per_takeover, pending, wrong, share(data["ends"]), share(data["eos"]))


def _lengths(data: Mapping[str, Any]) -> Lengths:
    last, others = (listed(data[name], lambda turn: ascending(turn, tokens)) for name in ("last", "others"))
    return Lengths(last, others)


def _scores(data: Mapping[str, Any]) -> Scores:
    a, b, c, d, e, f = (_ells(kind) for kind in data["kinds"])
    after, chain_sd, noise_sd = (real(data[name]) for name in ("after_takeover", "chain_sd", "noise_sd"))
    if chain_sd < 0 or noise_sd < 0:
        raise ValueError("a negative standard deviation")
    return Scores((a, b, c, d, e, f), after, chain_sd, noise_sd)


def _ells(data: Mapping[str, Any]) -> Ells:
    by_turn = listed(data["by_turn"], lambda turn: ascending(turn, real))
    bounds = tuple(ascending(turn, real) if turn != [] else () for turn in data["bounds"])
    if [len(values) - 1 for values in by_turn] != [len(turn) for turn in bounds]:
        raise ValueError("scores want a bound less than there are of them")
    return Ells(by_turn, bounds)


def _errors(data: Mapping[str, Any]) -> Errors:
    return Errors(
        listed(data["level"], real), real(data["answering"]), _pair(data["stands"]), _pair(data["mends"]),
        _pair(data["spoils"]), count(data["chains"], 0), count(data["wrong"], 0),
    )  # fmt: skip


def _pair(data: Any) -> tuple[float, float]:
    without, answered = data
    return share(without), share(answered)
