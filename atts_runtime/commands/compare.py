"""``atts-runtime compare``: several policies on the same questions, seeds and engines."""

from __future__ import annotations

import argparse
import io
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from atts_runtime.accuracy import QuestionResult, by_question
from atts_runtime.commands.running import config_of, default_out, report_failures
from atts_runtime.config import BUNDLED, POLICY_SETTINGS, RunConfig, read_options
from atts_runtime.control import POLICIES
from atts_runtime.errors import InputError
from atts_runtime.front import dominated
from atts_runtime.paired import difference


@dataclass(slots=True)
class _Compared:
    """A policy with its settings, and its runs so far: summaries, and what came of each question."""

    label: str
    config: RunConfig
    summaries: list[dict[str, Any]] = field(default_factory=list)
    questions: list[Mapping[int, QuestionResult]] = field(default_factory=list)

    def median(self) -> dict[str, Any]:
        """The run whose wall seconds are the (lower) median, and the wall seconds of all."""
        walls = [run["wall_s"] for run in self.summaries]
        middle = self.summaries[walls.index(statistics.median_low(walls))]
        return {**middle, "policy": self.label, "repeats": len(walls), "wall_s_all": walls}

    def mean(self, what: str) -> dict[int, float]:
        """A share by question, over all repeats that have one."""
        values: dict[int, list[float]] = defaultdict(list)
        for run in self.questions:
            for question, found in run.items():
                if (value := getattr(found, what)) is not None:
                    values[question].append(float(value))
        return {question: statistics.mean(of_question) for question, of_question in values.items()}


async def execute(args: argparse.Namespace) -> int:
    """Run them interleaved and tabulate them."""
    from rich.console import Console

    from atts_runtime.render import ProgressBar
    from atts_runtime.rundir import RunDir
    from atts_runtime.session import check_context, check_engine, check_hardware, engines_for, load, roles, run_once

    base = config_of(args)
    if args.repeats < 1:
        raise InputError(f"repeats must be at least 1, got {args.repeats}")
    difference({}, {}, margin=args.margin)  # raises where it cannot be one
    out = Path(base.out or default_out("compare"))
    compared = chosen(base, args.policies)
    needed = {role for one in compared for role in roles(one.config).values()}
    check_engine(base, needed)
    base, task = load(base)
    for one in compared:
        one.config = one.config.with_options({"task": base.task})
    paths = {(one.label, r): out / f"{one.label}-{r}" for r in range(args.repeats) for one in compared}
    for path in (out, *paths.values()):
        RunDir.check_free(path, mend="choose another --out")
    console = Console(stderr=True)
    size = f"{len(task.questions)} questions x {base.chains} chains"
    console.print(f"{size}, loading models", style="dim", highlight=False)
    async with engines_for(base, needed) as engines:
        for one in compared:
            check_context(one.config, task, engines)
        check_hardware(base, engines)
        for repeat in range(args.repeats):
            for one in compared:
                fingerprint = one.config.fingerprint(task.fingerprint)
                run_dir = RunDir.create(paths[one.label, repeat], one.config, fingerprint)
                with ProgressBar(one.label, console) as bar:
                    one.summaries.append(await run_once(one.config, task, engines, run_dir, bar.update))
                one.questions.append(by_question(run_dir.finished, task, one.config.recipe.vote()))
    rows = rows_of(compared, args.margin)
    title = f"{base.task}: {size}, alpha {base.alpha:g}, median of {args.repeats}"
    _write(out, rows, title)
    if args.json:
        print(json.dumps({"title": title, "run_dir": str(out), "policies": rows}, allow_nan=False))
    else:
        _print(rows, title)
        console.print(
            f"run directories, compare.json, compare.svg and front.svg in {out}",
            style="dim",
            markup=False,
            highlight=False,
        )
    return report_failures([summary for one in compared for summary in one.summaries])


def chosen(base: RunConfig, names: str) -> list[_Compared]:
    """The policies of ``--policies`` with their settings, those of a .toml file from there; ``all``: every policy.

    A bank goes to those that take one, a draft of its own to those of two models. Raises InputError.
    """
    entries = list(POLICIES) if names.strip() == "all" else [name.strip() for name in names.split(",")]
    compared = []
    for entry in entries:
        options: dict[str, Any] = {"policy": entry}
        if entry.endswith(".toml"):
            options = read_options(Path(entry))
            if further := sorted(options.keys() - set(POLICY_SETTINGS)):
                raise InputError(f"{entry} sets {further[0]}, which no policy is made of; give it as a flag")
        recipe = base.with_options({"bank": None, "draft": BUNDLED, **options}).recipe
        options |= ({} if recipe.gate.takes_bank else {"bank": None}) | ({"draft": BUNDLED} if recipe.one_model else {})
        compared.append(_Compared(Path(entry).stem if entry.endswith(".toml") else entry, base.with_options(options)))
    if len({one.label for one in compared}) < len(compared):
        raise InputError(f"a policy is named twice in {names!r}; ask for --repeats instead")
    return compared


def rows_of(compared: Sequence[_Compared], margin: float) -> list[dict[str, Any]]:
    """A row a policy: its median run, and how it compares with the first policy and with all others."""
    from atts_runtime.render import comparison_rows

    rows = comparison_rows([one.median() for one in compared])
    first = compared[0]
    for one, row in zip(compared, rows, strict=True):
        written = row["tokens"]["draft"] + row["tokens"]["takeover"]
        row["target_tokens"] = written if one.config.recipe.one_model else row["tokens"]["takeover"]
        row["target_token_share"] = row["target_tokens"] / written if written else None
        for what, name in (("share", "mean_chain"), ("voted", "voted")):
            found = None if one is first else difference(one.mean(what), first.mean(what), margin=margin)
            told = None if found is None else asdict(found) | {"verdict": found.verdict}
            row[f"{name}_difference"] = told
    for row, better in zip(rows, dominated(rows), strict=True):
        row["dominated_by"] = better
    return rows


def _write(out: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    from rich.console import Console

    from atts_runtime.front import draw
    from atts_runtime.render import MANY, comparison_table

    (out / "compare.json").write_text(json.dumps(rows, indent=2, allow_nan=False) + "\n")
    # A quiet console would record nothing.
    recorder = Console(record=True, width=60 + 20 * min(len(rows), MANY), file=io.StringIO())
    recorder.print(comparison_table(rows, title))
    recorder.save_svg(str(out / "compare.svg"), title="atts-runtime compare")
    draw(rows, out / "front.svg", title)


def _print(rows: Sequence[dict[str, Any]], title: str) -> None:
    from rich.console import Console

    from atts_runtime.front import told
    from atts_runtime.render import comparison_table

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(comparison_table(rows, title))
    for line in told(rows):
        console.print(line, markup=False, highlight=False)
