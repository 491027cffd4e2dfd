"""Sweeps on Ray: this machine as a cluster, and one that somebody else started, which asks for a token."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atts_runtime.errors import InputError
from atts_sim.pool import Ray
from atts_sim.study import Study
from tests.runtime.vllm_server import unused_port
from tests.sim.made_studies import made_study, made_trace
from tests.sim.test_sweep import ALPHAS, SWEEP, files

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="Ray is an extra, and not installed")

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4, "RAY_USAGE_STATS_ENABLED": "0"}
UP_S = 60.0


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of one core."""
    port = unused_port()
    ray = Path(sys.executable).with_name("ray")
    start = [ray, "start", "--head", "--block", f"--port={port}", "--num-cpus=1", "--include-dashboard=false"]
    with subprocess.Popen(
        start, env={**os.environ, **TOKEN}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as head:
        try:
            until = time.monotonic() + UP_S
            while not listens(port):
                assert head.poll() is None
                assert time.monotonic() < until
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()


def swept(study: Study, folder: Path, *how: str, **variables: str) -> dict[str, bytes]:
    """The files of a sweep by the command, since Ray leaves its processes to the end of whoever started them."""
    (folder / "study.toml").write_text(study.to_toml())
    done = subprocess.run(
        [sys.executable, "-m", "atts_sim.cli", "sweep", "study.toml", "--out", "out", *how],
        cwd=folder,
        env={**os.environ, **variables, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=10 * UP_S,
    )
    assert done.returncode == 0, done.stderr
    found = files(folder / "out")
    shutil.rmtree(folder / "out")
    return found


@pytest.mark.usefixtures("cluster")  # which Ray would join by itself
@pytest.mark.parametrize(("more", "needs"), [(SWEEP, ()), (ALPHAS, ("optuna",))], ids=["grid", "optuna"])
def test_this_machine_as_a_cluster_writes_the_bytes_of_one_process(
    more: str, needs: tuple[str, ...], tmp_path: Path
) -> None:
    for name in needs:
        pytest.importorskip(name, reason=f"{name} is an extra, and not installed")
    study = made_study(made_trace(tmp_path), more)
    assert swept(study, tmp_path, "--ray") == swept(study, tmp_path, "--jobs", "1")


def test_a_cluster_that_asks_for_a_token_does_so_too(cluster: str, tmp_path: Path) -> None:
    study = made_study(made_trace(tmp_path), SWEEP)
    assert swept(study, tmp_path, "--ray", cluster, **TOKEN) == swept(study, tmp_path, "--jobs", "1")


def test_a_cluster_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    study = made_study(made_trace(tmp_path))
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9"):
        with pytest.raises(InputError, match=rf"--ray: no cluster at '{address}' \(.*refused\)"):
            Ray(study, address)
