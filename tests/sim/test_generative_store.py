"""A fitted workload's file: read back as it was written, and refused where it is none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.errors import InputError
from atts_sim.generative_store import load_workload, save_workload
from tests.sim.made_workloads import MODEL, VARIED


def test_a_workload_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    for model in (MODEL, VARIED, replace(MODEL, scores=None, errors=None)):
        save_workload(model, tmp_path / "w.json")
        assert load_workload(tmp_path / "w.json") == model


@given(data=st.data())
def test_a_file_that_is_no_workload_is_refused_whatever_is_in_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("saved") / "w.json"
    save_workload(VARIED, path)
    whole = json.loads(path.read_text())
    at: Any = whole
    for _ in range(data.draw(st.integers(0, 3))):
        inner = [key for key in (at if isinstance(at, dict) else range(len(at))) if isinstance(at[key], dict | list)]
        if not inner:
            break
        at = at[data.draw(st.sampled_from(inner))]
    key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else list(range(len(at)))))
    at[key] = data.draw(st.sampled_from(["x", -1e999, 10**400, {}, [[]], True]))
    path.write_text(json.dumps(whole))
    harmless = key == "sources" or at is whole["sources"] or (key == "replaces" and at[key] is True)
    if harmless:
        return
    with pytest.raises(InputError, match=r"w\.json"):
        load_workload(path)


def test_scores_of_too_few_bounds_are_refused(tmp_path: Path) -> None:
    assert MODEL.scores is not None
    first, *others = MODEL.scores.kinds
    fewer = replace(first, bounds=tuple(turn[1:] for turn in first.bounds))
    save_workload(replace(MODEL, scores=replace(MODEL.scores, kinds=(fewer, *others))), tmp_path / "w.json")
    with pytest.raises(InputError, match="want a bound less"):
        load_workload(tmp_path / "w.json")


def test_files_that_cannot_be_read_or_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        load_workload(tmp_path / "none.json")
    for content in ("{", "[" * 100_000):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(InputError, match="not valid JSON"):
            load_workload(tmp_path / "bad.json")
    with pytest.raises(InputError, match="cannot write"):
        save_workload(MODEL, tmp_path)
