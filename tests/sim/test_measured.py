"""Run directories are read as they are, and refused with the reason where they say nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from atts_runtime.errors import InputError
from atts_sim import samples
from atts_sim.measured import measured_run, peaks_of, shape_of
from tests.sim.made_runs import make_run, true_costs
from tests.tables import with_metadata


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", "async-marginal")
    return tmp_path / "run"


def test_a_run_is_read_with_its_models_and_steps(run: Path) -> None:
    read = measured_run(run)
    assert read.config.policy == "async-marginal"
    assert set(read.specs) == set(read.logs) == {"draft", "target"}
    for role, log in read.logs.items():
        assert (log.period_s >= log.duration_s).all()
        of_calls_s = read.summary["engines"][role]["busy_s"] - float(log.duration_s.sum())
        assert 0 < of_calls_s < 1e-3 * sum(call.engine == role for call in read.calls)


def test_a_run_under_vllm_says_no_longest_row_and_is_read_and_simulated(tmp_path: Path) -> None:
    """Rows are then taken to be alike; the simulated engine schedules as vLLM does, in blocks."""
    made = make_run(tmp_path / "run", "async-marginal", engine="vllm", target_args='{"block_size": 64}')
    steps(longest_new=float("nan"), longest_kept=float("nan"))(tmp_path / "run")
    log = measured_run(tmp_path / "run").logs["target"]
    rows, new, longest = log.shapes[:, 0], log.shapes[:, 1], log.shapes[:, 2]
    assert ((longest * rows >= new) & ((longest - 1) * rows < new)).all()
    asked = [request for request in made.requests if request.role == "target" and not request.remembered]
    whole = [request.tokens_cached % 64 for request in asked]
    assert whole
    assert not any(whole)


def test_an_older_log_says_nothing_of_what_rows_attended_over_and_its_batches_were_padded_to_the_longest(
    run: Path,
) -> None:
    log = measured_run(run).logs["target"]
    decodes = [shape_of(shape) for shape in log.shapes[~log.append]]
    assert all(shape.attended is not None and shape.attended >= shape.kept_tokens for shape in decodes)
    table = pd.read_parquet(run / "steps.parquet")
    table.drop(columns="pairs_executed").to_parquet(run / "steps.parquet")
    log = measured_run(run).logs["target"]
    older, model = [shape_of(shape) for shape in log.shapes[~log.append]], true_costs().engines["target"].model
    assert [shape._replace(attended=None, groups=1) for shape in decodes] == older
    for shape in older:
        assert samples._as_made(shape, model).attended == shape.rows * model.padding.kept(shape.longest_kept)


def drop(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def rewrite(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new))

    return change


def steps(**columns: object) -> Callable[[Path], None]:
    return lambda run: pd.read_parquet(run / "steps.parquet").assign(**columns).to_parquet(run / "steps.parquet")


def in_json(name: str, **entries: object) -> Callable[[Path], None]:
    return lambda run: (run / name).write_text(json.dumps(json.loads((run / name).read_text()) | entries))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop("summary.json"), "is not over"),
        (drop("steps.parquet"), "no steps.parquet; repeat the run with --profiler on"),
        (in_json("manifest.json", sessions=["once", "again"]), "was resumed"),
        (rewrite("chains.jsonl", '"reason": "answered"', '"reason": "failed"'), "failed chains"),
        (rewrite("manifest.json", '"models"', '"modules"'), "does not say which models ran"),
        (rewrite("manifest.json", '"heads": 3', '"heads": "three"'), "model of draft"),
        (steps(duration_s=0.0), "steps without a time"),
        (steps(engine="draft"), "no step of the target engine"),
        (steps(rows="many"), "steps.parquet has something other than numbers in column rows"),
        (steps(duration_s="long"), "other than numbers in column duration_s"),
        (steps(rows=None), "has no steps, or steps without a time"),
        (steps(rows=0, longest_new=1, longest_kept=1), "has steps of no row"),
        (steps(kept_tokens=1e300), "or of a number of tokens that there cannot be"),
        (steps(engine=3), "steps that name no engine"),
        (in_json("manifest.json", sessions=None), "manifest.json: 'sessions' must be a list"),
        (lambda run: (run / "steps.parquet").write_text("no table"), "cannot read"),
        (lambda run: with_metadata(run / "steps.parquet", "[" * 100_000), r"cannot read .*steps\.parquet"),
        (lambda run: pd.DataFrame({"rows": [1]}).to_parquet(run / "steps.parquet"), "lacks the columns t_start_s"),
    ],
)
def test_what_is_no_whole_run_is_refused(run: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(run)
    with pytest.raises(InputError, match=message):
        measured_run(run)


@pytest.mark.parametrize("intensity", [5, {"engines": "two"}, {"engines": {"draft": {"hardware": "fast"}}}])
def test_a_summary_that_is_none_does_not_say_what_devices_can_do(run: Path, intensity: object) -> None:
    in_json("summary.json", intensity=intensity)(run)
    with pytest.raises(InputError, match=r"summary.json is no summary of a run: '\w+' is no object"):
        peaks_of(measured_run(run))
