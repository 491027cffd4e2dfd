"""A check and its outcome, and the checks that need no import of what they look at."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias

State: TypeAlias = Literal["works", "absent", "broken"]

# By distribution: whether the program cannot do without it, and what for.
_OPTIONAL = {
    "datasets": ("hub", "tasks by name and other data sets of the hub"),
    "ray": ("ray", "sweeps on more than one machine"),
    "optuna": ("optuna", "studies with search.method = 'optuna'"),
}
_MODELS = Path(__file__).parents[1] / "models"


@dataclass(frozen=True, slots=True)
class Check:
    """What was found. `mend` says what to do, and is None only where there is nothing to be done.

    `absent` is a thing that can be done without and is not there, `broken` one that is there and does not work, or that
    nothing works without.
    """

    group: str
    name: str
    state: State
    found: str
    mend: str | None = None


def installed_checks() -> Iterator[Check]:
    """Python, and each distribution that ATTS asks for, against the range that it asks for."""
    yield Check("installed", "Python", "works", f"{platform.python_version()} ({sys.executable})")
    try:
        yield Check("installed", "atts", "works", metadata.version("atts"))
    except metadata.PackageNotFoundError:
        yield Check(
            "installed", "atts", "absent", "run from a source tree", "pip install . in that tree adds the commands"
        )
    for name, asked in _asked().items():
        yield _distribution(name, asked)


def extra_checks() -> Iterator[Check]:
    """What optional extras bring along."""
    for name, (extra, purpose) in _OPTIONAL.items():
        version = version_of(name)
        if version is None:
            yield Check("extras", name, "absent", f"not installed: {purpose}", f"pip install 'atts[{extra}]'")
        else:
            yield Check("extras", name, "works", f"{version}: {purpose}")


def bundled_checks() -> Iterator[Check]:
    """The weights of the bundled pair, which a clone without large files may lack."""
    for role in ("draft", "target"):
        weights = _MODELS / role / "model.safetensors"
        size = weights.stat().st_size if weights.is_file() else 0
        if size > 100_000:
            yield Check("installed", f"bundled {role} model", "works", f"{size / 1e6:.1f} MB")
        else:
            yield Check(
                "installed", f"bundled {role} model", "broken", f"{weights} is missing or a stub",
                "install the wheel, or take the repository with its large files",
            )  # fmt: skip


def version_of(name: str) -> str | None:
    """The version of an installed distribution, None where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _asked() -> dict[str, Any]:
    """By distribution, the range of versions that the installed ATTS asks for."""
    try:
        from packaging.requirements import Requirement

        requirements = [Requirement(line) for line in metadata.requires("atts") or ()]
    except (ImportError, metadata.PackageNotFoundError):
        return dict.fromkeys(("torch", "transformers", "numpy"))
    return {asked.name: asked.specifier for asked in requirements if asked.marker is None or asked.marker.evaluate()}


def _distribution(name: str, asked: Any) -> Check:
    version = version_of(name)
    if version is None:
        return Check("installed", name, "broken", "not installed", f"pip install '{name}{asked or ''}'")
    if asked and not asked.contains(version, prereleases=True):
        return Check("installed", name, "broken", f"{version}, where {asked} is needed", f"pip install '{name}{asked}'")
    return Check("installed", name, "works", version)
