"""Claims about ``atts-runtime profile``: files that are read back, and the one line that names a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atts_runtime.cli import main
from atts_runtime.profiler import ModelSpec, profiling
from atts_runtime.profiler.engineprofile import EngineProfile
from atts_runtime.profiler.hardware import HardwareProfile

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{folder}"], "no name of a profile"),
        (["--out", "{folder}/x.json"], "ends in .toml"),
        (["--out", "/proc/nowhere/x.toml"], "cannot write into /proc/nowhere"),
        (["--out", "{folder}/x.toml", "--draft", "{folder}/none"], "is not a folder"),
        (["--out", "{folder}/x.toml", "--target", "{folder}"], "config.json"),
        (["--out", "{folder}/x.toml", "--threads", "0"], "threads must be at least 1"),
        (["--out", "{folder}/x.toml", "--device", "meta"], "give cpu or cuda"),
        (["--out", "{folder}/x.toml", "--device", "abacus"], "not known to torch"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    arguments: list[str], message: str, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["profile", *(argument.format(folder=tmp_path) for argument in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("atts-runtime profile: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_profiles_of_a_model_are_written_and_read_back(
    tiny_target: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "_PEAKS_S", 0.05)
    monkeypatch.setattr(profiling, "_GRID_S", {"draft": 0.1, "target": 0.1})
    out = tmp_path / "hardware" / "here.toml"
    model = str(tiny_target)
    assert main(["profile", "--out", str(out), "--draft", model, "--target", model, "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    hardware = HardwareProfile.from_toml(out)
    assert hardware.name == found["hardware"]["name"] == "here"
    assert hardware.peak("float32", 1).kind == "measured"
    (engine,) = found["engines"]  # one model for both roles is one engine
    read = EngineProfile.from_toml(engine["file"])
    assert Path(engine["file"]).parent == tmp_path / "engines"
    assert (read.threads, read.hardware) == (1, "here")
    spec = ModelSpec.from_config(tiny_target, bytes_per_weight=4, bytes_per_kv_element=4)
    assert read.step_model(spec).decode_seconds(2, 100, 50) > 0
    assert engine["append"]["held_out"]["median"] == read.residuals("append")[1].median
