"""Engine profiles: step times of a model on an engine and device, fitted and judged, as `profiles/engines/*.toml`.

docs/profiles.md describes the files. A profile serves the model that it was measured on and refuses others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from atts_runtime.config import EMBEDDED
from atts_runtime.errors import InputError
from atts_runtime.profiler.grid import CallKind
from atts_runtime.profiler.hardware import Peak, profiles_folder
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.provenance import Number, known_entries, load_profile, number, save_profile, text, whole
from atts_runtime.profiler.stepfit import CallCosts, PhaseFit, Residuals
from atts_runtime.profiler.steptime import Padding, Phase, PhaseCosts, Range, StepModel

__all__ = ["EngineProfile", "shipped_engines"]

_PHASES: tuple[Phase, ...] = ("append", "decode")
_CALLS: tuple[CallKind, ...] = ("generate", "score")
_PHASE_UNITS = {
    "mfu": "1",
    "mfu_attention": "1",
    "eta": "1",
    "cache_bytes": "bytes",
    "eta_beyond": "1",
    "step_s": "s",
    "row_s": "s",
    "group_s": "s",
    "kv_copies": "copies",
    "range.rows": "rows",
    "range.new_tokens": "tokens",
    "range.kept_tokens": "tokens",
    "range.longest_kept": "tokens",
    "fitted.points": "points",
    "fitted.median": "1",
    "fitted.p90": "1",
    "held_out.points": "points",
    "held_out.median": "1",
    "held_out.p90": "1",
}
_OF_CALLS = {f"calls.{kind}.{name}" for kind in _CALLS for name in ("call_s", "token_s")}
_UNITS = (
    {
        "dimensions.parameters": "parameters",
        "dimensions.kv_bytes_per_token": "bytes",
        "peak.flops_per_s": "FLOP/s",
        "peak.bytes_per_s": "bytes/s",
        "limits.max_rows": "rows",
        "limits.step_tokens": "tokens",
    }
    | {f"{phase}.{name}": unit for phase in _PHASES for name, unit in _PHASE_UNITS.items()}
    | dict.fromkeys(sorted(_OF_CALLS), "s")
)
_FITTED = ("mfu", "mfu_attention", "eta", "cache_bytes", "eta_beyond", "step_s", "row_s", "group_s")
_PARTIAL = ("mfu_attention", "cache_bytes", "eta_beyond", "group_s")
_MAY_LACK = _OF_CALLS | {f"{phase}.{name}" for phase in _PHASES for name in _PARTIAL}
_SHARES = ("mfu", "mfu_attention", "eta", "eta_beyond")
_MAY_BE_ZERO = ("step_s", "row_s", "group_s", "kv_copies", "call_s", "token_s", "median", "p90")
_TEXTS = ("name", "engine", "model", "hardware", "device", "dtype", "measured_on")


@dataclass(frozen=True)
class EngineProfile:
    """One model on one engine. `numbers`: every figure by its dotted name, with unit and provenance.

    model, hardware    names of the profiles it goes with; the numbers `dimensions.*` tell the model from others
    threads            CPU threads of the engine; None on a GPU
    versions           of what was measured, by package
    measured_on        ISO date
    """

    name: str
    engine: str
    model: str
    hardware: str
    device: str
    dtype: str
    measured_on: str
    threads: int | None
    versions: Mapping[str, str]
    padding: Padding
    numbers: Mapping[str, Number]

    def step_model(self, spec: ModelSpec) -> StepModel:
        """Its step times; raises InputError where `spec` is not the model that was measured."""
        for name in ("parameters", "kv_bytes_per_token"):
            if (stated := self._of(f"dimensions.{name}")) != (given := getattr(spec, name)):
                raise InputError(
                    f"engine profile {self.name} is of {self.model} with {stated:.0f} {name}, but {spec.name} has "
                    f"{given:.0f}; give the profile of that model, or make it with atts-runtime profile"
                )
        return StepModel(
            spec,
            self._of("peak.flops_per_s"),
            self._of("peak.bytes_per_s"),
            self.costs("append"),
            self.costs("decode"),
            self.padding,
            {phase: self.range(phase) for phase in _PHASES},
            provenance=self.numbers,
        )

    @property
    def max_rows(self) -> int:
        """Rows that were decoded together at most."""
        return int(self._of("limits.max_rows"))

    @property
    def step_tokens(self) -> int:
        """Tokens, padding included, that the engine feeds in an append at most."""
        return int(self._of("limits.step_tokens"))

    def costs(self, phase: Phase) -> PhaseCosts:
        mfu, eta, step_s, row_s, copies = (
            self._of(f"{phase}.{name}") for name in ("mfu", "eta", "step_s", "row_s", "kv_copies")
        )
        own, cache, beyond, group_s = (
            None if (of := self.numbers.get(f"{phase}.{name}")) is None else of.value for name in _PARTIAL
        )
        return PhaseCosts(
            mfu,
            eta,
            step_s,
            row_s,
            mfu_attention=own,
            kv_copies=int(copies),
            cache_bytes=cache,
            eta_beyond=beyond,
            group_s=group_s,
        )

    def range(self, phase: Phase) -> Range:
        names = ("rows", "new_tokens", "kept_tokens", "longest_kept")
        return Range(*(int(self._of(f"{phase}.range.{name}")) for name in names))

    def residuals(self, phase: Phase) -> tuple[Residuals, Residuals]:
        """Of the points fitted, and of those held out."""
        return self._residuals(f"{phase}.fitted"), self._residuals(f"{phase}.held_out")

    def _residuals(self, group: str) -> Residuals:
        points, median, p90 = (self._of(f"{group}.{name}") for name in ("points", "median", "p90"))
        return Residuals(int(points), median, p90)

    def calls(self, kind: CallKind) -> CallCosts | None:
        """What a call costs besides its steps; None: it is not known."""
        if f"calls.{kind}.call_s" not in self.numbers:
            return None
        return CallCosts(*(self._of(f"calls.{kind}.{name}") for name in ("call_s", "token_s")))

    def _of(self, name: str) -> float:
        return self.numbers[name].value

    @classmethod
    def of_fit(
        cls,
        about: Mapping[str, str],
        threads: int | None,
        versions: Mapping[str, str],
        spec: ModelSpec,
        peak: Peak,
        limits: Mapping[str, int],
        padding: Padding,
        phases: Mapping[Phase, PhaseFit],
        calls: Mapping[CallKind, CallCosts],
    ) -> Self:
        """From what was fitted; `about` has the texts, `limits` max_rows and step_tokens."""
        numbers: dict[str, Number] = {}

        def add(name: str, value: float, kind: str, source: str) -> None:
            numbers[name] = Number(_rounded(value), _UNITS[name], kind, source)

        add("dimensions.parameters", spec.parameters, "analytic", "the model's dimensions")
        add("dimensions.kv_bytes_per_token", spec.kv_bytes_per_token, "analytic", "the model's dimensions")
        peaks = f"hardware profile {about['hardware']}"
        numbers["peak.flops_per_s"] = Number(peak.flops_per_s, "FLOP/s", peak.kind, peaks)
        numbers["peak.bytes_per_s"] = Number(peak.bytes_per_s, "bytes/s", peak.kind, peaks)
        for name, value in limits.items():
            add(f"limits.{name}", value, "analytic", "the engine's setting")
        padded = ", padded" if padding.rectangular else ""
        for phase, fit in phases.items():
            source = f"least squares on {fit.fitted.points} measured steps"
            for name in _FITTED:
                if (found := getattr(fit.costs, name)) is not None:
                    add(f"{phase}.{name}", found, "fitted", source)
            copies = "into its batch and out again" if fit.costs.kv_copies else "none"
            add(f"{phase}.kv_copies", fit.costs.kv_copies, "analytic", f"the engine's code: {copies}")
            for name in ("rows", "new_tokens", "kept_tokens", "longest_kept"):
                add(f"{phase}.range.{name}", getattr(fit.range, name), "measured", f"the largest batches{padded}")
            for group, residuals in (("fitted", fit.fitted), ("held_out", fit.held_out)):
                for name in ("points", "median", "p90"):
                    add(f"{phase}.{group}.{name}", getattr(residuals, name), "measured", "absolute relative errors")
        for kind, costs in calls.items():
            add(f"calls.{kind}.call_s", costs.call_s, "fitted", "least squares on the same visits")
            add(f"calls.{kind}.token_s", costs.token_s, "fitted", "least squares on the same visits")
        return cls(threads=threads, versions=versions, padding=padding, numbers=numbers, **about)

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Raises InputError where the file cannot be read, or a number is missing, negative or without source."""
        entries = load_profile(path, "an engine profile")
        tops = {name.split(".")[0] for name in _UNITS}
        needed = (*_TEXTS, "versions", "padding", *sorted(tops - {"calls"}))
        known_entries(path, entries, needed, {"note", "threads", "calls"})
        versions = entries["versions"]
        if not isinstance(versions, Mapping) or not all(isinstance(version, str) for version in versions.values()):
            raise InputError(f"{path}: 'versions' must be a table of texts")
        threads = entries.get("threads")
        if threads is not None:
            threads = whole(f"{path}: threads", threads)
        numbers = {}
        left = {name: entry for top in tops & set(entries) for name, entry in _flat(top, entries[top])}
        for name, unit in _UNITS.items():
            if name in left:
                last = name.rsplit(".", 1)[-1]
                most = 1.0 if last in _SHARES else math.inf
                numbers[name] = number(f"{path}: {name}", left.pop(name), unit, zero=last in _MAY_BE_ZERO, most=most)
            elif name not in _MAY_LACK:
                raise InputError(f"{path}: {name} is missing; add it")
        if left:
            raise InputError(f"{path}: unknown entry {min(left)!r}; remove it")
        _check_together(path, numbers, embedded=entries["engine"] == EMBEDDED)
        return cls(
            **{name: text(path, entries, name) for name in _TEXTS},
            threads=threads,
            versions=dict(versions),
            padding=Padding.of_entries(f"{path}: padding", entries["padding"]),
            numbers=numbers,
        )

    def to_toml(self, path: Path) -> None:
        """Write the file that `from_toml` reads; InputError where it cannot be written."""
        entries: dict[str, Any] = {name: getattr(self, name) for name in _TEXTS}
        if self.threads is not None:
            entries["threads"] = self.threads
        entries["versions"] = dict(self.versions)
        entries["padding"] = self.padding.to_entries()
        for name, stated in self.numbers.items():
            *tables, last = name.split(".")
            table = entries
            for inner in tables:
                table = table.setdefault(inner, {})
            table[last] = stated.to_toml()
        save_profile(path, entries, "An engine profile of ATTS; docs/profiles.md describes it.")


def shipped_engines() -> dict[str, EngineProfile]:
    """The engine profiles that come with ATTS, by name."""
    files = sorted((profiles_folder() / "engines").glob("*.toml"))
    return {profile.name: profile for profile in map(EngineProfile.from_toml, files)}


def _rounded(value: float) -> float:
    """To the four digits that a fit is good for, and what is under a nanosecond to 0; counts stay whole."""
    if isinstance(value, int) or value.is_integer():
        return value
    return 0.0 if abs(value) < 1e-9 else float(f"{value:.4g}")


def _flat(prefix: str, table: Any) -> list[tuple[str, Any]]:
    """Leaves of nested tables by dotted name; a table with a value is a leaf."""
    if not isinstance(table, Mapping) or "value" in table:
        return [(prefix, table)]
    return [leaf for name, inner in table.items() for leaf in _flat(f"{prefix}.{name}", inner)]


def _check_together(path: str | Path, numbers: Mapping[str, Number], *, embedded: bool) -> None:
    """InputError where one of several that belong together is missing, or a cache has no slower memory behind it."""
    calls = _OF_CALLS & numbers.keys()
    if calls != _OF_CALLS and (calls or embedded):
        raise InputError(f"{path}: {min(_OF_CALLS - calls)} is missing; add it")
    for phase in _PHASES:
        eta, cache, beyond = (numbers.get(f"{phase}.{name}") for name in ("eta", "cache_bytes", "eta_beyond"))
        if (cache is None) != (beyond is None):
            lacking = "cache_bytes" if cache is None else "eta_beyond"
            raise InputError(f"{path}: {phase}.{lacking} is missing; add it, or leave out the other of a cache's two")
        if eta is not None and beyond is not None and beyond.value > eta.value:
            raise InputError(f"{path}: {phase}.eta_beyond must not exceed eta ({eta.value:g}), got {beyond.value:g}")
