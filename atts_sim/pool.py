"""Points on many cores or machines: chunks go out to workers that keep what they have loaded.

A worker reads the study once, and each profile and workload once; a point costs it a simulation and nothing else.
Results come back in any order and hang on nothing but the point, so that every pool comes to the same rows.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from atts_runtime.control.registry import PLUGINS
from atts_runtime.errors import InputError
from atts_sim.options import Value
from atts_sim.point import Points
from atts_sim.row import Row
from atts_sim.study import Study, parse_study

Numbered = tuple[int, Mapping[str, Value]]
_CHUNKS_PER_JOB = 16  # small enough that the last ones end together
_LARGEST_CHUNK = 8  # points that an interruption may cost a worker
_RAY_ANSWERS_S = 5.0


class Pool(Protocol):
    """Works on points."""

    def rows(self, points: Sequence[Numbered]) -> Iterator[list[Row]]:
        """The points' rows, some at a time, in whatever order they are done."""


def chunks(points: Sequence[Numbered], jobs: int) -> list[Sequence[Numbered]]:
    size = max(1, min(_LARGEST_CHUNK, len(points) // (jobs * _CHUNKS_PER_JOB)))
    return [points[at : at + size] for at in range(0, len(points), size)]


class InProcess:
    """One after another, here."""

    def __init__(self, study: Study) -> None:
        self._points = Points(study)

    def rows(self, points: Sequence[Numbered]) -> Iterator[list[Row]]:
        for place, chosen in points:
            yield [self._points.row(place, chosen)]


class Processes:
    """`jobs` processes on this machine, started once (joblib's loky)."""

    def __init__(self, study: Study, jobs: int) -> None:
        self._text, self._jobs = study.to_toml(), jobs

    def rows(self, points: Sequence[Numbered]) -> Iterator[list[Row]]:
        from joblib import Parallel, delayed

        # Chunks are this module's, so joblib shall not make batches of its own.
        parallel = Parallel(self._jobs, backend="loky", return_as="generator_unordered", batch_size=1)
        yield from parallel(delayed(work)(self._text, plugins(), chunk) for chunk in chunks(points, self._jobs))


class Ray:
    """A Ray cluster, or this machine as one (`address` empty). InputError where Ray is not installed.

    Ray listens on every address of the machine, so a cluster of this machine asks for a token; and it tells its makers
    of its use, unless the environment says otherwise than here.
    """

    def __init__(self, study: Study, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if not address:
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        try:
            import ray
        except ImportError as error:
            raise InputError("--ray needs Ray: pip install 'atts[ray]', or use --jobs") from error
        self._ray, self._text = ray, study.to_toml()
        if not ray.is_initialized() or address:
            try:
                _listens(address)
                ray.init(
                    address=address or "local",  # else Ray joins whatever cluster this machine was last part of
                    include_dashboard=False,
                    logging_level="ERROR",
                    log_to_driver=False,
                )
            except (OSError, ValueError, RuntimeError) as error:
                told = " ".join(str(error).split())
                raise InputError(
                    f"--ray: no cluster at {address!r} ({told}); leave the address out for one here, or set "
                    "RAY_AUTH_MODE=token where the cluster asks for the token that Ray keeps"
                ) from error

    def rows(self, points: Sequence[Numbered]) -> Iterator[list[Row]]:
        ray: Any = self._ray
        remote = ray.remote(work)
        jobs = max(1, int(ray.cluster_resources().get("CPU", 1)))
        open_ = [remote.remote(self._text, plugins(), chunk) for chunk in chunks(points, jobs)]
        while open_:
            done, open_ = ray.wait(open_)
            for reference in done:
                yield ray.get(reference)


def _listens(address: str) -> None:
    """OSError where nobody does at HOST:PORT: Ray itself would wait for minutes, and write of it all the while."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        with socket.create_connection((host, int(port)), timeout=_RAY_ANSWERS_S):
            pass


def plugins() -> str:
    """The files of gates of one's own: a worker may be older than what this process was told."""
    return os.environ.get(PLUGINS, "")


def work(text: str, told: str, points: Sequence[Numbered]) -> list[Row]:
    """In a worker: the rows of a chunk. `told`: the `plugins` of the process that asks."""
    os.environ[PLUGINS] = told
    known = _points(text)
    return [known.row(place, chosen) for place, chosen in points]


@lru_cache(maxsize=2)
def _points(text: str) -> Points:
    from pathlib import Path

    return Points(parse_study(text, Path()))  # its paths are absolute
