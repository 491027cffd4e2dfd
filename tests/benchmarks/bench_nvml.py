"""What the NVML sampler takes of one core at 10 Hz: on the machine's GPUs, or else on the fake library of the tests.

    python tests/benchmarks/bench_nvml.py --seconds 10

The fake answers without a driver, so its figure is what Python and pynvml cost; a driver's own time comes on top.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from atts_runtime.profiler.nvml import NvmlReader, NvmlSampler

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests" / "runtime" / "profiler" / "fake_nvml.c"
CHILD = "ATTS_BENCH_NVML_CHILD"


def measure(seconds: float, interval_s: float) -> dict[str, Any] | None:
    """Samples for so long; None where there is no GPU."""
    with NvmlSampler(NvmlReader(), interval_s) as sampler:
        if not sampler.reader.devices:
            return None
        names = [device.name for device in sampler.reader.devices.values()]
        time.sleep(seconds)
    sources = {record.source for record in sampler.reader.records.values()}
    cost = dataclasses.asdict(sampler.cost) | {"cores": sampler.cost.cores}
    return {"devices": names, "source": sorted(sources), "rows": len(sampler.reader.rows()), **cost}


def on_the_fake(arguments: list[str]) -> int:
    """This script again, in a process that finds the fake library."""
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder) / "libnvidia-ml.so.1")
        command = ["gcc", "-O1", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", library, str(FAKE), "-lm"]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            print("bench_nvml: no GPU, and no gcc to build the fake library with")
            return 0
        env = os.environ | {"LD_LIBRARY_PATH": folder, "PYTHONPATH": str(ROOT), CHILD: "1"}
        return subprocess.run([sys.executable, __file__, *arguments], env=env, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description="the NVML sampler's share of a core")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--interval-s", type=float, default=0.1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args.seconds, args.interval_s)
    if found is None:
        return 1 if CHILD in os.environ else on_the_fake(sys.argv[1:])
    if args.json:
        print(json.dumps(found))
    else:
        print(
            f"{', '.join(map(str, found['devices']))} ({', '.join(found['source'])}): {found['samples']} samples in "
            f"{found['wall_s']:.1f} s took {found['cpu_s'] * 1e3:.1f} ms of CPU, {found['cores']:.3%} of one core; "
            f"{found['rows']} rows"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
