"""Data sets of the Hugging Face hub: fetched at a revision, from the cache where there is no network.

A token for a gated data set is what the hub's client finds in the environment (``HF_TOKEN``); it is neither read nor
kept here.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from atts_runtime.errors import InputError
from atts_runtime.tasks.named import NAMED, HubTask
from atts_runtime.tasks.rows import Row, one_line

__all__ = ["HubData", "Place", "fetch", "named_rows", "place", "rows"]

_SPEC = re.compile(
    r"(?P<path>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<config>[\w.-]+))?(?::(?P<split>[\w.-]+))?(?:#(?P<revision>[\w./-]+))?"
)
_COMMIT = re.compile(r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])")
_SPLITS = ("test", "train")
_PROBE_S = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a data set is: path, configuration, split, revision; None: the hub's default, of splits test or train."""

    path: str
    config: str | None
    split: str | None
    revision: str | None

    def __str__(self) -> str:
        parts = (("", self.path), ("@", self.config), (":", self.split), ("#", self.revision))
        return "".join(f"{mark}{part}" for mark, part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class HubData:
    """Rows that can be counted and indexed, and where exactly they came from."""

    rows: Any
    place: Place


def place(spec: str) -> Place | None:
    """The place that ``NAME[@CONFIG][:SPLIT][#REVISION]`` means; None where the text has another form."""
    match = _SPEC.fullmatch(spec)
    return None if match is None else Place(*match.group("path", "config", "split", "revision"))


def fetch(asked: Place, name: str, *, gated: bool = False) -> HubData:
    """The data set, with split and revision resolved; the revision stays None where the client does not tell it.

    Raises InputError, in one line with what to do, where `datasets` is not installed, the hub cannot be reached and the
    cache does not hold the data, the data set is gated or unknown, or the cache holds another revision.
    """
    datasets = _datasets(name)
    try:
        with _cache_alone_if_unreachable(datasets):
            data = datasets.load_dataset(asked.path, asked.config, split=asked.split, revision=asked.revision)
    except Exception as error:  # the hub's client raises errors of several libraries
        raise InputError(_said(error, asked, name, gated)) from error
    split = asked.split
    if split is None:
        split = next((known for known in _SPLITS if known in data), None)
        if split is None:
            raise InputError(f"{name!r} has no split test or train; add one of :{', :'.join(data)}")
        data = data[split]
    found = _commit(data)
    if asked.revision is not None and _COMMIT.fullmatch(asked.revision) and found not in (None, asked.revision):
        raise InputError(
            f"{name}: the cache holds {asked.path} at revision {found}, not at {asked.revision}; "
            "run once with a network, or name the cached one with #REVISION"
        )
    return HubData(data, Place(asked.path, asked.config, split, found or asked.revision))


def rows(data: HubData) -> Iterator[Row]:
    """All rows under their own keys; ids are positions."""
    for index, row in enumerate(data.rows):
        value = {key: row[key] for key in row if key != "id"}
        yield Row(f"{data.place.path}, split {data.place.split}, row {index}", f"{data.place.path}/{index}", value)


def named_rows(name: str, data: HubData) -> Iterator[Row]:
    """A named task's rows, in the form of a JSONL file's."""
    task = NAMED[name]
    taken = 0
    for index, row in enumerate(data.rows):
        where = f"{name} ({data.place.path}, split {data.place.split}), row {index}"
        missing = [column for column in task.columns if column not in row]
        if missing:
            raise InputError(f"{where}: no column {missing[0]!r}, there are {', '.join(row)}; is it another revision?")
        if all(row[column] == value for column, value in task.kept.items()):
            yield Row(where, f"{name}/{row[task.id] if task.id else index}", _as_line(task, row))
            taken += 1
    if task.size not in (None, taken):
        raise InputError(
            f"{name}: {data.place} gave {taken} questions, not {task.size}; remove its cache and run again"
        )


def _as_line(task: HubTask, row: Mapping[str, Any]) -> dict[str, Any]:
    answer = row[task.answer]
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    line = {"question": row[task.question], "answer": answer}
    if task.wrong:
        line["answer"] = str(answer).strip()
        line["choices"] = [str(row[column]) for column in (task.answer, *task.wrong)]
    return line


def _datasets(name: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError(f"{name!r} is read from the Hugging Face hub, which needs: pip install 'atts[hub]'") from None
    return datasets


@contextlib.contextmanager
def _cache_alone_if_unreachable(datasets: Any) -> Iterator[None]:
    """Without a network the client would try for half a minute, and say so, before it looks at its cache."""
    settings = getattr(datasets, "config", None)
    if settings is None or getattr(settings, "HF_HUB_OFFLINE", True) or _reachable():
        yield
        return
    settings.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        settings.HF_HUB_OFFLINE = False


def _reachable() -> bool:
    """Whether the hub's address answers; a proxy is left to the client."""
    url = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    if urllib.request.getproxies().keys() & {"http", "https", "all"}:
        return True
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        socket.create_connection((url.hostname or "", port), timeout=_PROBE_S).close()
    except OSError:
        return False
    return True


def _said(error: Exception, asked: Place, name: str, gated: bool) -> str:
    """What the client's error means for the user."""
    said = one_line(error)
    if isinstance(error, ConnectionError):
        return (
            f"cannot reach the Hugging Face hub for {name!r}, and its cache does not hold {asked.path}; run once with "
            "a network, set HF_HOME to a cache that holds it, or give a .jsonl file"
        )
    if "gated" in said or gated:
        return (
            f"{name!r} is gated: accept its terms at https://huggingface.co/datasets/{asked.path} and set HF_TOKEN to "
            f"a token of that account ({said})"
        )
    return f"cannot load {name!r} from the Hugging Face hub ({said}); for a local file give its path"


def _commit(data: Any) -> str | None:
    """The commit that the client resolved the revision to: its cache keeps each in a folder of that name."""
    for file in getattr(data, "cache_files", None) or ():
        if commits := _COMMIT.findall(str(file.get("filename", ""))):
            return str(commits[-1])
    return None
