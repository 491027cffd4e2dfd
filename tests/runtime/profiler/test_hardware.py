"""Hardware and engine profiles say what they were measured to be, survive a round trip, and name what is amiss."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atts_runtime.errors import InputError
from atts_runtime.machine import _name_in
from atts_runtime.profiler import ModelSpec
from atts_runtime.profiler.engineprofile import EngineProfile, shipped_engines
from atts_runtime.profiler.hardware import HardwareProfile, for_machine, machine_name, shipped
from atts_runtime.profiler.roofline import last_level_cache_bytes, measure_peaks
from tests.full_disk import full_disk

PROFILES = Path(__file__).parents[3] / "profiles"
ENGINES = sorted((PROFILES / "engines").glob("*.toml"))
CPU = PROFILES / "hardware" / "amd-epyc-milan.toml"


def spec_of(model: str) -> ModelSpec:
    return ModelSpec.from_toml(PROFILES / "models" / f"{model.replace('/', '-')}.toml")


def test_data_sheets_are_dense_rates() -> None:
    rates = {(name, p.dtype): p.flops_per_s for name, profile in shipped().items() for p in profile.peaks}
    assert rates["nvidia-a100-80gb-sxm", "bfloat16"] == 312e12
    assert rates["nvidia-h100-80gb-sxm", "bfloat16"] == rates["nvidia-h200", "bfloat16"] == 989.5e12
    assert rates["nvidia-h200", "fp8"] == 1979e12
    h200 = shipped()["nvidia-h200"].peak("bfloat16")
    assert (h200.bytes_per_s, h200.kind) == (4.8e12, "datasheet")
    assert h200.machine_balance == pytest.approx(206.1, rel=1e-3)
    assert h200.t_c_s_per_flop * h200.flops_per_s == pytest.approx(1.0)


def test_a_peak_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(
        InputError, match="float32 with 7 threads; it has float32 with 1 thread, float32 with 2 threads"
    ):
        HardwareProfile.from_toml(CPU).peak("float32", 7)


def test_a_machine_is_known_again_by_its_name() -> None:
    name = machine_name("cpu")
    found = for_machine("cpu")
    assert found is None or found.machine == name
    lines = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nstepping\t: 1"
    assert _name_in(lines) == HardwareProfile.from_toml(CPU).machine
    assert _name_in("model name\t: a CPU: of one kind") == "a CPU: of one kind"
    assert _name_in("processor\t: 0") is None


@pytest.mark.parametrize("path", sorted((PROFILES / "hardware").glob("*.toml")), ids=lambda path: path.stem)
def test_a_hardware_profile_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    profile = HardwareProfile.from_toml(path)
    assert profile.name == path.stem
    profile.to_toml(tmp_path / "again.toml")
    assert HardwareProfile.from_toml(tmp_path / "again.toml") == profile


def test_a_profile_that_cannot_be_written_leaves_the_one_that_was_there_and_a_link_stays_one(tmp_path: Path) -> None:
    profile = HardwareProfile.from_toml(CPU)
    link, file = tmp_path / "link.toml", tmp_path / "kept" / "profile.toml"
    file.parent.mkdir()
    link.symlink_to(file)
    profile.to_toml(link)
    assert link.is_symlink()
    before = file.read_bytes()
    with pytest.raises(InputError, match=f"cannot write {link}: File too large; choose another place"), full_disk(100):
        profile.to_toml(link)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("path", ENGINES, ids=lambda path: path.stem)
def test_an_engine_profile_survives_a_round_trip_and_meets_its_bars(path: Path, tmp_path: Path) -> None:
    profile = EngineProfile.from_toml(path)
    profile.to_toml(tmp_path / "again.toml")
    assert EngineProfile.from_toml(tmp_path / "again.toml") == profile
    for phase in ("append", "decode"):
        _, held_out = profile.residuals(phase)
        assert held_out.points >= 20
        assert held_out.median <= 0.10
        assert held_out.p90 <= 0.25
    model = profile.step_model(spec_of(profile.model))
    assert 1e-4 < model.decode_seconds(8, 8 * 200, 200) < 1e-1
    assert profile.hardware in shipped()


def test_the_bundled_pair_ships_with_engine_profiles_of_one_thread() -> None:
    assert {(p.model, p.threads) for p in shipped_engines().values()} == {("bundled/draft", 1), ("bundled/target", 1)}


def test_another_models_engine_profile_is_refused() -> None:
    profile = next(p for p in shipped_engines().values() if p.model == "bundled/draft")
    with pytest.raises(InputError, match=r"is of bundled/draft .* but bundled/target has"):
        profile.step_model(spec_of("bundled/target"))


BAD = {
    "a missing number": ("bytes_per_s = {", "bytes_per_h = {", "unknown entry 'bytes_per_h'"),
    "a negative number": ("flops_per_s = { value = ", "flops_per_s = { value = -", "must be finite and above 0"),
    "not a number": ("flops_per_s = { value = ", "flops_per_s = { value = nan #", "is not TOML"),
    "another unit": ('unit = "bytes/s"', 'unit = "GB/s"', "give it in bytes/s"),
    "no provenance": ('kind = "measured", source = "best', 'kind = "guess", source = "best', "has kind 'guess'"),
    "another device": ('device = "cpu"', 'device = "tpu"', "choose one of cpu, cuda"),
    "no threads": ("threads = 1", "threads = 0", "'threads' must be a whole number above 0"),
    "a peak twice": ("threads = 2", "threads = 1", "each with another dtype or number of threads"),
}


@pytest.mark.parametrize("name", ["flops_per_s", "bytes_per_s"])
def test_a_peak_that_no_float_can_hold_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    text = CPU.read_text(encoding="utf-8")
    path.write_text(re.sub(rf"\b({name} = {{ value = )[^,]+", rf"\g<1>{10**400}", text), encoding="utf-8")
    with pytest.raises(InputError, match=rf"peaks.0..{name} must be finite and above 0, got 10{{39}}$"):
        HardwareProfile.from_toml(path)


@pytest.mark.parametrize("what", sorted(BAD))
def test_a_hardware_profile_that_is_wrong_is_refused_by_name(what: str, tmp_path: Path) -> None:
    old, new, message = BAD[what]
    text = CPU.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "bad.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        HardwareProfile.from_toml(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\nmfu = {", "\nmfv = {", "append.mfu is missing"),
        ("row_s = { value = ", "row_s = { value = -1", "append.row_s must be finite and not negative"),
        ("eta = { value = 0", "eta = { value = 1", "append.eta must be at most 1"),
        ("rows_to = 4", "rows_to = 0", "rows_to must be a whole number above 0"),
        ("rows_to = 4", f"rows_to = {10**400}", "rows_to must be at most 2147483647"),
        ("\nmfu = {", "\nmfu" + ".a" * 5000 + " = {", "is not TOML"),
        ("\nmfu = {", "\nmfu" + ".a" * 90 + " = {", "append.mfu is missing"),
        ("rows_to = 4", f"rows_to = 0x{'f' * 5000}", "is not TOML"),
        ("[16, 32,", "[32, 16,", "must ascend"),
    ],
)
def test_an_engine_profile_that_is_wrong_is_refused_by_name(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = ENGINES[0].read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "bad.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        EngineProfile.from_toml(path)


CACHED = "bundled-target-intel-xeon-emerald-rapids"


@pytest.mark.parametrize(
    ("pattern", "new", "message"),
    [
        (r"\ncache_bytes = .*", "", "cache_bytes is missing; add it, or leave out the other"),
        (r"\neta_beyond = .*", "", "eta_beyond is missing; add it, or leave out the other"),
        (r"(\neta_beyond = { value = )[\d.]+", r"\g<1>1.0", r"eta_beyond must not exceed eta \(0"),
        (r"\ncall_s = .*", "", r"calls\.(generate|score)\.call_s is missing"),
        (r"(?s)\n\[calls\].*", "\n", r"calls\.generate\.call_s is missing"),
    ],
)
def test_numbers_of_a_profile_that_belong_together_come_together(
    pattern: str, new: str, message: str, tmp_path: Path
) -> None:
    (shipped,) = (path for path in ENGINES if path.stem == CACHED)
    path = tmp_path / "bad.toml"
    path.write_text(re.sub(pattern, new, shipped.read_text(encoding="utf-8"), count=1), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        EngineProfile.from_toml(path)
    assert str(caught.value).startswith(str(path))


def test_peaks_are_measured_and_torch_is_left_as_it_was() -> None:
    import torch

    before = torch.get_num_threads()
    found = measure_peaks("cpu", "float32", 1, 0.01)
    assert torch.get_num_threads() == before
    assert found.flops_per_s > 1e8
    assert found.bytes_per_s > 1e8
    peak = found.peak("float32", 1, None)
    assert (peak.kind, peak.threads) == ("measured", 1)


@pytest.mark.parametrize(
    ("device", "dtype", "message"), [("cpu", "bfloat16", "choose one of float32 on cpu"), ("meta", "float32", "choose")]
)
def test_peaks_that_are_not_measured_are_named(device: str, dtype: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure_peaks(device, dtype, 1, 0.01)


def test_the_last_level_cache_is_read_from_sysfs(tmp_path: Path) -> None:
    assert last_level_cache_bytes(tmp_path) is None
    for index, size in enumerate(["32K", "1M", "32768K", "strange"]):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n", encoding="ascii")
    assert last_level_cache_bytes(tmp_path) == 32 * 2**20


@pytest.mark.gpu
def test_a_gpu_comes_near_its_data_sheet_and_not_above() -> None:
    profile = for_machine("cuda")
    assert profile is not None, "no profile of this GPU is shipped"
    stated, found = profile.peak("bfloat16"), measure_peaks("cuda", "bfloat16", None, 4.0)
    assert 0.4 * stated.flops_per_s < found.flops_per_s < 1.05 * stated.flops_per_s
    assert 0.6 * stated.bytes_per_s < found.bytes_per_s < 1.05 * stated.bytes_per_s
