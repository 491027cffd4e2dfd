"""A run samples the GPUs that NVML shows it, on its own clock, and says what it could not sample."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from atts_runtime.config import RunConfig
from atts_runtime.driver import Driver
from atts_runtime.engines.base import Placement
from atts_runtime.profiler.nvml import NvmlSampler
from atts_runtime.profiler.nvml_device import UNITS
from atts_runtime.profiler.record import Record
from atts_runtime.tasks.answers import ExactAnswers
from atts_runtime.tasks.base import Question, Task
from atts_runtime.telemetry import Telemetry
from tests.runtime.profiler.conftest import ROOT, Build
from tests.runtime.scripted import ScriptedEngine, pair, record_run, settings

SMALL = ["--questions", "1", "--chains", "2", "--turns", "2", "--draft-tokens", "8", "--takeover-tokens", "8"]


def run(folder: Path | None, out: Path, *models: Path) -> dict[str, Any]:
    """A run in a process that finds the library in `folder`; its manifest."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | ({} if folder is None else {"LD_LIBRARY_PATH": str(folder)})
    pair = ["--draft", str(models[0]), "--target", str(models[1]), "--device", "cpu"]
    command = [sys.executable, "-m", "atts_runtime.cli", "run", *SMALL, *pair, "--out", str(out)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return manifest


def test_a_run_keeps_what_nvml_said_beside_the_engines_counters(
    build: Build, tiny_draft: Path, tiny_target: Path, tmp_path: Path
) -> None:
    gpus = run(build(), tmp_path / "run", tiny_draft, tiny_target)["gpus"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    rows = pd.read_parquet(tmp_path / "run" / "telemetry.parquet")
    power = rows[(rows["engine"] == "gpu0") & (rows["metric"] == "power")]
    assert len(power) >= 2
    assert set(power["source"]) == {"fake"}
    assert set(power["unit"]) == {"W"}
    # From the run's start to its end, on its clock; how soon a thread gets going is the system's affair.
    assert power["t_s"].iloc[0] <= 0.5
    assert power["t_s"].iloc[-1] >= summary["wall_s"]
    assert rows["t_s"].is_monotonic_increasing
    assert gpus["states"]["gpu0"]["power"]["state"] == "available"
    assert gpus["energy"]["gpu0"]["joules"] > 0
    assert 0 < gpus["energy"]["gpu0"]["covered_s"] <= summary["wall_s"] + 0.5
    assert 0 < gpus["sampler_cores"] < 1


def test_a_library_that_refuses_is_named_and_the_run_goes_on(
    build: Build, tiny_draft: Path, tiny_target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTS_FAKE_NVML_FAIL", "nvmlInitWithFlags=4")
    gpus = run(build(), tmp_path / "run", tiny_draft, tiny_target)["gpus"]
    assert gpus == {"unavailable": "Insufficient Permissions"}
    assert (tmp_path / "run" / "summary.json").exists()


def test_engines_count_from_the_run_on_not_from_the_waking_of_nvml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines, order = pair(), list[str]()
    start, reset = NvmlSampler.start, ScriptedEngine.reset

    def waking(sampler: NvmlSampler) -> None:
        order.append("woken")
        start(sampler)

    async def forgetting(engine: ScriptedEngine, **options: Any) -> None:
        order.append(engine.name)
        await reset(engine, **options)

    monkeypatch.setattr(NvmlSampler, "start", waking)
    monkeypatch.setattr(ScriptedEngine, "reset", forgetting)
    record_run(tmp_path / "run", settings("barrier"), engines)
    assert order == ["woken", "draft", "target"]


GPU = Placement("cuda", 1, "bfloat16", None)


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> Telemetry:
    """Of a run of 10 s on a GPU of 200 W whose memory moved 5 bytes a second."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    task = Task("one", (Question("q", "1+1", "2"),), None, ExactAnswers())
    driver = Driver(RunConfig(), task, {}, on_finish=lambda record: None)
    telemetry = Telemetry(driver, {}, lambda progress: None, gpus=True)
    telemetry._window_s = (100.0, 110.0)
    assert telemetry._nvml is not None
    record = telemetry._nvml.reader.records["gpu1"] = Record("gpu1", UNITS)
    for t_s in range(99, 112):
        record.points["power"].add(float(t_s), 200.0)
        record.spans["dram_rate"].add(t_s - 1.0, float(t_s), 5.0)
    return telemetry


def test_an_engine_is_told_what_its_gpu_drew_and_moved(sampled: Telemetry) -> None:
    assert sampled.joules(GPU) == pytest.approx(2000.0)
    assert sampled.dram_bytes(GPU) == pytest.approx(50.0)


def test_what_a_gpu_said_of_a_part_of_the_run_is_not_the_run_s(sampled: Telemetry) -> None:
    for begin_s, known in ((98.5, True), (98.0, False), (10.0, False)):
        sampled._window_s = (begin_s, 111.0)
        assert (sampled.joules(GPU) is not None) == known
    for end_s, known in ((111.5, True), (112.0, False), (200.0, False)):
        sampled._window_s = (98.0, end_s)
        assert (sampled.dram_bytes(GPU) is not None) == known


def test_a_counter_that_stopped_early_leaves_a_run_s_joules_to_power(sampled: Telemetry) -> None:
    assert sampled._nvml is not None
    for t_s in range(99, 103):
        sampled._nvml.reader.records["gpu1"].points["energy"].add(float(t_s), 150.0 * t_s)
    assert sampled.joules(GPU) == pytest.approx(2000.0)


@pytest.mark.parametrize(
    "placement", [None, Placement("cpu", None, "float32", 1), Placement("cuda", 0, "bfloat16", None)]
)
def test_other_devices_have_no_joules(sampled: Telemetry, placement: Placement | None) -> None:
    assert sampled.joules(placement) is None
    assert sampled.dram_bytes(placement) is None


def test_renumbered_gpus_are_not_guessed(sampled: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert sampled.joules(GPU) is None
