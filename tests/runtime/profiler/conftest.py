"""The fake NVML library, compiled on demand, and a process that samples it through the real pynvml."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

Build = Callable[..., Path]
Drive = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """``build("WITHOUT_X", ...)``: a folder with the library, less the symbols named."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is needed to build the fake NVML library")
    built: dict[tuple[str, ...], Path] = {}

    def library(*without: str) -> Path:
        if without not in built:
            folder = tmp_path_factory.mktemp("nvml")
            command = [compiler, "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
            command += ["-Wl,-soname,libnvidia-ml.so.1", *(f"-D{name}" for name in without)]
            command += ["-o", str(folder / "libnvidia-ml.so.1"), str(HERE / "fake_nvml.c"), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            built[without] = folder
        return built[without]

    return library


@pytest.fixture
def drive(build: Build) -> Drive:
    """``drive(times=..., MIG=1)``: what `drive_nvml.py` prints; capitals are the fake's settings."""

    def run(*without: str, folder: Path | None = None, **options: Any) -> dict[str, Any]:
        script = {"times": [], "changes": [], "windows": [], "indices": None, "thread": False}
        script |= {name: value for name, value in options.items() if name.islower()}
        env = {name: value for name, value in os.environ.items() if not name.startswith("ATTS_FAKE")}
        env |= {f"ATTS_FAKE_NVML_{name}": str(value) for name, value in options.items() if name.isupper()}
        env |= {"LD_LIBRARY_PATH": str(folder or build(*without)), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, str(HERE / "drive_nvml.py")],
            input=json.dumps(script),
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        out = json.loads(done.stdout)
        assert out["after_close"] in (None, {"open": 0, "samples": 0})  # all given back, whatever went wrong
        return out

    return run
