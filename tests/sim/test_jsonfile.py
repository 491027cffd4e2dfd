"""Fitted models as files: one that cannot be written is one line, and what was there before stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from atts_runtime.errors import InputError
from atts_sim import jsonfile
from tests.full_disk import full_disk


def test_a_fitted_model_that_cannot_be_written_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "workload.json"
    jsonfile.write(path, "made/1", {"old": 1})
    with pytest.raises(InputError, match=f"cannot write {path}"), full_disk(1000):
        jsonfile.write(path, "made/1", {"new": "x" * 5000})
    assert jsonfile.read(path, "made/1", lambda fields: fields["old"], "") == 1


def test_a_folder_is_refused_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        jsonfile.write(tmp_path / "folder", "made/1", {})
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
