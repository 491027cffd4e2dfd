"""Claims about ``atts-sim replay``: what goes to stdout, the one line that names a mistake, exit codes and pictures."""

from __future__ import annotations

import json
import math
import random
from itertools import chain, product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from atts_runtime.conformal import SealedBank
from atts_runtime.conformal.store import save_bank
from atts_sim.cli import main
from atts_sim.replay import CALIBRATORS, Settings, decide, summarize
from atts_sim.trace import read_scores
from tests.sim.traces import CHAINS, row, write_trace

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands run in a folder that holds ``small.events.parquet``, which is fine, and ``gaps.events.parquet``, a
    score of which is missing."""
    drawn = random.Random(11)
    places = list(product(range(6), range(3), range(CHAINS)))
    rows = [row(*place, 1 + drawn.expovariate(1), t_end_s=place[0] + 2 * drawn.random()) for place in places]
    write_trace(tmp_path / "small.events.parquet", rows)
    write_trace(tmp_path / "gaps.events.parquet", [row(0, 0, 0, 1.5), row(0, 0, 1, math.nan), row(0, 0, 2, 1.25)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def replayed(capture: Capture, *arguments: str) -> dict[str, Any]:
    """The object that ``--json`` prints on one line; asserts exit code 0 and nothing on stderr."""
    assert main(["replay", *arguments, "--json"]) == 0
    out, err = capture.readouterr()
    assert (out.count("\n"), err) == (1, "")
    summary: dict[str, Any] = json.loads(out)
    return summary


def mistake(capture: Capture, *arguments: str) -> str:
    """The one line about a mistake, without the command's name; asserts exit code 2 and an empty stdout."""
    assert main(["replay", *arguments]) == 2
    out, err = capture.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("atts-sim replay: ")
    return err.removeprefix("atts-sim replay: ").rstrip("\n")


# -- stdout


def test_json_is_one_object_with_these_keys(capsys: Capture) -> None:
    summary = replayed(capsys, "small.events.parquet")
    assert set(summary) == {
        *("trace", "calibrator", "alpha", "order", "completion_times", "scores", "missing_scores", "takeover"),
        *("by_turn", "by_question", "questions_in_band", "alpha_t", "compared_with", "alarms"),
    }
    rate = {"rate", "takeovers", "scores", "ci95"}
    assert set(summary["takeover"]) == rate
    assert all(set(turn) == rate | {"turn"} for turn in summary["by_turn"])
    assert all(set(question) == rate | {"question", "problem", "in_band"} for question in summary["by_question"])
    assert (len(summary["by_turn"]), len(summary["by_question"]), summary["scores"]) == (3, 6, 72)


def test_without_options_adaptive_is_replayed_at_alpha_0_4_in_admission_order(capsys: Capture) -> None:
    scores = read_scores(Path("small.events.parquet"))
    expected = summarize(scores, Settings("adaptive"), decide(scores, Settings("adaptive")))
    assert replayed(capsys, "small.events.parquet") == expected
    assert (expected["calibrator"], expected["alpha"], expected["order"]) == ("adaptive", 0.4, "admission")


def test_every_option_reaches_the_calibrator(capsys: Capture) -> None:
    save_bank(SealedBank([0.2, 0.4, 0.9]), Path("bank.npz"))
    options = [("--bank", "bank.npz"), ("--alpha", "0.3"), ("--order", "completion"), ("--seed", "4")]
    options += [("--gamma", "0.3"), ("--lag", "2"), ("--window", "1")]
    settings = Settings("adaptive", 0.3, "completion", SealedBank([0.2, 0.4, 0.9]), seed=4, gamma=0.3, lag=2, window=1)
    scores = read_scores(Path("small.events.parquet"))
    found = replayed(capsys, "small.events.parquet", *chain.from_iterable(options))
    assert found == summarize(scores, settings, decide(scores, settings))
    for dropped in options:
        others = chain.from_iterable(option for option in options if option != dropped)
        assert replayed(capsys, "small.events.parquet", *others) != found


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_every_calibrator_can_be_replayed(calibrator: str, capsys: Capture) -> None:
    summary = replayed(capsys, "small.events.parquet", "--calibrator", calibrator)
    assert (summary["calibrator"], summary["scores"]) == (calibrator, 72)


def test_a_bank_of_perplexities_is_the_same_bank_as_one_in_nats(capsys: Capture) -> None:
    nats = [0.25, 0.5, 1.25, 2.0]
    save_bank(SealedBank(nats), Path("bank.npz"))
    np.save("bank.npy", np.exp(nats))
    by_nats, by_ppl, without = (
        replayed(capsys, "small.events.parquet", "--calibrator", "frozen", *bank)
        for bank in (["--bank", "bank.npz"], ["--bank", "bank.npy"], [])
    )
    assert by_nats == by_ppl
    assert by_nats["compared_with"] == {"frozen": 72}
    assert without["compared_with"] == {"presample": 72}


def test_without_json_a_table_shows_the_rates_of_the_summary(capsys: Capture) -> None:
    summary = replayed(capsys, "small.events.parquet", "--order", "completion")
    assert main(["replay", "small.events.parquet", "--order", "completion"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    questions, turns = summary["by_question"], [*summary["by_turn"], summary["takeover"]]
    assert [line[0] for line in lines] == [*(str(row["problem"]) for row in questions), "0", "1", "2", "all"]
    for line, rates in zip(lines, [*questions, *turns], strict=True):
        low, high = rates["ci95"]
        rate = rates["rate"]
        last = ("yes" if rates["in_band"] else "no") if "in_band" in rates else f"{rate - 0.4:+.3f}"
        assert line[1:] == [str(rates["scores"]), f"{rate:.3f}", f"{low:.3f} to {high:.3f}", last]
    prose = " ".join(out.split())
    for said in ("small.events.parquet: adaptive, alpha 0.4, completion order", "completion times recorded"):
        assert said in prose
    assert f"{summary['questions_in_band']:.0%} of 6 questions" in prose
    assert f"alarms: {len(summary['alarms'])}" in prose


def test_a_trace_whose_name_is_in_brackets_is_shown_as_it_is(here: Path, capsys: Capture) -> None:
    (here / "small.events.parquet").rename(here / "small [b].events.parquet")
    assert main(["replay", "small [b].events.parquet"]) == 0
    assert "small [b].events.parquet: adaptive" in capsys.readouterr().out


def test_missing_scores_that_may_be_left_out_are_counted_in_json_and_in_the_table(capsys: Capture) -> None:
    summary = replayed(capsys, "gaps.events.parquet", "--skip-missing")
    assert (summary["scores"], summary["missing_scores"]) == (2, 1)
    assert main(["replay", "gaps.events.parquet", "--skip-missing"]) == 0
    assert "1 missing scores left out" in capsys.readouterr().out


def test_help_shows_an_example_and_every_calibrator(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["replay", "--help"])
    assert stop.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "example: atts-sim replay " in out
    assert all(f"{calibrator}: " in out for calibrator in CALIBRATORS)


# -- mistakes


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--alpha", "nan"], "alpha must lie strictly between 0 and 1, got nan"),
        (["--alpha", "1"], "alpha must lie strictly between 0 and 1, got 1.0"),
        (["--gamma", "0"], "gamma must be positive, got 0.0"),
        (["--gamma", "inf"], "gamma must be positive, got inf"),
        (["--lag", "0"], "lag and window must be at least 1, got 0 and 32"),
        (["--window", "0"], "lag and window must be at least 1, got 1 and 0"),
        (
            ["--calibrator", "adaptative"],
            "unknown calibrator 'adaptative'; choose one of frozen, marginal",
        ),
        (["--calibrator", "conditional", "--bank", "bank.npz"], "the conditional calibrator has no use for --bank"),
        (["--calibrator", "frozen", "--bank", "empty.npy"], "bank empty.npy holds no scores"),
        (["--bank", "gone.npz"], "cannot read bank gone.npz: No such file or directory"),
        (["--bank", "."], "cannot read bank .: Is a directory"),
        (["--bank", "small.events.parquet"], "bank small.events.parquet is not a bank: it is not a NumPy file"),
        (["--plot", "gone/rates.svg"], "cannot write plot gone/rates.svg: No such file or directory"),
        (["--plot", "rates.doc"], "cannot write plot rates.doc: "),
    ],
)
def test_a_bad_option_is_named_in_one_line(arguments: list[str], named: str, capsys: Capture) -> None:
    save_bank(SealedBank([0.5]), Path("bank.npz"))
    np.save("empty.npy", np.array([]))
    assert mistake(capsys, "small.events.parquet", *arguments).startswith(named)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "the following arguments are required: TRACE"),
        (["small.events.parquet", "--order", "backwards"], "argument --order: invalid choice: 'backwards'"),
        (["small.events.parquet", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["small.events.parquet", "--alpha", "x"], "argument --alpha: invalid float value: 'x'"),
    ],
)
def test_bad_usage_is_one_line_and_exits_2(arguments: list[str], named: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["replay", *arguments])
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"atts-sim replay: {named}")


@pytest.mark.parametrize("name", ["bank.npz", "bank.npy"])
def test_a_bank_that_is_cut_short_anywhere_is_refused_in_one_line(name: str, capsys: Capture) -> None:
    scores = [0.5, 1.0, 1.5]
    save_bank(SealedBank(scores), Path("bank.npz"))
    np.save("bank.npy", np.exp(scores))
    whole = Path(name).read_bytes()
    for length in {0, 3, len(whole) // 4, len(whole) // 2, len(whole) - 8, len(whole) - 1}:
        Path(name).write_bytes(whole[:length])
        assert f"bank {name} is not a bank" in mistake(capsys, "small.events.parquet", "--bank", name)


@pytest.mark.parametrize("perplexities", [[1.5, math.nan], [0.5], [math.inf], [[1.5, 2.0]]])
def test_a_bank_of_impossible_perplexities_is_refused_in_one_line(perplexities: list[Any], capsys: Capture) -> None:
    np.save("bank.npy", np.array(perplexities))
    assert mistake(capsys, "small.events.parquet", "--bank", "bank.npy").startswith("bank bank.npy is not a bank: ")


def test_a_trace_that_is_not_there_is_named_in_one_line(capsys: Capture) -> None:
    named = mistake(capsys, "gone.events.parquet")
    assert named.startswith("cannot read trace gone.events.parquet: ")
    assert "No such file" in named


def test_a_file_that_is_no_trace_is_named_in_one_line(capsys: Capture) -> None:
    Path("notes.txt").write_text("no table\n" * 9)
    assert mistake(capsys, "notes.txt").startswith("trace notes.txt is not a Parquet table: ")


def test_columns_that_a_trace_lacks_are_named_in_one_line(capsys: Capture) -> None:
    pd.read_parquet("small.events.parquet").drop(columns=["ppl", "turn"]).to_parquet("bare.parquet")
    assert mistake(capsys, "bare.parquet").startswith("trace bare.parquet lacks the columns turn, ppl; a trace has ")


def test_a_missing_score_is_named_in_one_line_with_the_way_out(capsys: Capture) -> None:
    named = mistake(capsys, "gaps.events.parquet")
    assert named.startswith("trace gaps.events.parquet has 1 missing scores of 3, the first in row 1 (ppl nan); ")
    assert "--skip-missing" in named


def test_debug_shows_where_a_mistake_was_found_before_the_one_line(capsys: Capture) -> None:
    assert main(["replay", "gone.events.parquet", "--debug"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith("atts-sim replay: cannot read trace gone.events.parquet")


# -- pictures


def test_an_svg_is_well_formed_and_the_same_to_the_byte_each_time(capsys: Capture) -> None:
    for name in ("one.svg", "two.svg"):
        assert main(["replay", "small.events.parquet", "--plot", name]) == 0
    assert ElementTree.parse("one.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert Path("one.svg").read_bytes() == Path("two.svg").read_bytes()
    assert "all" in capsys.readouterr().out  # the table comes as well


def test_another_replay_is_another_picture(capsys: Capture) -> None:
    for name, order in (("one.svg", "admission"), ("two.svg", "completion")):
        replayed(capsys, "small.events.parquet", "--plot", name, "--calibrator", "marginal", "--order", order)
    assert Path("one.svg").read_bytes() != Path("two.svg").read_bytes()


@pytest.mark.parametrize(("name", "magic"), [("rates.png", b"\x89PNG\r\n\x1a\n"), ("rates.pdf", b"%PDF-")])
def test_the_ending_of_the_file_says_what_kind_of_picture_it_is(name: str, magic: bytes, capsys: Capture) -> None:
    assert replayed(capsys, "gaps.events.parquet", "--skip-missing", "--plot", name)["scores"] == 2
    assert Path(name).read_bytes().startswith(magic)


def test_the_picture_shows_the_rates_of_the_summary(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    summary = replayed(capsys, "small.events.parquet", "--calibrator", "frozen", "--plot", "rates.svg")
    ((turns, questions),) = (figure.axes for figure in drawn)
    points = turns.containers[0][0]
    assert list(points.get_xdata()) == [0, 1, 2]
    assert list(points.get_ydata()) == [row["rate"] for row in summary["by_turn"]]
    (bars,) = turns.containers[0][2]
    ends = [[end for _, end in bar] for bar in bars.get_segments()]
    assert np.allclose(ends, [row["ci95"] for row in summary["by_turn"]])
    groups = {line.get_label().split(":")[0]: sorted(line.get_ydata()) for line in questions.lines}
    for label, inside in (("in the band", True), ("outside", False)):
        shown = sorted(row["rate"] for row in summary["by_question"] if row["in_band"] is inside)
        assert groups.get(label, []) == shown
