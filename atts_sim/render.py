"""What people see of a replay: tables, and a plot. Programs read the JSON instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from atts_runtime.errors import InputError

_UNDATED: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".png": {}, ".pdf": {"CreationDate": None}}
"""Endings of plots, and what keeps the date of each kind of file out of it."""


def replay_tables(summary: dict[str, Any]) -> tuple[Table, Table]:
    """Takeover rates by question, and by turn and overall, with exact intervals; the caption of these says what else
    the calibrator did."""
    alpha = summary["alpha"]
    title = f"{escape(Path(summary['trace']).name)}: {summary['calibrator']}, alpha {alpha:g}, {summary['order']} order"
    questions = _rates(f"{title}, by question", "problem", "in exact 99% band")
    for row in summary["by_question"]:
        questions.add_row(str(row["problem"]), *_figures(row), "yes" if row["in_band"] else "no")
    turns = _rates(f"{title}, by turn", "turn", "off by")
    turns.caption = "\n".join(_remarks(summary))
    for row in [*summary["by_turn"], {**summary["takeover"], "turn": "all"}]:
        turns.add_row(str(row["turn"]), *_figures(row), f"{row['rate'] - alpha:+.3f}")
    return questions, turns


def _rates(title: str, first: str, last: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name in (first, "scores", "takeover", "exact 95% interval", last):
        table.add_column(name, justify="right")
    return table


def _figures(row: dict[str, Any]) -> tuple[str, str, str]:
    low, high = row["ci95"]
    return f"{row['scores']:,}", f"{row['rate']:.3f}", f"{low:.3f} to {high:.3f}"


def _remarks(summary: dict[str, Any]) -> list[str]:
    banks = ", ".join(f"{name} {count:,}" for name, count in summary["compared_with"].items())
    remarks = [
        f"{summary['questions_in_band']:.0%} of {len(summary['by_question'])} questions in the exact 99% band of alpha",
        f"compared with: {banks}; alpha_t from {summary['alpha_t']['min']:.2f} to {summary['alpha_t']['max']:.2f}",
    ]
    if summary["missing_scores"]:
        remarks.append(f"{summary['missing_scores']:,} missing scores left out")
    if summary["order"] == "completion":
        remarks.append(f"completion times {summary['completion_times']}")
    if summary["alarms"] is not None:
        first = summary["alarms"][:1]
        problems = {row["question"]: row["problem"] for row in summary["by_question"]}
        remarks.append(
            f"alarms: {len(summary['alarms'])}"
            + "".join(
                f", the first by {a['monitor']} ({a['kind']}) at problem {problems[a['question']]}" for a in first
            )
        )
    return remarks


def replay_plot(summary: dict[str, Any], path: Path) -> None:
    """Rates by turn and by question against alpha, as SVG, PNG or PDF by the file's ending; raises InputError where it
    cannot be written."""
    ending = path.suffix.lower()
    if ending not in _UNDATED:
        raise InputError(f"cannot write plot {path}: its name must end in {', '.join(_UNDATED)}")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from atts_runtime.conformal import laws

    alpha = summary["alpha"]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    turns, questions = figure.subplots(1, 2)
    rows = summary["by_turn"]
    rates = [row["rate"] for row in rows]
    errors = [[r["rate"] - r["ci95"][0] for r in rows], [r["ci95"][1] - r["rate"] for r in rows]]
    turns.errorbar([row["turn"] for row in rows], rates, yerr=errors, fmt="o", capsize=2, color="#0072b2")
    turns.set(xlabel="turn", ylabel="takeover rate", title="By turn, exact 95% intervals")
    rows = sorted(summary["by_question"], key=lambda row: row["scores"])
    bands = [laws.takeovers_interval(row["scores"], alpha, 0.99) for row in rows]
    at = range(len(rows))
    low, high = ([band[end] / row["scores"] for band, row in zip(bands, rows, strict=True)] for end in (0, 1))
    questions.fill_between(at, low, high, step="mid", color="#999999", alpha=0.35, lw=0, label="exact 99% band")
    for inside, color, label in ((True, "#0072b2", "in the band"), (False, "#d55e00", "outside")):
        points = [(i, row["rate"]) for i, row in enumerate(rows) if row["in_band"] is inside]
        if points:
            questions.plot(*zip(*points, strict=True), ".", color=color, label=f"{label}: {len(points)}")
    questions.set(xlabel="question, fewest scores first", title="By question")
    questions.legend(loc="upper right", fontsize="small")
    for axes in (turns, questions):
        axes.axhline(alpha, color="black", lw=1, ls="--")
        axes.set_ylim(-0.03, 1.03)
    overall = summary["takeover"]["rate"]
    figure.suptitle(
        f"{summary['calibrator']} on {Path(summary['trace']).name.split('.')[0]}: {overall:.3f} of "
        f"{summary['scores']:,} segments taken over at alpha {alpha:g}"
    )
    try:
        with mpl.rc_context({"svg.hashsalt": "atts"}):  # the same picture, byte for byte, for the same replay
            figure.savefig(path, metadata=_UNDATED[ending])
    except OSError as error:
        raise InputError(f"cannot write plot {path}: {error.strerror}") from error
