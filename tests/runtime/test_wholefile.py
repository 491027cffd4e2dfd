"""What is written is there whole, or the file is as it was; links and pipes are written through."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atts_runtime.wholefile import write_whole
from tests.full_disk import full_disk


def test_a_full_disk_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    with pytest.raises(OSError, match="File too large"), full_disk(1000):
        write_whole(path, b"x" * 5000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_disk_has_what_is_new_before_it_takes_the_place_of_what_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "file", []
    path.write_bytes(b"old")
    monkeypatch.setattr(
        "atts_runtime.wholefile.os.fsync", lambda of: seen.append((os.fstat(of).st_size, path.read_bytes()))
    )
    write_whole(path, b"newer")
    assert seen == [(5, b"old")]
    assert path.read_bytes() == b"newer"


def test_an_interruption_leaves_the_file_as_it_was_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("atts_runtime.wholefile.os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"newer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("old", [b"old", None], ids=["to a file", "to nothing yet"])
def test_a_link_stays_one(old: bytes | None, tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "elsewhere" / "file"
    file.parent.mkdir()
    if old is not None:
        file.write_bytes(old)
    link.symlink_to(file)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert list(file.parent.iterdir()) == [file]


def test_links_in_a_circle_are_refused_and_stay(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        write_whole(one, b"new")
    assert one.is_symlink()
    assert other.is_symlink()


def test_a_pipe_is_written_to_by_its_name_and_by_a_process_s_own(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, b"through")
    assert os.read(reading, 100) == b"through"
    os.close(reading)
    assert pipe.is_fifo()
    reading, writing = os.pipe()  # as /dev/stdout is one, and a shell's >(...)
    write_whole(Path(f"/dev/fd/{writing}"), b"through")
    assert os.read(reading, 100) == b"through"
    os.close(reading)
    os.close(writing)


def test_a_folder_is_refused_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        write_whole(tmp_path / "folder", b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
