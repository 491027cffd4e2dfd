"""Fixtures: one thread for torch; the fake NVML library, compiled on demand, and processes that sample it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

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


@pytest.fixture(scope="session")
def process() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """``process(folder)``: one that runs `drive_nvml.py` on the folder's library, started at the first call."""
    running: dict[Path, subprocess.Popen[str]] = {}
    with contextlib.ExitStack() as stack:

        def start(folder: Path) -> subprocess.Popen[str]:
            if folder not in running:
                command = [sys.executable, str(HERE / "drive_nvml.py")]
                env = os.environ | {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(ROOT)}
                popen = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                running[folder] = stack.enter_context(popen)  # on the way out its input ends, and so does it
            return running[folder]

        yield start


@pytest.fixture
def drive(build: Build, process: Callable[[Path], subprocess.Popen[str]]) -> Drive:
    """``drive("WITHOUT_X", times=..., MIG=1)``: the answer of `drive_nvml.py`; capitals are the fake's settings."""

    def run(*without: str, folder: Path | None = None, **options: Any) -> dict[str, Any]:
        script: dict[str, Any] = {"times": [], "changes": [], "windows": [], "indices": None, "thread": False}
        script |= {name: value for name, value in options.items() if name.islower()}
        settings = {f"ATTS_FAKE_NVML_{name}": str(value) for name, value in options.items() if name.isupper()}
        driver = process(folder or build(*without))
        assert driver.stdin is not None
        assert driver.stdout is not None
        driver.stdin.write(json.dumps(script | {"settings": settings}) + "\n")
        driver.stdin.flush()
        out: dict[str, Any] = json.loads(driver.stdout.readline())
        assert "failed" not in out, out["failed"]
        assert out["after_close"] in (None, {"open": 0, "samples": 0})  # all given back, whatever went wrong
        return out

    return run


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch computes in one thread, as long as a module's tests run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
