"""A study: what is simulated, over which points, and what is sought. Read from TOML and checked before anything runs.

docs/sweeps.md describes the file. Names of options are those of `atts_sim.options`; files are relative to the
study's folder.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atts_runtime.errors import InputError
from atts_runtime.untrusted import toml_of
from atts_runtime.wholenumbers import LARGEST_IN_TABLES
from atts_sim.axes import MOST_POINTS, RANGE_KEYS, Axis, axis
from atts_sim.nearest import did_you_mean
from atts_sim.objective import Objective, objective
from atts_sim.options import PATHS, Options, Value, anchored, checked, flat, full_name
from atts_sim.row import FIGURES
from atts_sim.search import METHODS, Search, search

_TABLES = ("study", "workload", "engines", "settings", "sweep", "search", "objective")
_STUDY = ("name", "about", "repeats", "deadline_s")
_SEARCH = ("method", "trials", "seed")
_DEEPEST = 8  # names in a dotted one: no option has as many
_MOST_SEED = 2**32 - 1  # Optuna takes no larger one


@dataclass(frozen=True, slots=True)
class Study:
    """Everything that a sweep depends on but the files that it names.

    base      options of every point, before the sweep's
    repeats   simulations a point, with seeds from the point's own on: the same for all points, so that points differ
              by what they are and not by what was drawn
    entries   the tables of the file, paths absolute
    """

    name: str
    about: str
    base: Options
    axes: tuple[Axis, ...]
    method: str
    trials: int | None
    seed: int
    objective: Objective
    repeats: int
    deadline_s: float | None
    entries: Mapping[str, Any]

    def search(self) -> Search:
        """A search over the points, from its beginning."""
        return search(self.method, self.axes, self.trials, self.seed)

    def sweeps(self, name: str) -> bool:
        """Whether the option is swept."""
        return any(axis.name == name for axis in self.axes)

    def to_toml(self) -> str:
        """The file, paths absolute; what is swept stays in its order, which is that of the points."""
        import tomli_w

        tables = {name: table for name, table in self.entries.items() if name != "sweep"}
        swept = [f"{name} = {_inline(entry)}\n" for name, entry in flat(self.entries.get("sweep", {}), stop=RANGE_KEYS)]
        return tomli_w.dumps(tables) + ("\n[sweep]\n" + "".join(swept) if swept else "")


def _inline(entry: Any) -> str:
    """A value as TOML, behind its name: tomli-w would write ranges as tables, and tables after all that is none."""
    import tomli_w

    if isinstance(entry, Mapping):
        return f"{{ {', '.join(tomli_w.dumps(entry).splitlines())} }}"
    return tomli_w.dumps({"x": entry}).removeprefix("x = ").rstrip("\n")


def studies_folder() -> Path:
    """The example studies that come with ATTS."""
    return Path(__file__).parent / "studies"


def read_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """The study in a file, or the shipped one of that name; `overrides` are ``NAME=VALUE``, values as in TOML or text,
    files relative to the working directory.

    InputError says in one line which entry is wrong.
    """
    shipped = studies_folder() / f"{path}.toml"
    if not path.suffix and not path.exists() and shipped.is_file():
        path = shipped
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        names = ", ".join(sorted(file.stem for file in studies_folder().glob("*.toml")))
        raise InputError(f"cannot read study {path}: {error.strerror}; give a file, or one of {names}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"study {path} is not valid TOML: {error}") from error
    return parse_study(text, path.resolve().parent, where=f"study {path}", overrides=overrides)


def parse_study(text: str, folder: Path, *, where: str = "study", overrides: Sequence[str] = ()) -> Study:
    """The study in a text; its files are relative to `folder`."""
    try:
        entries = toml_of(text)
    except ValueError as error:
        raise InputError(f"{where} is not valid TOML: {error}") from error
    _tables(where, entries)
    for override in overrides:
        _override(entries, override)
        _tables("--set", entries)
    base: dict[str, Value] = {}
    for table in ("workload", "engines"):
        for name, value in flat(entries.get(table, {}), f"{table}."):
            full = _own(where, name, table)
            if full in base:
                raise InputError(f"{where}: [{table}] has {full} twice; give it once")
            base[full] = checked(where, full, value)
    for name, value in entries.get("settings", {}).items():
        full = full_name(f"{where}: settings", f"settings.{name}")
        base[full] = checked(where, full, value)
    for name in PATHS:
        if name in base:
            base[name] = anchored(name, base[name], folder)
            _put(entries, name.split("."), base[name])
    axes: list[Axis] = []
    for name, entry in flat(entries.get("sweep", {}), stop=RANGE_KEYS):
        full = full_name(f"{where}: sweep", name)
        if any(known.name == full for known in axes):
            raise InputError(f"{where}: [sweep] has {full} twice, under two names; give it once")
        if full in PATHS and isinstance(entry, list):
            entry = [anchored(full, value, folder) for value in entry]
            _put(entries["sweep"], name.split("."), entry)
        axes.append(axis(where, full, entry))
    about = _entries(where, entries, "study", _STUDY)
    looking = _entries(where, entries, "search", _SEARCH)
    method, trials = _method(where, looking, axes)
    return Study(
        name=_text(where, about, "name", "study"),
        about=_text(where, about, "about", ""),
        base=dict(sorted(base.items())),  # not in the file's order, which a copy of the study need not have
        axes=tuple(axes),
        method=method,
        trials=trials,
        seed=_whole(where, "search.seed", looking.get("seed", 0), 0, _MOST_SEED),
        objective=objective(where, _entries(where, entries, "objective", None), FIGURES),
        repeats=_whole(where, "study.repeats", about.get("repeats", 1), 1),
        deadline_s=_deadline_s(where, about.get("deadline_s")),
        entries=entries,
    )


def _own(where: str, name: str, table: str) -> str:
    full = full_name(where, name)
    assert full.startswith(f"{table}.")
    return full


def _deadline_s(where: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
        raise InputError(f"{where}: study.deadline_s must be a number of seconds above 0, got {value!r}")
    return float(value)


def _method(where: str, entries: Mapping[str, Any], axes: Sequence[Axis]) -> tuple[str, int | None]:
    method = entries.get("method", "grid")
    if method not in METHODS:
        raise InputError(f"{where}: unknown search.method {method!r}; choose one of {', '.join(METHODS)}")
    trials = entries.get("trials")
    if method == "grid":
        if trials is not None:
            raise InputError(f"{where}: search.trials has no meaning for a grid; set search.method, or leave it out")
        return method, None
    if trials is None:
        raise InputError(f"{where}: search.method {method!r} needs search.trials, how many points to try")
    if not axes:
        raise InputError(f"{where}: search.method {method!r} needs something to search, in [sweep]")
    return method, _whole(where, "search.trials", trials, 1, MOST_POINTS)


def _override(entries: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    name, text = name.strip(), text.strip()
    if not equals or not name or not text:
        raise InputError(f"--set takes NAME=VALUE, got {override!r}")
    try:
        value = toml_of(f"x = {text}")["x"]
    except ValueError:
        value = text
    head = name.split(".")[0]
    path = name.split(".") if head in _TABLES else ["settings", name]
    if path[:2] == ["sweep", "settings"] and len(path) > 2:
        path = ["sweep", *path[2:]]
    if path[0] == "sweep":
        _remove(entries, ["sweep", "settings", *path[1:]])  # the same by its long name
    if head in ("sweep", "settings") or head not in _TABLES or len(path) > _DEEPEST:
        full_name("--set", name.removeprefix("sweep."))
    named = ".".join(path[1:] if path[0] == "sweep" else path)
    value = [_from_here(named, each) for each in value] if isinstance(value, list) else _from_here(named, value)
    _put(entries, path, value)
    # A fixed value takes its parameter out of the sweep.
    if path[0] in ("settings", "engines", "workload"):
        swept = entries.get("sweep", {})
        for alias in (path, path[1:]) if path[0] == "settings" else (path,):
            _remove(swept, list(alias))


def _from_here(name: str, value: Any) -> Any:
    """What is said on a command line is relative to where it is said, not to the study's folder."""
    full = f"settings.{name}" if f"settings.{name}" in PATHS else name
    return anchored(full, value, Path.cwd()) if isinstance(value, str) else value


def _put(entries: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *tables, last = path
    for table in tables:
        entries = entries.setdefault(table, {})
        if not isinstance(entries, dict):
            raise InputError(f"--set {'.'.join(path)}: {table!r} is no table")
    entries[last] = value


def _remove(entries: dict[str, Any], path: list[str]) -> None:
    for table in path[:-1]:
        inner = entries.get(table)
        if not isinstance(inner, dict):
            return
        entries = inner
    entries.pop(path[-1], None)


def _tables(where: str, entries: Mapping[str, Any]) -> None:
    for name, value in entries.items():
        if name not in _TABLES:
            listed = f"there are {', '.join(f'[{k}]' for k in _TABLES)}"
            told = did_you_mean(name, _TABLES, listed, shown="[{}]".format)
            raise InputError(f"{where}: unknown entry {name!r}; {told}")
        if not isinstance(value, dict):
            raise InputError(f"{where}: {name!r} must be a table, [{name}]")


def _entries(where: str, entries: Mapping[str, Any], table: str, known: Sequence[str] | None) -> Mapping[str, Any]:
    found: Mapping[str, Any] = entries.get(table, {})
    for name in found:
        if known is not None and name not in known:
            told = did_you_mean(name, known, f"there are {', '.join(known)}")
            raise InputError(f"{where}: unknown entry {table}.{name}; {told}")
    return found


def _text(where: str, entries: Mapping[str, Any], name: str, default: str) -> str:
    value = entries.get(name, default)
    if not isinstance(value, str):
        raise InputError(f"{where}: study.{name} must be text, got {value!r}")
    return value


def _whole(where: str, name: str, value: Any, least: int, most: int = LARGEST_IN_TABLES) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{where}: {name} must be a whole number of at least {least}, got {value!r}")
    if value > most:
        raise InputError(f"{where}: {name} must be at most {most}, got {value}")
    return value
