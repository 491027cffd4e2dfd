"""Claims about refusals: each is a state of the metrics it concerns, and of no other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from atts_runtime.profiler.gpm import COUNTERS
from atts_runtime.profiler.nvml import NO_DEVICE, NvmlReader, NvmlSampler
from atts_runtime.profiler.nvml_device import QUERIES, UNITS, verdict

TIMES = [0.0, 0.2, 0.4, 0.6]
GPM = {counter.name for counter in COUNTERS} | {"dram_rate"}
ASKED_BY = {
    "nvmlDeviceGetMemoryInfo_v2": {"memory_used"},
    "nvmlDeviceGetPowerUsage": {"power"},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy"},
    "nvmlDeviceGetClockInfo": {"sm_clock", "memory_clock"},
    "nvmlDeviceGetUtilizationRates": {"gpu_busy", "memory_busy"},
    "nvmlDeviceGetPcieThroughput": {"pcie_tx", "pcie_rx"},
    "nvmlDeviceGetMemoryBusWidth": {"dram_rate"},
    "nvmlDeviceGetMaxClockInfo": {"dram_rate"},
    "nvmlDeviceGetMigMode": set(),
    "nvmlDeviceGetName": set(),
    "nvmlGpmQueryDeviceSupport": GPM,
    "nvmlGpmSampleAlloc": GPM,
    "nvmlGpmSampleGet": GPM,
    "nvmlGpmMetricsGet": GPM,
    "gpm2": {"gpm_sm"},
    "gpm10": {"gpm_dram", "dram_rate"},
}


def states(out: dict, engine: str = "gpu0") -> dict[str, str]:
    return {metric: state["state"] for metric, state in out["states"][engine].items()}


def expected(concerned: set[str], state: str) -> dict[str, str]:
    return {metric: state if metric in concerned else "available" for metric in UNITS}


def test_every_metric_of_a_whole_device_becomes_available(drive) -> None:
    out = drive(times=TIMES)
    assert states(out) == expected(set(), "")
    assert {(state["reason"], state["failures"]) for state in out["states"]["gpu0"].values()} == {("", 0)}


@pytest.mark.parametrize("function", ASKED_BY)
def test_not_supported_is_a_state_of_that_functions_metrics_alone(drive, function: str) -> None:
    out = drive(times=TIMES, FAIL=f"{function}=3")
    assert states(out) == expected(ASKED_BY[function], "unsupported")
    for metric in ASKED_BY[function]:
        assert "Not Supported" in out["states"]["gpu0"][metric]["reason"]
        assert not [row for row in out["rows"] if row["metric"] == metric]


@pytest.mark.parametrize("function", ["nvmlDeviceGetPowerUsage", "nvmlGpmSampleGet", "nvmlGpmMetricsGet", "gpm2"])
@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        (4, "unavailable", "Insufficient Permissions"),
        (13, "unsupported", "Function Not Found"),
        (15, "unavailable", "GPU is lost"),
        (21, "warming", ""),
        (25, "unsupported", ""),
        (27, "warming", ""),
        (999, "error", "Unknown Error"),
    ],
)
def test_each_code_means_one_state(drive, function: str, code: int, state: str, reason: str) -> None:
    out = drive(times=TIMES, FAIL=f"{function}={code}")
    assert states(out) == expected(ASKED_BY[function], state)
    assert all(reason in out["states"]["gpu0"][metric]["reason"] for metric in ASKED_BY[function])


@pytest.mark.parametrize(
    ("missing", "concerned"),
    [
        ("nvmlDeviceGetPowerUsage", {"power"}),
        ("nvmlDeviceGetTotalEnergyConsumption", {"energy"}),
        ("nvmlDeviceGetMemoryInfo_v2", {"memory_used"}),
        ("GPM", GPM),
    ],
)
def test_a_library_without_a_function_leaves_its_metrics_unsupported(drive, missing: str, concerned: set[str]) -> None:
    out = drive(f"WITHOUT_{missing}", times=TIMES)
    assert states(out) == expected(concerned, "unsupported")
    assert all(out["states"]["gpu0"][metric]["reason"] == "Function Not Found" for metric in concerned)


def test_an_error_that_passes_leaves_the_metric_available_and_is_counted(drive) -> None:
    fail, heal = {"ATTS_FAKE_NVML_FAIL": "nvmlDeviceGetPowerUsage=999"}, {"ATTS_FAKE_NVML_FAIL": ""}
    out = drive(times=[i / 8 for i in range(33)], changes=[[1.0, fail], [2.0, heal]], windows=[[0.0, 4.0]])
    power = out["states"]["gpu0"]["power"]
    assert power == {"state": "available", "reason": "Unknown Error", "samples": 25, "failures": 8}
    assert out["windows"][0]["gpu0"]["power"]["step_s"] == 1.125  # the hole shows


def test_gpm_windows_span_a_sample_that_failed_and_lose_one_that_gave_no_metrics(drive) -> None:
    times = [0.0, 0.25, 0.5, 0.75, 1.0]
    for function, covered_s in (("nvmlGpmSampleGet", 1.0), ("nvmlGpmMetricsGet", 0.75)):
        changes = [[0.5, {"ATTS_FAKE_NVML_FAIL": f"{function}=999"}], [0.6, {"ATTS_FAKE_NVML_FAIL": ""}]]
        out = drive(times=times, changes=changes, windows=[[0.0, 1.0]])
        assert out["states"]["gpu0"]["gpm_sm"]["failures"] == 1
        assert out["windows"][0]["gpu0"]["gpm_sm"]["covered_s"] == covered_s


def test_gpm_that_could_not_be_opened_for_now_is_tried_again(drive) -> None:
    for function in ("nvmlGpmQueryDeviceSupport", "nvmlGpmSampleAlloc"):
        heal = [0.4, {"ATTS_FAKE_NVML_FAIL": ""}]
        out = drive(times=[0.0, 0.2, 0.4, 0.6], changes=[heal], FAIL=f"{function}=999", windows=[[0.0, 0.6]])
        assert states(out) == expected(set(), "")
        assert out["windows"][0]["gpu0"]["gpm_sm"]["covered_s"] == pytest.approx(0.2)


def test_gpm_warms_until_its_second_sample(drive) -> None:
    out = drive(times=[0.0, 0.1])
    assert states(out) == expected(GPM, "warming")
    assert "second sample" in out["states"]["gpu0"]["gpm_sm"]["reason"]


def test_in_mig_mode_and_before_hopper_gpm_is_unsupported(drive) -> None:
    for options, reason in (({"MIG": 1}, "MIG"), ({"GPM": 0}, "Hopper")):
        out = drive(times=TIMES, **options)
        assert states(out) == expected(GPM, "unsupported")
        assert all(reason in out["states"]["gpu0"][metric]["reason"] for metric in GPM)


def test_without_a_bus_width_there_is_no_dram_rate_but_its_percentage(drive) -> None:
    out = drive(times=TIMES, FAIL="nvmlDeviceGetMemoryBusWidth=3", windows=[[0.0, 0.6]])
    assert "bus width" in out["states"]["gpu0"]["dram_rate"]["reason"]
    assert out["windows"][0]["gpu0"]["dram_rate"] is None
    assert out["windows"][0]["gpu0"]["gpm_dram"]["value"] > 0


def test_a_value_that_is_not_a_number_is_an_error(drive) -> None:
    out = drive(times=TIMES, NAN=1)
    assert states(out) == expected({"gpm_sm"}, "error")
    assert not [row for row in out["rows"] if row["metric"] == "gpm_sm"]


def test_a_device_that_cannot_be_opened_is_unavailable_and_says_why(drive) -> None:
    out = drive(times=TIMES, FAIL="nvmlDeviceGetHandleByIndex_v2=4", DEVICES=2)
    for engine in ("gpu0", "gpu1"):
        assert set(states(out, engine).values()) == {"unavailable"}
        assert {state["reason"] for state in out["states"][engine].values()} == {"Insufficient Permissions"}
    assert set(states(drive(times=TIMES, indices=[7]), "gpu7").values()) == {"unavailable"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"FAIL": "nvmlInitWithFlags=9"}, "Driver Not Loaded"),
        ({"FAIL": "nvmlInitWithFlags=18"}, "mismatch"),
        ({"FAIL": "nvmlInitWithFlags=999"}, "Unknown Error"),
        ({"FAIL": "nvmlDeviceGetCount_v2=4"}, "Insufficient Permissions"),
        ({"DEVICES": 0}, "NVML sees no GPU"),
    ],
)
def test_without_a_driver_or_a_gpu_everything_is_unavailable(drive, options: dict, reason: str) -> None:
    out = drive(times=TIMES, windows=[[0.0, 1.0]], **options)
    assert set(states(out, NO_DEVICE).values()) == {"unavailable"}
    assert all(reason in state["reason"] for state in out["states"][NO_DEVICE].values())
    assert (out["rows"], out["windows"]) == ([], [{}])


def test_a_library_that_cannot_start_is_unavailable(drive, tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    for out in (drive("WITHOUT_nvmlInitWithFlags", times=TIMES), drive(folder=tmp_path, times=TIMES)):
        assert set(states(out, NO_DEVICE).values()) == {"unavailable"}


def test_without_the_library_or_the_binding_start_and_stop_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", absent)
    no_library = NvmlSampler(NvmlReader())
    monkeypatch.setitem(sys.modules, "pynvml", None)
    no_binding = NvmlSampler(NvmlReader())
    for sampler, reason in ((no_binding, "pynvml"), (no_library, "Library Not Found")):
        if sampler is no_library:
            monkeypatch.setitem(sys.modules, "pynvml", pynvml)
        with sampler:
            sampler.start()
            sampler.reader.sample()
        sampler.stop()
        assert sampler.reader.states().keys() == {NO_DEVICE}
        for state in sampler.reader.states()[NO_DEVICE].values():
            assert state.state == "unavailable"
            assert reason in state.reason
        assert sampler.reader.rows() == []
        assert sampler.cost.cores is None


def test_a_binding_without_the_function_is_unsupported() -> None:
    assert verdict(AttributeError("module 'pynvml' has no attribute 'nvmlGpmSampleGet'")).state == "unsupported"


def test_every_metric_has_one_unit_and_one_query() -> None:
    asked = [name for query in QUERIES for name, _ in query.metrics] + [counter.name for counter in COUNTERS]
    assert len(asked) == len(set(asked))
    assert UNITS.keys() == {*asked, "dram_rate"}


def test_an_interval_must_be_positive() -> None:
    with pytest.raises(ValueError, match="interval_s"):
        NvmlSampler(NvmlReader(), interval_s=0.0)
