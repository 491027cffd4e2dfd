"""The peak behind r is the one asked for, else this machine's, else measured; and it says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from atts_runtime.engines.base import Placement
from atts_runtime.errors import InputError
from atts_runtime.profiler import device
from atts_runtime.profiler.device import device_peak
from atts_runtime.profiler.hardware import HardwareProfile, Peak
from atts_runtime.profiler.provenance import Number

CPU = Placement("cpu", None, "float32", 1)


def profile(machine: str = "this one", threads: int = 1) -> HardwareProfile:
    flops, moved = (Number(value, unit, "fake", "a test") for value, unit in ((2e9, "FLOP/s"), (1e9, "bytes/s")))
    return HardwareProfile("made", "cpu", machine, (Peak("float32", threads, flops, moved),))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped profiles are one of this machine, for one thread."""
    device._found.cache_clear()
    monkeypatch.setattr(device, "for_machine", lambda where: profile() if where == "cpu" else None)


@pytest.mark.usefixtures("machine")
def test_without_a_word_it_is_this_machines_profile() -> None:
    found = device_peak(CPU)
    assert found is not None
    assert (found.name, found.flops_per_s, found.bytes_per_s, found.kind) == ("made", 2e9, 1e9, "fake")
    assert found.balance == pytest.approx(2.0)


@pytest.mark.usefixtures("machine")
def test_threads_that_the_profile_lacks_are_measured() -> None:
    found = device_peak(Placement("cpu", None, "float32", 2))
    assert found is not None
    assert (found.name, found.kind, found.threads) == ("measured at the start", "measured", 2)
    assert found.flops_per_s > 0
    assert found.bytes_per_s > 0
    assert device_peak(Placement("cpu", None, "float32", 2)) is found  # once a process


@pytest.mark.usefixtures("machine")
def test_a_device_that_cannot_be_measured_has_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(device, "quick_peaks", full)
    assert device_peak(Placement("cpu", None, "float32", 3)) is None


def test_a_profile_asked_for_is_taken_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    profile("another").to_toml(path)
    found = device_peak(CPU, str(path))
    assert found is not None
    assert found.name == "made"


def test_a_shipped_profile_is_known_by_its_name() -> None:
    found = device_peak(Placement("cuda", 0, "bfloat16", 8), "nvidia-h100-80gb-sxm")
    assert found is not None
    assert (found.kind, found.threads) == ("datasheet", None)


@pytest.mark.parametrize(
    ("hardware", "says"),
    [("nowhere.toml", "no hardware profile"), ("nvidia-h100-80gb-sxm", "has no peak of float32 with")],
)
def test_a_profile_that_does_not_fit_is_named(hardware: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        device_peak(CPU, hardware)


def test_an_engine_that_computes_nowhere_has_no_peak() -> None:
    assert device_peak(None, "nowhere.toml") is None
