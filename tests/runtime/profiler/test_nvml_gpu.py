"""Claims about a real GPU; run by `make gpu-check`."""

from __future__ import annotations

import time

import pytest

from atts_runtime.profiler.nvml import NO_DEVICE, NvmlReader, NvmlSampler

pytestmark = pytest.mark.gpu


def test_two_seconds_of_matmul_show_in_the_samples() -> None:
    """The index is NVML's: where CUDA orders its devices otherwise, set CUDA_DEVICE_ORDER=PCI_BUS_ID."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU that torch can use")
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    torch.cuda.synchronize()
    index = torch.cuda.current_device()
    with NvmlSampler(NvmlReader(time.monotonic, indices=[index])) as sampler:
        begin_s = time.monotonic()
        while time.monotonic() < begin_s + 2.0:
            for _ in range(10):
                a @ a
            torch.cuda.synchronize()
        end_s = time.monotonic()
    states = sampler.reader.states()
    assert NO_DEVICE not in states, states
    assert all(state.reason for state in states[f"gpu{index}"].values() if state.state != "available")
    record = sampler.reader.records[f"gpu{index}"]
    assert record.source == "measured"
    middle = (begin_s + 0.5, end_s)  # utilization and power lag
    assert record.integral("memory_used", *middle).mean > a.nbytes
    if "gpu_busy" in record.points:
        assert record.integral("gpu_busy", *middle).mean > 50
    if "gpm_hmma" in record.spans:
        assert record.integral("gpm_hmma", *middle).mean > 10
        assert 0 < record.integral("dram_rate", *middle).mean < 10e12
    energy = record.energy(begin_s, end_s)
    assert energy.joules is None or energy.joules > 2.0 * 20  # more than an idle board
    if energy.provenance == "counter":
        counted = record.energy(*middle).joules
        assert counted == pytest.approx(record.integral("power", *middle).value, rel=0.3)
