"""Claims about what people install: wheel and source distribution, in an environment that holds nothing else.

They are built and installed as a user would, dependencies included, at the versions of constraints.txt; a package index
has to be within reach.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from atts_runtime import __version__

ROOT = Path(__file__).parents[2]
SMALL = ["--questions", "2", "--chains", "2", "--turns", "12"]
pytestmark = pytest.mark.slow


def checked(command: list[str | Path], cwd: Path) -> str:
    """Stdout of a command that must succeed; nothing of the source tree or of this environment is on its path."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=kept, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it alone."""
    folder = tmp_path_factory.mktemp("dist")
    checked([sys.executable, "-m", "build", "--outdir", folder, ROOT], folder)
    return folder


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh environment that has the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    (wheel,) = dist.glob("*.whl")
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    checked([*pip, wheel, "-c", ROOT / "constraints.txt"], folder)
    return folder / "bin"


@pytest.fixture(scope="module")
def run(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of the bundled pair by the installed command, from an empty folder: where it is, and what it printed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    told = checked([installed / "atts-runtime", "run", *SMALL, "--out", "mine", "--json"], folder)
    return folder / "mine", json.loads(told)


def test_the_wheel_holds_the_packages_the_bundled_pair_and_the_profiles_and_no_tests(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "atts_runtime",
        "atts_sim",
        f"atts-{__version__}.data",
        f"atts-{__version__}.dist-info",
    }
    assert {f"atts_runtime/models/{role}/model.safetensors" for role in ("draft", "target")} <= set(names)
    for profile in (ROOT / "profiles").glob("*/*.*"):
        assert f"atts-{__version__}.data/data/share/atts/profiles/{profile.relative_to(ROOT / 'profiles')}" in names


def test_the_source_distribution_holds_what_tests_and_documentation_need(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    assert not set(tracked) - names - {".ci/run", ".gitattributes", ".gitignore"}


def test_the_installed_command_runs_the_bundled_pair(run: tuple[Path, dict[str, Any]]) -> None:
    _, told = run
    assert told["questions"] == 2
    assert told["chains"] == 4
    assert told["failed_chains"] == 0
    assert told["accuracy"]["mean_chain"] > 0.5


def test_the_installed_commands_diagnose_report_and_trace(installed: Path, run: tuple[Path, dict[str, Any]]) -> None:
    path, _ = run
    assert json.loads(checked([installed / "atts-runtime", "doctor", "--json"], path.parent))["works"]
    for command in ("report", "trace"):
        checked([installed / "atts-runtime", command, path], path.parent)
    assert (path / "report.html").stat().st_size > 10_000
    assert json.loads((path / "trace.json").read_text())["traceEvents"]


def test_the_installed_simulator_sweeps_a_shipped_study(installed: Path, run: tuple[Path, dict[str, Any]]) -> None:
    path, _ = run
    study = ["policy-comparison", "--set", f"workload.path={path}", "--jobs", "1", "--out", "sweep", "--json"]
    told = json.loads(checked([installed / "atts-sim", "sweep", *study], path.parent))
    assert told["errors"] == 0
    assert tomllib.loads((path.parent / "sweep" / "best.toml").read_text())["policy"]


def test_the_source_distribution_installs_too(installed: Path, dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    pip = [installed / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    checked([*pip, "--no-deps", "--force-reinstall", sdist], dist)
    assert checked([installed / "atts-runtime", "--version"], dist).split() == ["atts-runtime", __version__]
