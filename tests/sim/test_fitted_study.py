"""From a run to a study of chains that it did not have: fit, save, sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from atts_sim.cli import main
from atts_sim.results import ROWS, read_rows
from tests.sim.made_runs import make_run

CHAINS = "sweep.chains={ from = 1, to = 16, steps = 5, log = true }"


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `atts-sim validate RUN --save` writes it."""
    folder = tmp_path_factory.mktemp("fitted")
    make_run(folder / "run", "barrier", chains=4)
    # The profiles alone are optimistic about this run; what is saved does not hang on that.
    assert main(["validate", str(folder / "run"), "--save", str(folder / "workload.json")]) == 1
    return folder / "workload.json"


def test_barrier_scaling_goes_beyond_the_chains_of_the_run(workload: Path, tmp_path: Path) -> None:
    options = ["--set", f"workload.path={workload}", "--set", CHAINS, "--jobs", "1", "--out", str(tmp_path / "out")]
    assert main(["sweep", "barrier-scaling", *options]) == 0
    rows = {
        (row.parameters["settings.policy"], row.parameters["settings.chains"]): row
        for row in read_rows(tmp_path / "out" / ROWS)
    }
    assert set(rows) == {(policy, m) for policy in ("barrier", "async-conditional") for m in (1, 2, 4, 8, 16)}
    assert all(row.error is None for row in rows.values())
    stalls = [row.figures["stall_s.barrier"] for (policy, _), row in sorted(rows.items()) if policy == "barrier"]
    assert stalls[0] == 0
    assert all(stall > 0 for stall in stalls[1:])
    assert all(row.figures["stall_s.barrier"] == 0 for (policy, _), row in rows.items() if policy != "barrier")


def test_a_run_in_place_of_a_fitted_workload_says_how_to_make_one(
    workload: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = workload.parent / "run"
    assert main(["sweep", "barrier-scaling", "--set", f"workload.path={run}", "--out", str(tmp_path / "out")]) == 2
    assert "atts-sim validate --save" in capsys.readouterr().err
