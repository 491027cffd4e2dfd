"""Which policies are beaten by others: the front of accuracy, time and the target's tokens, and its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_CLOSE_PT = 11.0


def figures(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """What a policy is judged by, all of it better when larger: accuracy of its vote, less wall seconds, less tokens
    that the target wrote."""
    voted = row["accuracy"]["voted"]
    return (-1.0 if voted is None else voted), -row["wall_s"], -row["target_tokens"]


def dominated(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """For each row the policies that are no worse in any figure and better in one."""
    points = [figures(row) for row in rows]
    return [
        [
            str(other["policy"])
            for other, theirs in zip(rows, points, strict=True)
            if theirs != mine and all(a >= b for a, b in zip(theirs, mine, strict=True))
        ]
        for mine in points
    ]


def told(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """In words: who is on the front, who is beaten by whom, and what lossless means."""
    lines = []
    if len(rows) > 2:
        front = [row["policy"] for row in rows if not row["dominated_by"]]
        lines.append(f"On the front of accuracy (vote), wall and the target's tokens: {', '.join(front)}.")
        lines += [
            f"Dominated: {row['policy']}, no better in any of the three than {', '.join(row['dominated_by'][:3])}."
            for row in rows
            if row["dominated_by"]
        ]
        lines.append("By these figures as they are; differences within their intervals may be chance.")
    margins = [told["margin"] for row in rows if (told := row["mean_chain_difference"]) is not None]
    if margins:
        lines.append(
            f"lossless: the 95% interval of the paired difference lies above -{100 * margins[0]:g} points; "
            "worse: below 0; not shown: neither, more questions would tell."
        )
    return lines


def draw(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Accuracy against wall seconds and against the target's tokens, dominated policies pale."""
    from atts_runtime.report.theme import BLUE, GREY, INK, MUTED, drawing

    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.6, 4.0), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        xs = (("wall, s", [row["wall_s"] for row in rows]),
              ("tokens that the target model wrote", [row["target_tokens"] for row in rows]))  # fmt: skip
        ys = [100 * figures(row)[0] for row in rows]
        for axes, (label, values) in zip(panels, xs, strict=True):
            for row, x, y in zip(rows, values, ys, strict=True):
                on_front = not row["dominated_by"]
                axes.plot([x], [y], "o", color=BLUE if on_front else GREY, markersize=7 if on_front else 5)
            axes.set_xlabel(label)
            axes.set_xlim(left=0, right=1.25 * max(values) or 1.0)
            figure.draw_without_rendering()
            _name(axes, rows, list(zip(values, ys, strict=True)), (INK, MUTED))
        panels[0].set_ylabel("questions that the policy's vote gets right, %")
        front = [row["policy"] for row in rows if not row["dominated_by"]]
        figure.suptitle(
            f"{len(front)} of {len(rows)} policies are on the front ({title})", fontsize=9.5, x=0.01, ha="left"
        )
        figure.savefig(path, format="svg", metadata={"Date": None})


def _name(
    axes: Any, rows: Sequence[Mapping[str, Any]], points: Sequence[tuple[float, float]], inks: tuple[str, str]
) -> None:
    """Names beside the points, one below the other where points are close."""
    taken: list[tuple[float, float]] = []
    for row, point in sorted(zip(rows, points, strict=True), key=lambda pair: (-pair[1][1], pair[1][0])):
        x, y = axes.transData.transform(point)
        while any(abs(x - other_x) < 90 and abs(y - other_y) < _CLOSE_PT for other_x, other_y in taken):
            y -= _CLOSE_PT
        taken.append((x, y))
        axes.annotate(
            row["policy"], axes.transData.inverted().transform((x, y)), (5, -3), textcoords="offset points",
            fontsize=8, color=inks[bool(row["dominated_by"])], annotation_clip=False,
        )  # fmt: skip
