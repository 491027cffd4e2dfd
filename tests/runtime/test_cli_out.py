"""``--out`` of commands that write one file: links are followed, and a full disk leaves the file that was there."""

from __future__ import annotations

from pathlib import Path

import pytest

from atts_runtime.cli import main
from tests.full_disk import full_disk
from tests.runtime.scripted import record_run, settings


@pytest.mark.parametrize("command", ["report", "trace"])
def test_an_out_that_is_a_link_is_followed_and_keeps_its_file_where_the_disk_is_full(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_run(tmp_path / "run", settings("barrier", questions=2, chains=2))
    file, link = tmp_path / "kept" / "file", tmp_path / "link"
    file.parent.mkdir()
    link.symlink_to(file)
    asked = [command, str(tmp_path / "run"), "--out", str(link)]
    assert main(asked) == 0
    assert link.is_symlink()
    before = file.read_bytes()
    assert before
    capsys.readouterr()
    with full_disk(1000):
        assert main(asked) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"atts-runtime {command}: cannot write {link}: File too large; choose another --out\n")
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]
