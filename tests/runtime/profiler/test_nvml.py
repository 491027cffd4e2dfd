"""Claims about sampling: what the fake library's programmed curve integrates to, and in which form it is kept.

The curve is in fake_nvml.c. The real pynvml loads the fake in a process of its own; time is set, not waited for.
"""

from __future__ import annotations

import math
from collections import Counter

import pytest

TIMES = [i / 8 for i in range(65)]  # 0 to 8 s; exact in binary, and more than 100 ms apart for GPM
BEGIN_S, END_S = 0.33, 7.87  # on no sample and no multiple of the period
WINDOW_S = END_S - BEGIN_S
DRAM_PEAK = 2 * 2619e6 * 5120 / 8


def activity_s(t_s: float) -> float:
    """Integral of the programmed activity from 0 on."""
    return t_s / 2 - 4 / (4 * math.pi) * math.sin(2 * math.pi * t_s / 4)


ACTIVITY_S = activity_s(END_S) - activity_s(BEGIN_S)
JOULES = 100 * WINDOW_S + 500 * ACTIVITY_S


def within(expected: float, share: float) -> object:
    return pytest.approx(expected, rel=share)


def test_integrals_of_the_programmed_curve_are_recovered(drive) -> None:
    """At 8 Hz: energy within 0.1% by either source, means and bytes within 0.5%."""
    (seen,) = [window["gpu0"] for window in drive(times=TIMES, windows=[[BEGIN_S, END_S]])["windows"]]
    assert seen["drawn"]["provenance"] == "counter"
    assert seen["drawn"]["joules"] == within(JOULES, 1e-3)
    assert seen["drawn"]["covered_s"] == pytest.approx(WINDOW_S)
    assert seen["power"]["value"] == within(JOULES, 1e-3)
    assert seen["power"]["mean"] == within(JOULES / WINDOW_S, 1e-3)
    assert seen["dram_rate"]["value"] == within(0.6 * DRAM_PEAK * ACTIVITY_S, 5e-3)  # bytes
    full = {"sm": 80, "occupancy": 40, "tensor": 55, "hmma": 50, "dram": 60, "fp32": 10, "fp16": 5}
    for name, percent in full.items():
        assert seen[f"gpm_{name}"]["mean"] == within(percent * ACTIVITY_S / WINDOW_S, 5e-3)
    assert seen["gpm_pcie_tx"]["value"] == within(1000 * 2**20 * ACTIVITY_S, 5e-3)
    assert seen["gpm_pcie_rx"]["value"] == within(2000 * 2**20 * ACTIVITY_S, 5e-3)
    assert seen["gpm_sm"]["covered_s"] == pytest.approx(WINDOW_S)
    assert seen["gpu_busy"]["mean"] == within(100 * ACTIVITY_S / WINDOW_S, 5e-3)
    assert seen["memory_used"]["mean"] == within(2**31 + 2**30 * ACTIVITY_S / WINDOW_S, 5e-3)
    assert seen["sm_clock"]["mean"] == within(1e9 + 980e6 * ACTIVITY_S / WINDOW_S, 5e-3)
    assert seen["memory_clock"]["mean"] == within(2619e6, 1e-9)
    assert seen["pcie_tx"]["value"] == within(1e9 * ACTIVITY_S, 2e-2)  # every second sample


def test_without_an_energy_counter_energy_is_the_trapezoid_of_power(drive) -> None:
    out = drive(times=TIMES, windows=[[BEGIN_S, END_S]], FAIL="nvmlDeviceGetTotalEnergyConsumption=3")
    energy = out["windows"][0]["gpu0"]["drawn"]
    assert energy["provenance"] == "power"
    assert energy["joules"] == within(JOULES, 1e-3)
    assert energy["doubts"] == ["energy counter: no readings in the window"]


@pytest.mark.parametrize(("fault", "doubt"), [("stale=3", "stale"), ("backwards=3", "backwards")])
def test_a_stale_or_backwards_counter_is_flagged_and_power_takes_over(drive, fault: str, doubt: str) -> None:
    out = drive(times=TIMES, windows=[[BEGIN_S, END_S], [BEGIN_S, 2.8]], ENERGY=fault)
    across, before = (window["gpu0"]["drawn"] for window in out["windows"])
    assert (across["provenance"], across["joules"]) == ("power", within(JOULES, 1e-3))
    assert doubt in across["doubts"][0]
    assert (before["provenance"], before["doubts"]) == ("counter", [])


def test_a_stale_counter_without_power_leaves_energy_unknown(drive) -> None:
    out = drive(times=TIMES, windows=[[4.0, 8.0]], ENERGY="stale=3", FAIL="nvmlDeviceGetPowerUsage=3")
    energy = out["windows"][0]["gpu0"]["drawn"]
    assert (energy["joules"], energy["provenance"]) == (None, None)
    assert len(energy["doubts"]) == 2


def test_rows_have_the_columns_of_telemetry_and_come_in_order_of_time(drive) -> None:
    rows = drive(times=TIMES)["rows"]
    assert {tuple(row) for row in rows} == {("t_s", "engine", "source", "metric", "value", "unit")}
    assert [row["t_s"] for row in rows] == sorted(row["t_s"] for row in rows)
    assert {row["t_s"] for row in rows} == set(TIMES)
    assert {row["engine"] for row in rows} == {"gpu0"}
    assert {row["source"] for row in rows} == {"fake"}
    units = {(row["metric"], row["unit"]) for row in rows}
    assert units >= {("power", "W"), ("energy", "J"), ("dram_rate", "bytes/s"), ("gpm_sm", "%"), ("sm_clock", "Hz")}
    assert Counter(row["metric"] for row in rows) == {
        **dict.fromkeys(["memory_used", "power", "energy", "sm_clock", "memory_clock", "gpu_busy", "memory_busy"], 65),
        "pcie_tx": 33,
        "pcie_rx": 32,
        **{metric: 64 for metric, _ in units if metric.startswith("gpm") or metric == "dram_rate"},
    }


def test_only_a_device_that_calls_itself_fake_is_fake(drive) -> None:
    out = drive(times=[0.0, 0.2], NAME="NVIDIA H100 80GB HBM3")
    assert out["names"] == {"gpu0": "NVIDIA H100 80GB HBM3"}
    assert {row["source"] for row in out["rows"]} == {"measured"}


def test_gpm_samples_are_more_than_100_ms_apart_and_their_windows_adjoin(drive) -> None:
    """The fake refuses samples that are closer."""
    out = drive(times=[0.0, 0.05, 0.1, 0.15, 0.2, 0.24, 0.3])
    windows = [(row["t_s"], row["value"]) for row in out["rows"] if row["metric"] == "gpm_window"]
    assert windows == [(0.15, pytest.approx(0.15)), (0.3, pytest.approx(0.15))]
    assert out["states"]["gpu0"]["gpm_sm"]["samples"] == 2
    assert out["states"]["gpu0"]["gpm_sm"]["failures"] == 0


def test_devices_are_sampled_side_by_side_with_one_slow_call_a_sample(drive) -> None:
    out = drive(times=TIMES, windows=[[BEGIN_S, END_S]], DEVICES=2)
    whole, half = out["windows"][0]["gpu0"], out["windows"][0]["gpu1"]
    assert half["gpm_sm"]["mean"] == within(whole["gpm_sm"]["mean"] / 2, 1e-9)
    assert half["drawn"]["joules"] == within(100 * WINDOW_S + 250 * ACTIVITY_S, 1e-3)
    slow = [(row["engine"], row["metric"]) for row in out["rows"] if row["metric"].startswith("pcie")]
    assert Counter(slow) == {
        ("gpu0", "pcie_tx"): 17,
        ("gpu0", "pcie_rx"): 16,
        ("gpu1", "pcie_tx"): 16,
        ("gpu1", "pcie_rx"): 16,
    }


def test_only_the_devices_asked_for_are_sampled(drive) -> None:
    out = drive(times=[0.0, 0.2], DEVICES=3, indices=[1])
    assert set(out["states"]) == {"gpu1"}
    assert {row["engine"] for row in out["rows"]} == {"gpu1"}


def test_a_sampler_may_start_and_stop_twice_and_again_and_leaves_no_thread(drive) -> None:
    out = drive(thread=True, interval_s=0.02, samples=10)
    assert out["threads"] == ["atts-nvml", "atts-nvml"]
    assert out["left"] == []
    assert out["cost"]["samples"] >= 20
    assert out["states"]["gpu0"]["power"]["state"] == "available"
    assert all(row["t_s"] <= out["ended_s"] for row in out["rows"])
    assert sum(row["metric"] == "power" for row in out["rows"]) == out["cost"]["samples"]


def test_what_the_sampler_takes_of_a_core_is_measured(drive) -> None:
    cost = drive(thread=True, interval_s=0.02, samples=10)["cost"]
    assert 0 < cost["cpu_s"] < cost["wall_s"]
    assert cost["cores"] == pytest.approx(cost["cpu_s"] / cost["wall_s"])
