"""One point: its figures hang on its options, and what makes it impossible is said in its row."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atts_runtime.control import Limits
from atts_runtime.control.registry import PLUGINS
from atts_runtime.profiler.counts import Rates
from atts_runtime.profiler.hardware import profiles_folder
from atts_sim.calls import EngineSpec
from atts_sim.clock import Clock
from atts_sim.cost import Cost, DecodeLines, Phase, StepCost, StepShape
from atts_sim.demand import demanded, needs
from atts_sim.devices import device
from atts_sim.driver import SimDriver
from atts_sim.point import Points
from atts_sim.published import read_trace
from atts_sim.recorded import follow_record
from atts_sim.reference import ReferenceEngine
from atts_sim.row import FIGURES, WITH_ERROR, Row, mean_figures
from tests.runtime.scripted import drive, settings
from tests.sim.made_studies import ENGINES, H100, made_study, made_trace


def point(trace: Path, more: str = "", **kind: Any) -> Row:
    return Points(made_study(trace, more, **kind)).row(0, {})


def good(trace: Path, more: str = "", **kind: Any) -> dict[str, Any]:
    row = point(trace, more, **kind)
    assert row.error is None
    return dict(row.figures)


def test_a_row_has_every_figure_and_a_line_brings_it_back(tmp_path: Path) -> None:
    row = point(made_trace(tmp_path))
    assert set(FIGURES) <= row.figures.keys()
    assert Row.from_line(row.to_line()) == row


def test_cost_is_of_the_devices_that_the_policy_uses(tmp_path: Path) -> None:
    trace, priced = made_trace(tmp_path), H100 + "usd_per_hour = 3.6\n"
    both = good(trace, engines=priced)
    wall = both["makespan_s"]
    assert both["devices"] == 3
    assert both["device_s"] == pytest.approx(3 * wall)
    assert both["usd"] == pytest.approx(3 * 3.6 * wall / 3600)
    assert both["energy_bound_j"] == pytest.approx(3 * 700 * wall)
    alone = good(trace, "[settings]\npolicy = 'target-only'", engines=priced)
    assert (alone["devices"], alone["draft.utilisation"]) == (2, None)
    assert good(trace, engines=H100)["usd"] is None


def test_one_model_in_both_roles_is_one_device(tmp_path: Path) -> None:
    engines = "[engines]\nshared = true\ntarget.profile = 'bundled-target-amd-epyc-milan'"
    assert good(made_trace(tmp_path), engines=engines)["devices"] == 1


def test_two_models_on_one_device_take_turns_and_cost_one(tmp_path: Path) -> None:
    trace = made_trace(tmp_path)
    split = H100 + "draft.tp = 2\ndraft.memory_share = 0.3\ntarget.memory_share = 0.6\nusd_per_hour = 3.6\n"
    apart, together = good(trace, engines=split), good(trace, engines=split + "one_device = true\n")
    assert (apart["devices"], together["devices"]) == (4, 2)
    busy = together["draft.utilisation"] + together["target.utilisation"]
    assert 0.9 < busy <= 1 + 1e-9  # one of them steps nearly all the time, never both
    assert apart["makespan_s"] < together["makespan_s"] < 2 * apart["makespan_s"]
    assert together["usd"] == pytest.approx(2 * 3.6 * together["makespan_s"] / 3600)
    alone = split + "one_device = true\n"
    assert good(trace, "[settings]\npolicy = 'target-only'", engines=alone)["devices"] == 2


@pytest.mark.parametrize(
    ("engines", "message"),
    [
        (H100 + "draft.tp = 2\n", "shares of the memory of 0.9 and 0.9 exceed 1; lower engines.draft.memory_share or"),
        (H100 + "memory_share = 0.5\n", "draft and target run on 1 x nvidia-h100-80gb-sxm and 2 x nvidia-h100-80gb"),
    ],
)
def test_what_cannot_share_a_device_is_refused(tmp_path: Path, engines: str, message: str) -> None:
    error = point(made_trace(tmp_path), engines=engines + "one_device = true\n").error
    assert error is not None
    assert message in error


def test_fewer_questions_and_chains_are_the_first_and_more_are_refused(tmp_path: Path) -> None:
    trace = made_trace(tmp_path)
    few = good(trace, "[settings]\nquestions = 2\nchains = 3\nturns = 1")
    assert (few["questions"], few["chains"]) == (2, 3)
    for name, most in (("questions", 4), ("chains", 4), ("turns", 3)):
        error = point(trace, f"[settings]\n{name} = {most + 1}").error
        assert error is not None
        assert error.startswith(f"{name} = {most + 1}, but the recording has {most}")


def test_kv_that_does_not_fit_is_an_error_and_no_figure(tmp_path: Path) -> None:
    engines = (
        H100 + "memory_share = 0.40972\ntarget.step_tokens = 16\nscheduler = 'embedded'"
    )  # some 100 tokens beside the weights of QwQ-32B
    row = point(made_trace(tmp_path), engines=engines)
    assert row.error is not None
    assert "more than the" in row.error
    assert "that fit beside the weights" in row.error
    assert not row.figures


def test_an_impossible_point_says_why(tmp_path: Path) -> None:
    error = point(made_trace(tmp_path), "[settings]\nbudget = 9").error
    assert "budget must lie between 0 and the 4 chains" in (error or "")


def test_a_workload_that_is_not_there_says_what_to_give(tmp_path: Path) -> None:
    assert "workload.path" in (point(tmp_path / "none.parquet").error or "")
    unknown = Points(made_study(tmp_path / "x", overrides=("workload.kind=dreamt",))).row(0, {})
    assert "unknown workload.kind 'dreamt'; choose one of replay" in (unknown.error or "")


def test_the_fingerprint_changes_with_what_matters_and_only_then(tmp_path: Path) -> None:
    trace = made_trace(tmp_path)
    base = point(trace).fingerprint
    assert point(trace, "[settings]\nalpha = 0.1").fingerprint == base  # the default
    for more in ("[settings]\nalpha = 0.2", "[settings]\nmax_rows = 3", "[study]\nrepeats = 2"):
        assert point(trace, more).fingerprint != base
    made_trace(tmp_path, seed=1)
    assert point(trace).fingerprint != base


def test_the_fingerprint_changes_with_a_gate_s_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "steady.py"
    monkeypatch.setenv(PLUGINS, str(path))
    study = made_study(made_trace(tmp_path), "[settings]\ngate = 'open'")
    found = []
    for rule in ("0.1", "0.2", "0.1"):
        path.write_text(f"RATE = {rule}\n")
        found.append(Points(study).fingerprint(study.base))
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("policy", ["self-reject", "fork"])
def test_runs_in_which_nobody_takes_over_are_replayed(policy: str, tmp_path: Path) -> None:
    config = settings(policy)
    (tmp_path / "config.toml").write_text(config.to_toml())
    lines = (record.to_line() + "\n" for record in drive(config).records.values())
    (tmp_path / "chains.jsonl").write_text("".join(lines))
    assert good(tmp_path, f"[settings]\npolicy = '{policy}'")["tokens.draft"] > 0
    said = point(tmp_path, "[settings]\npolicy = 'barrier'").error
    assert said is not None
    assert "takeover = resample, but the recording was made with" in said


def test_profiles_of_a_study_may_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, elsewhere = made_trace(tmp_path), tmp_path / "elsewhere"
    elsewhere.mkdir()
    shipped = profiles_folder() / "engines" / "bundled-draft-amd-epyc-milan.toml"
    (tmp_path / "mine.toml").write_text(shipped.read_text())
    monkeypatch.chdir(elsewhere)
    named = good(trace)
    assert good(trace, engines=ENGINES.replace("bundled-draft-amd-epyc-milan", "mine.toml")) == named
    (axis,) = made_study(trace, "[sweep]\nengines.draft.profile = ['mine.toml']").axes
    assert axis.values == (str(tmp_path / "mine.toml"),)


def test_a_row_says_which_kv_an_engine_has(tmp_path: Path) -> None:
    row = point(made_trace(tmp_path), engines=f"{H100}target.kv_budget_tokens = 20001\n")
    assert row.parameters["engines.target.kv_budget_tokens"] == 20001  # as asked, not in whole blocks
    left = row.parameters["engines.draft.kv_budget_tokens"]
    assert isinstance(left, int)
    assert left > 100_000  # what the weights leave of the memory


def test_repeats_have_the_seeds_of_the_point_and_the_next_ones(tmp_path: Path) -> None:
    trace = made_trace(tmp_path)
    settings = "[settings]\nalpha = 0.4\n"
    single = [good(trace, f"{settings}seed = {seed}")["makespan_s"] for seed in (5, 6)]
    twice = good(trace, f"{settings}seed = 5\n[study]\nrepeats = 2")
    assert twice["makespan_s"] == pytest.approx(sum(single) / 2)
    assert twice["makespan_s.se"] == pytest.approx(abs(single[0] - single[1]) / 2)


def test_a_mean_lacks_what_one_repeat_lacks() -> None:
    names = dict.fromkeys(WITH_ERROR, 1.0)
    found = mean_figures([{**names, "accuracy": None}, names])
    assert (found["accuracy"], found["accuracy.se"], found["usd"]) == (None, None, 1.0)


def test_a_deadline_gives_goodput(tmp_path: Path) -> None:
    trace = made_trace(tmp_path)
    assert good(trace)["goodput_per_s"] is None
    assert good(trace, "[study]\ndeadline_s = 1e6")["goodput_per_s"] == good(trace)["questions_per_s"]


def test_steps_beyond_what_a_profile_measured_are_a_warning(tmp_path: Path) -> None:
    row = point(made_trace(tmp_path, chains=20, questions=5), "[settings]\nmax_rows = 100")
    assert any("outside what its profile measured" in text for text in row.warnings)
    analytic = point(made_trace(tmp_path), engines=H100)
    assert analytic.figures["target.outside_share"] is None
    assert not analytic.warnings


class Counted(StepCost):
    """Step times, and how many tokens and steps they were asked for."""

    def __init__(self) -> None:
        self.tokens = self.steps = 0

    def cost(self, phase: Phase, shape: StepShape) -> Cost:
        self.tokens += shape.new_tokens
        self.steps += 1
        return Cost(1e-3, True)

    def decode_lines(self, rows: int, longest_kept: int) -> DecodeLines:
        raise NotImplementedError


def test_the_demand_of_requests_is_of_the_tokens_and_steps_of_the_engine(tmp_path: Path) -> None:
    trace = read_trace(made_trace(tmp_path))
    profile = {"engines.profile": "bundled-target-amd-epyc-milan"}
    model = device("target", profile, {"max_rows": None, "kv_budget_tokens": None}).steps
    clock, counted = Clock(), Counted()
    engine: Any = ReferenceEngine(clock, EngineSpec(), counted)
    run = SimDriver(follow_record(trace), Limits(3, 600, 600), trace, {"draft": engine, "target": engine}, clock).run()

    tokens, pairs, logit_rows, kv_tokens = (sum(parts) for parts in zip(*map(needs, run.requests), strict=True))
    prompts = [prompt.target for prompt in trace.prompts]  # computed once, for no request in particular
    assert tokens + sum(prompts) == counted.tokens

    rates = Rates(model.spec)
    flops = rates.flops(tokens, pairs, logit_rows) + sum(rates.flops(n, n * n, 1) for n in prompts)
    moved = rates.kv_bytes * (kv_tokens + 2 * sum(prompts)) + counted.steps * rates.weight_bytes(1, 1)
    peaks: Any = dict.fromkeys(run.totals, (3.0, 7.0))
    T_c, T_m = demanded(run, dict.fromkeys(run.totals, rates), peaks)
    assert (T_c, T_m) == (pytest.approx(flops / 3.0, rel=1e-12), pytest.approx(moved / 7.0, rel=1e-12))


def test_a_takeover_demands_what_its_steps_do() -> None:
    """Four tokens after ten that are held: three steps, that look at 11, 12 and 13 tokens."""
    call: Any = SimpleNamespace(kind="takeover", context_tokens=10, tokens_prefilled=0, new_tokens=4)
    assert needs(call) == (3, 11 + 12 + 13, 3, 11 + 12 + 13 + 3)


def test_r_follows_from_its_terms(tmp_path: Path) -> None:
    found = good(made_trace(tmp_path), "[settings]\npolicy = 'barrier'")
    assert found["stall_s.all"] > 0
    assert found["r"] == pytest.approx(found["T_c_s"] / (found["T_m_s"] + found["stall_s.all"]), rel=1e-12)
