"""A study is checked before anything runs, and an error names the entry."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.errors import InputError
from atts_sim.axes import axis
from atts_sim.options import HEEDED, SETTINGS
from atts_sim.row import FIGURES
from atts_sim.study import parse_study, read_study, studies_folder

RANDOM = "[sweep]\nalpha = [0.1, 0.2]\n[search]\nmethod = 'random'\n"
SHIPPED = sorted(path.stem for path in studies_folder().glob("*.toml"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[sweep]\nalpa = [0.1]", "unknown parameter 'alpa'; did you mean 'alpha'?"),
        ("[sweep]\nengines.target.max_row = [1]", "did you mean 'engines.target.max_rows'?"),
        ("[settings]\npolcy = 'barrier'", "did you mean 'settings.policy'?"),
        ("[workload]\nkindd = 'replay'", "unknown parameter 'workload.kindd'; did you mean 'workload.kind'?"),
        ("[engines]\ntarget.tpp = 2", "did you mean 'engines.target.tp'?"),
        ("[sweeps]\nalpha = [0.1]", "did you mean [sweep]?"),
        ("[sweep]\npolicy = ['barrier', 'barier']", "unknown policy 'barier'; choose one of"),
        ("[settings]\nalpha = 1.5", "alpha must lie strictly between 0 and 1"),
        ("[sweep]\nalpha = []", "sweep.settings.alpha has no values"),
        ("[sweep]\nalpha = [0.1, 0.1]", "has a value twice"),
        ("[sweep]\nalpha = { from = 0.5, to = 0.1, steps = 3 }", "is an empty range"),
        ("[sweep]\nalpha = { from = 0.1, to = 0.5, step = 3 }", "unknown entry 'step'"),
        ("[sweep]\nalpha = { from = 0.1, to = 0.5 }\n[search]\nmethod = 'gird'", "unknown search.method 'gird'"),
        ("[sweep]\npolicy = { from = 1, to = 2, steps = 2 }", "takes no numbers"),
        ("[sweep]\nalpha = 0.1", "must be a list of values, or a range"),
        ("[sweep]\ntemperature = [0.1, 0.2]", "changes nothing in a simulation"),
        ("[sweep]\nchains = { from = 0, to = 4, steps = 2, log = true }", "chains must be at least 1"),
        ("[engines]\ntarget.tp = 0", "engines.target.tp must be a whole number above 0"),
        ("[engines]\nscheduler = 'paged'", "engines.scheduler must be one of embedded, vllm"),
        ("[engines]\nmemory_share = 1.5", "engines.memory_share must be a number above 0 and at most 1"),
        ("[engines]\ntarget.usd_per_hour = nan", "must be a number not below 0"),
        ("[objective]\nminimise = 'makespan'", "did you mean 'makespan_s'?"),
        ("[objective]\nminimise = 'usd'\nmaximise = 'accuracy'", "not both"),
        ("[objective]\nat_least = { accuracy = 'high' }", "objective.at_least.accuracy must be a number"),
        ("[study]\nrepeats = 0", "study.repeats must be a whole number of at least 1"),
        ("[study]\ndeadline_s = -1", "study.deadline_s must be a number of seconds above 0"),
        ("[study]\nrepeat = 2", "did you mean 'repeats'?"),
        ("[search]\nmethod = 'random'\ntrials = 3", "needs something to search"),
        ("[sweep]\nalpha = [0.1, 0.2]\n[search]\nmethod = 'random'", "needs search.trials"),
        ("[sweep]\nalpha = [0.1, 0.2]\n[search]\ntrials = 2", "no meaning for a grid"),
        ("[study]\ndeadline_s = true", "study.deadline_s must be a number of seconds above 0"),
        (f"[study]\ndeadline_s = 1{'0' * 400}", "study.deadline_s must be a number of seconds above 0"),
        ("[study]\nrepeats = 9223372036854775808", "study.repeats must be at most 9223372036854775807"),
        ("[settings]\nseed = 9223372036854775808", "seed must fit into 64 bits, got 9223372036854775808"),
        ("[sweep]\nseed = [0, 9223372036854775808]", "sweep.settings.seed: seed must fit into 64 bits"),
        (
            "[engines]\nkv_budget_tokens = 100000000000000000000",
            "engines.kv_budget_tokens must be at most 9007199254740992",
        ),
        (f"[engines]\npower_w = 1{'0' * 400}", "engines.power_w must be a number above 0"),
        (f"[objective]\nat_most = {{ usd = 1{'0' * 400} }}", "objective.at_most.usd must be a number"),
        ("[sweep]\nseed = { from = 0, to = 9223372036854775807, steps = 2 }", "may go up to 2^53"),
        ("[sweep]\nalpha = { from = 0.1, to = 0.5, steps = 10000000000 }", "a whole number from 2 to 1,000,000"),
        (f"{RANDOM}trials = 10000000000", "search.trials must be at most 1000000"),
        (f"{RANDOM}trials = 2\nseed = 4294967296", "search.seed must be at most 4294967295"),
        ("[sweep]\nalpha = [0.1]\nsettings.alpha = [0.4]", "[sweep] has settings.alpha twice, under two names"),
        ("[engines]\ntarget.tp = 1\n'target.tp' = 2", "[engines] has engines.target.tp twice"),
        ("[settings]\ngate = ['marginal']", "unknown gate ['marginal']; choose one of"),
        ("[sweep]\nqqqq = [1]", "parameters are the settings of a run, workload.NAME and engines.NAME"),
        ("x = [", "not valid TOML"),
        (f"x = {'9' * 5000}", "not valid TOML"),
        (f"[settings]\nseed = 0x{'f' * 5000}", "not valid TOML"),
        (f"x = {'[' * 100_000}", "not valid TOML"),
        (f"workload{'.a' * 5000} = 1", "not valid TOML"),
        ("workload = 3", "must be a table"),
    ],
)
def test_an_error_is_one_line_that_names_the_entry(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        parse_study(text, tmp_path)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_grid_needs_steps(tmp_path: Path) -> None:
    study = parse_study("[sweep]\nalpha = { from = 0.1, to = 0.5 }", tmp_path)
    with pytest.raises(InputError, match="needs 'steps' in a range"):
        study.search()


def test_a_study_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gpu-sizing"):
        read_study(tmp_path / "none.toml")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_is_read_by_its_name_and_has_points(name: str) -> None:
    study = read_study(Path(name))
    assert study.search().size > 1
    assert study.about


def test_settings_go_by_either_name_and_files_are_relative_to_the_study(tmp_path: Path) -> None:
    text = "[workload]\npath = 'a.parquet'\n[settings]\nalpha = 0.3\n[sweep]\nsettings.chains = [2]\nturns = [3]"
    study = parse_study(text, tmp_path)
    assert study.base == {"workload.path": str(tmp_path / "a.parquet"), "settings.alpha": 0.3}
    assert [a.name for a in study.axes] == ["settings.chains", "settings.turns"]


def test_the_copy_of_a_study_is_the_same_study_from_anywhere(tmp_path: Path) -> None:
    text = "[workload]\nkind = 'replay'\npath = 'a.parquet'\n[sweep]\nalpha = { from = 0.1, to = 0.4, steps = 4 }"
    study = parse_study(text, tmp_path, overrides=["policy=barrier", "engines.target.tp=2"])
    again = parse_study(study.to_toml(), tmp_path / "elsewhere")
    assert again == study
    assert study.base["settings.policy"] == "barrier"


def test_the_copy_of_a_study_keeps_the_order_of_its_points(tmp_path: Path) -> None:
    text = (
        "[engines]\ntarget.tp = 2\ndtype = 'bfloat16'\n[sweep]\nengines.target.max_rows = [1, 2]\n"
        "chains = { from = 1, to = 8, steps = 4, log = true }\npolicy = ['barrier']\nengines.draft.tp = [1, 2]"
    )
    study = parse_study(text, tmp_path)
    again = parse_study(study.to_toml(), tmp_path)
    assert again == study
    assert again.search().ask() == study.search().ask()
    assert list(again.base) == list(study.base)


@pytest.mark.parametrize("name", ["alpha", "settings.alpha"])
def test_what_is_set_is_no_longer_swept(name: str, tmp_path: Path) -> None:
    study = parse_study("[sweep]\nalpha = [0.1, 0.2]\nchains = [1, 2]", tmp_path, overrides=[f"{name}=0.5"])
    assert study.base == {"settings.alpha": 0.5}
    assert [a.name for a in study.axes] == ["settings.chains"]


def test_files_that_are_set_are_relative_to_where_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["workload.path=runs/mine", "bank=b.npz", "sweep.workload.arrivals=['all', 'trace:t.txt']"]
    study = parse_study("", tmp_path / "studies", overrides=overrides)
    assert study.base == {"workload.path": str(tmp_path / "runs/mine"), "settings.bank": str(tmp_path / "b.npz")}
    assert study.axes[0].values == ("all", f"trace:{tmp_path / 't.txt'}")


@pytest.mark.parametrize("own", ["alpha", "settings.alpha"])
@pytest.mark.parametrize("name", ["sweep.alpha", "sweep.settings.alpha"])
def test_a_sweep_can_be_set_by_either_name(own: str, name: str, tmp_path: Path) -> None:
    study = parse_study(f"[sweep]\n{own} = [0.1, 0.2]", tmp_path, overrides=[f"{name}=[0.3]"])
    assert [axis.values for axis in study.axes] == [(0.3,)]


def test_the_largest_seed_is_one(tmp_path: Path) -> None:
    assert parse_study(f"[settings]\nseed = {2**63 - 1}", tmp_path).base == {"settings.seed": 2**63 - 1}


@pytest.mark.parametrize("override", ["alpha", "=3", "alpha=", "alpa=3", "sweep.alpa=[1]", f"workload{'.a' * 2000}=1"])
def test_a_set_that_sets_nothing_is_an_error(override: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        parse_study("", tmp_path, overrides=[override])


@given(low=st.integers(1, 50), more=st.integers(1, 200), steps=st.integers(2, 20), log=st.booleans())
def test_a_range_of_whole_numbers_has_its_ends_and_ascends(low: int, more: int, steps: int, log: bool) -> None:
    high = low + more
    values = axis("s", "settings.chains", {"from": low, "to": high, "steps": steps, "log": log}).values
    assert (values[0], values[-1]) == (low, high)
    assert list(values) == sorted(set(values))
    assert all(isinstance(value, int) for value in values)
    assert len(values) <= steps


@given(low=st.floats(0.01, 0.4), more=st.floats(0.01, 0.5), u=st.floats(0, 1, exclude_max=True), log=st.booleans())
def test_what_is_drawn_lies_in_the_range(low: float, more: float, u: float, log: bool) -> None:
    at = axis("s", "settings.alpha", {"from": low, "to": low + more, "log": log}).at(u)
    assert isinstance(at, float)
    assert low - 1e-12 <= at <= low + more + 1e-12


@given(low=st.integers(1, 9), more=st.integers(1, 30), u=st.floats(0, 1, exclude_max=True), log=st.booleans())
def test_whole_numbers_are_drawn_from_the_range(low: int, more: int, u: float, log: bool) -> None:
    assert axis("s", "settings.turns", {"from": low, "to": low + more, "log": log}).at(u) in range(low, low + more + 1)


def test_a_range_over_powers_of_two_is_those_powers() -> None:
    entry = {"from": 1, "to": 256, "steps": 9, "log": True}
    assert axis("s", "settings.chains", entry).values == (1, 2, 4, 8, 16, 32, 64, 128, 256)


def test_every_heeded_setting_is_one_and_figures_have_one_name_each() -> None:
    assert set(HEEDED) <= set(SETTINGS)
    assert len(set(FIGURES)) == len(FIGURES)


def test_the_shipped_studies_are_valid_toml_with_a_name() -> None:
    names = {tomllib.loads((studies_folder() / f"{name}.toml").read_text())["study"]["name"] for name in SHIPPED}
    assert len(names) == len(SHIPPED) == 5
