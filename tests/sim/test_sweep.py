"""A sweep comes to the same rows however it is worked on, keeps what it has, and what it finds can be run."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from atts_runtime.config import RunConfig, read_options
from atts_runtime.errors import InputError
from atts_sim.pool import InProcess, Numbered, Processes, chunks
from atts_sim.results import BEST, ROWS, TABLE, read_sweep
from atts_sim.row import Row
from atts_sim.study import Study
from atts_sim.sweep import sweep
from tests.sim.made_runs import make_run
from tests.sim.made_studies import made_study, made_trace

SWEEP = """
[settings]
max_rows = 8
[sweep]
policy = ["barrier", "async-marginal"]
chains = [2, 4]
questions_in_flight = [1, 4]
"""


class Stopped:
    """A pool that is interrupted after some rows."""

    def __init__(self, study: Study, after: int) -> None:
        self._inner, self._after = InProcess(study), after

    def rows(self, points: Sequence[Numbered]) -> Iterator[list[Row]]:
        for done, rows in enumerate(self._inner.rows(points)):
            if done == self._after:
                raise KeyboardInterrupt
            yield rows


class Backwards:
    """A pool whose last points are done first."""

    def __init__(self, study: Study) -> None:
        self._inner = InProcess(study)
        self.asked = 0

    def rows(self, points: Sequence[Numbered]) -> Iterator[list[Row]]:
        self.asked += len(points)
        yield from self._inner.rows(points[::-1])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_order_and_interruption_leave_no_trace_in_the_results(tmp_path: Path) -> None:
    study = made_study(made_trace(tmp_path), SWEEP)
    plain = sweep(study, InProcess(study), tmp_path / "plain")
    assert [row.point for row in plain.rows] == list(range(8))
    assert plain.whole
    sweep(study, Backwards(study), tmp_path / "backwards")

    broken = sweep(study, Stopped(study, 3), tmp_path / "broken")
    assert (broken.whole, len(broken.rows)) == (False, 3)
    assert len(pd.read_parquet(tmp_path / "broken" / TABLE)) == 3
    with (tmp_path / "broken" / ROWS).open("ab") as file:
        file.write(b'{"point": 3, "finger')  # a torn line
    rest = Backwards(study)
    again = sweep(study, rest, tmp_path / "broken")
    assert (again.resumed, rest.asked) == (3, 5)
    assert files(tmp_path / "plain") == files(tmp_path / "backwards") == files(tmp_path / "broken")


ALPHAS = """
[sweep]
alpha = { from = 0.1, to = 0.6 }
policy = ["barrier", "async-marginal"]
[search]
method = "optuna"
trials = 12
[objective]
minimise = "latency_s.p95"
"""


@pytest.mark.slow
@pytest.mark.parametrize(("more", "needs"), [(SWEEP, ()), (ALPHAS, ("optuna",))], ids=["grid", "optuna"])
def test_processes_write_the_bytes_of_one(more: str, needs: tuple[str, ...], tmp_path: Path) -> None:
    for name in needs:
        pytest.importorskip(name, reason=f"{name} is an extra, and not installed")
    study = made_study(made_trace(tmp_path), more)
    sweep(study, InProcess(study), tmp_path / "one")
    sweep(study, Processes(study, 2), tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_the_table_has_a_row_a_point_with_parameters_and_figures(tmp_path: Path) -> None:
    study = made_study(made_trace(tmp_path), SWEEP)
    found = sweep(study, InProcess(study), tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / TABLE)
    assert list(table["point"]) == list(range(8))
    assert set(table["settings.policy"]) == {"barrier", "async-marginal"}
    assert list(table["makespan_s"]) == [row.figures["makespan_s"] for row in found.rows]
    assert (table["verdict"] == "closed").all()
    assert table["sources"].str.contains("made.events.parquet").all()
    assert table["is_best"].sum() == 1
    assert table.loc[table["is_best"], "makespan_s"].item() == table["makespan_s"].min()
    assert read_sweep(tmp_path / "out") == found.rows


def test_the_best_settings_are_a_config_of_a_run(tmp_path: Path) -> None:
    study = made_study(made_trace(tmp_path), SWEEP + "[objective]\nmaximise = 'questions_per_s'")
    found = sweep(study, InProcess(study), tmp_path / "out")
    assert found.best is not None
    config = RunConfig().with_options(read_options(tmp_path / "out" / BEST))
    for name in ("policy", "chains", "questions_in_flight", "max_rows", "turns"):
        assert getattr(config, name) == found.best.parameters[f"settings.{name}"]
    assert tomllib.loads((tmp_path / "out" / BEST).read_text()).keys() <= RunConfig.__dataclass_fields__.keys()


def test_limits_that_the_engines_do_not_share_are_no_setting(tmp_path: Path) -> None:
    study = made_study(made_trace(tmp_path), overrides=("engines.draft.max_rows=2", "engines.target.max_rows=3"))
    sweep(study, InProcess(study), tmp_path / "out")
    text = (tmp_path / "out" / BEST).read_text()
    assert "different max_rows" in text
    assert RunConfig().with_options(tomllib.loads(text)).max_rows == RunConfig().max_rows


@pytest.mark.parametrize(
    ("limits", "budget"),
    [
        (("engines.kv_budget_tokens=4096",), 4096),
        (("engines.draft.kv_budget_tokens=4096", "engines.target.kv_budget_tokens=4096"), 4096),
        (("settings.kv_budget_tokens=4096",), 4096),
        (("engines.target.kv_budget_tokens=4096", "policy=target-only"), 4096),
        (("engines.target.kv_budget_tokens=4096",), None),
        ((), None),
    ],
)
def test_a_kv_budget_that_the_study_gives_both_engines_is_a_setting(
    limits: tuple[str, ...], budget: int | None, tmp_path: Path
) -> None:
    study = made_study(made_trace(tmp_path), overrides=limits)
    sweep(study, InProcess(study), tmp_path / "out")
    text = (tmp_path / "out" / BEST).read_text()
    assert RunConfig().with_options(tomllib.loads(text)).kv_budget_tokens == budget
    assert ("different kv_budget_tokens" in text) == (bool(limits) and budget is None)


def test_settings_of_a_replayed_run_name_its_task_and_models(tmp_path: Path) -> None:
    own: dict[str, Any] = {"task": "q.jsonl", "draft": "small", "target": "large", "temperature": 0.25}
    make_run(tmp_path / "run", "async-marginal")
    config = tmp_path / "run" / "config.toml"
    config.write_text(RunConfig().with_options({**read_options(config), **own}).to_toml())
    study = made_study(tmp_path / "run")
    sweep(study, InProcess(study), tmp_path / "out")
    text = (tmp_path / "out" / BEST).read_text()
    best = RunConfig().with_options(tomllib.loads(text))
    assert {name: getattr(best, name) for name in own} == own
    assert "bundled ones" not in text


def test_settings_of_a_workload_that_names_no_models_say_so(tmp_path: Path) -> None:
    study = made_study(made_trace(tmp_path))
    sweep(study, InProcess(study), tmp_path / "out")
    assert "does not say of which task and models it is" in (tmp_path / "out" / BEST).read_text()


TWINS = """
[sweep]
policy = ["target-only", "barrier"]
engines.draft.max_rows = [4, 8]
"""


def test_points_that_differ_in_what_does_not_matter_keep_their_own_parameters(tmp_path: Path) -> None:
    study = made_study(made_trace(tmp_path), TWINS)
    plain = sweep(study, InProcess(study), tmp_path / "plain")
    assert plain.rows[0].fingerprint == plain.rows[1].fingerprint  # target-only has no draft engine
    before = files(tmp_path / "plain")
    assert sweep(study, InProcess(study), tmp_path / "plain").resumed == 4
    assert files(tmp_path / "plain") == before
    sweep(study, Stopped(study, 1), tmp_path / "broken")
    assert sweep(study, InProcess(study), tmp_path / "broken").resumed == 2
    assert files(tmp_path / "broken") == before


OTHER = """
[settings]
max_rows = 8
policy = "barrier"
questions_in_flight = 4
[sweep]
chains = [3, 4]
"""


def test_a_folder_has_the_results_of_one_study(tmp_path: Path) -> None:
    trace, out = made_trace(tmp_path), tmp_path / "out"
    first = made_study(trace, SWEEP)
    rows = sweep(first, InProcess(first), out).rows
    other = made_study(trace, OTHER)
    sweep(other, Stopped(other, 0), out)
    assert [row.point for row in read_sweep(out)] == [1]  # of the study that is there now
    assert list(pd.read_parquet(out / TABLE)["point"]) == [1]
    found = sweep(other, InProcess(other), out)
    assert (found.resumed, [row.point for row in read_sweep(out)]) == (1, [0, 1])
    assert found.rows[1].figures == rows[3].figures
    impossible = made_study(trace, "[sweep]\nchains = [5, 6]")
    with pytest.raises(InputError, match="no point of the study"):
        sweep(impossible, InProcess(impossible), out)
    assert not (out / TABLE).exists()
    assert not (out / BEST).exists()
    assert all(row.error is not None for row in read_sweep(out))


def test_an_interruption_before_any_point_works_is_no_mistake(tmp_path: Path) -> None:
    study = made_study(made_trace(tmp_path), "[sweep]\nchains = [5, 4]")
    found = sweep(study, Stopped(study, 1), tmp_path / "out")
    assert (found.whole, found.best, len(found.rows)) == (False, None, 1)


def test_where_nothing_is_admissible_no_settings_stay(tmp_path: Path) -> None:
    trace, out = made_trace(tmp_path), tmp_path / "out"
    study = made_study(trace, SWEEP)
    sweep(study, InProcess(study), out)
    assert (out / BEST).exists()
    strict = made_study(trace, SWEEP + "[objective]\nat_most = { makespan_s = 1e-9 }")
    found = sweep(strict, InProcess(strict), out)
    assert (found.best, found.resumed) == (None, 8)
    assert not (out / BEST).exists()


def test_points_that_cannot_be_simulated_are_rows_with_a_reason(tmp_path: Path) -> None:
    study = made_study(made_trace(tmp_path), "[sweep]\nchains = [4, 5]")
    found = sweep(study, InProcess(study), tmp_path / "out")
    assert [row.error is None for row in found.rows] == [True, False]
    error = pd.read_parquet(tmp_path / "out" / TABLE)["error"]
    assert error[0] is None or pd.isna(error[0])
    assert "the recording has 4" in error[1]


def test_a_study_of_which_no_point_works_is_an_error(tmp_path: Path) -> None:
    study = made_study(made_trace(tmp_path), "[sweep]\nchains = [5, 6]")
    with pytest.raises(InputError, match="no point of the study can be simulated; the first says: chains = 5"):
        sweep(study, InProcess(study), None)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    study = made_study(made_trace(tmp_path))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="no folder of a sweep, and not empty"):
        sweep(study, InProcess(study), tmp_path / "full")
    with pytest.raises(InputError, match="is a file"):
        sweep(study, InProcess(study), tmp_path / "full" / "thesis.tex")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.toml").write_text("# a study that somebody wrote\n")
    with pytest.raises(InputError, match="no folder of a sweep, and not empty"):
        sweep(study, InProcess(study), tmp_path / "mine")
    assert (tmp_path / "mine" / "study.toml").read_text().startswith("# a study")


@pytest.mark.parametrize(("points", "jobs"), [(0, 2), (1, 2), (7, 2), (1000, 2), (100, 64)])
def test_chunks_are_all_points_once_and_small(points: int, jobs: int) -> None:
    numbered: list[Numbered] = [(i, {}) for i in range(points)]
    made = chunks(numbered, jobs)
    assert [point for chunk in made for point in chunk] == numbered
    assert all(1 <= len(chunk) <= 8 for chunk in made)
