"""What is written is there whole, or the file is as it was."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atts_runtime.errors import InputError
from atts_sim import jsonfile
from atts_sim.wholefile import write_whole


@contextmanager
def full_disk(at_bytes: int) -> Iterator[None]:
    """No file may grow beyond that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_fitted_model_that_cannot_be_written_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "workload.json"
    jsonfile.write(path, "made/1", {"old": 1})
    with pytest.raises(InputError, match=f"cannot write {path}"), full_disk(1000):
        jsonfile.write(path, "made/1", {"new": "x" * 5000})
    assert jsonfile.read(path, "made/1", lambda fields: fields["old"], "") == 1


def test_a_link_stays_one_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    link, file, pipe = (tmp_path / name for name in ("link", "file", "pipe"))
    file.write_text("old")
    link.symlink_to(file)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, b"through")
    assert os.read(reading, 100) == b"through"
    os.close(reading)
    assert pipe.is_fifo()


def test_a_folder_is_refused_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        jsonfile.write(tmp_path / "folder", "made/1", {})
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
