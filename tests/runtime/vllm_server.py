"""A real vLLM server of a model's folder, as a process that tests may kill and start again on the same port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
_READY_S = 400.0  # on a busy machine; 45 s on two idle cores

_given: set[int] = set()


def unused_port() -> int:
    """A free port of the loopback that no other server of this process has been given, though not yet listening."""
    with contextlib.ExitStack() as held:
        while True:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port not in _given:
                _given.add(port)
                return port


class VllmServer:
    """``python -m vllm.entrypoints.openai.api_server``, which is what ``vllm serve`` runs."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.port = unused_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)),
            *("--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32", "--enforce-eager"),
            "--no-enable-chunked-prefill",  # docs/engines.md: on a CPU it kills a server whose calls have seeds
            *("--block-size", "32", "--max-num-seqs", "64", "--enable-scale-out", "--enable-prompt-tokens-details"),
            *more,
        ]
        self._log = Path(tempfile.mkstemp(prefix="vllm-server-", suffix=".log")[1])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        """Start it; `wait` until it answers."""
        cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a group of its own, to be killed whole
                env={**os.environ, **cpu, "VLLM_NO_USAGE_STATS": "1"},
            )
        if wait:
            self.ready()

    def ready(self) -> None:
        """Until it answers; raises AssertionError with the end of its log where it does not."""
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise AssertionError(f"vLLM does not serve:\n{self._log.read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        """kill -9, its engine core and worker included."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """The same, and its log goes."""
        self.kill()
        self._log.unlink(missing_ok=True)
