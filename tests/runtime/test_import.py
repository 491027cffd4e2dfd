"""Claims about what importing the packages costs."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"torch", "transformers", "vllm", "pandas", "pyarrow", "datasets", "math_verify", "ray"}


def test_importing_both_packages_and_the_command_line_loads_nothing_heavy() -> None:
    probe = f"import sys, atts_runtime, atts_runtime.cli, atts_sim; print(sorted({HEAVY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_controller_and_the_driver_load_no_engine() -> None:
    probe = f"import sys, atts_runtime.session; print(sorted({HEAVY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
