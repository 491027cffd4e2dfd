"""Breaks the calibration code on purpose, one mutant at a time, and reports which test notices.

    python tests/mutants.py [--only NAME ...] [--json] [--python INTERPRETER]

A copy of the repository is mutated, never the repository. Exits with 1 if a mutant survives, if its old text does
not occur exactly once in its file, or if the tests fail without any mutant.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("atts_runtime/conformal")
TESTS = "tests/runtime/conformal"
LIMIT_S = 900  # of one run of the tests; a mutant that makes them hang is no kill


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit: `old`, which occurs exactly once in `file` of the package, becomes `new`."""

    name: str
    file: str
    old: str
    new: str


# Of each p-value: its expression, and what may go wrong with it. Without the +1 the tested score does not count itself,
# with > for >= equal scores do not count, and with the sign flipped the tamest are taken over, at the very same rate.
P_VALUES = {
    "plain": (
        "(1 + greater + equal) / (n + 1)",
        {
            "no +1": "(greater + equal) / max(n, 1)",
            "+1 in the numerator only": "(1 + greater + equal) / max(n, 1)",
            "> for >=": "(1 + greater) / (n + 1)",
            "sign flipped": "(1 + n - greater) / (n + 1)",
        },
    ),
    "smoothed": (
        "(greater + u * (equal + 1)) / (n + 1)",
        {
            "no +1": "(greater + u * equal) / max(n, 1)",
            "+1 in the numerator only": "(greater + u * (equal + 1)) / max(n, 1)",
            "> for >=": "(greater + u) / (n + 1)",
            "sign flipped": "(n - greater - equal + u * (equal + 1)) / (n + 1)",
        },
    ),
    "plain batch": (
        "(1.0 + (len(bank) - first)) / (len(bank) + 1)",
        {
            "no +1": "(len(bank) - first) / max(len(bank), 1)",
            "+1 in the numerator only": "(1.0 + (len(bank) - first)) / max(len(bank), 1)",
            "> for >=": '(1.0 + (len(bank) - np.searchsorted(bank, tested, side="right"))) / (len(bank) + 1)',
            "sign flipped": '(1.0 + np.searchsorted(bank, tested, side="right")) / (len(bank) + 1)',
        },
    ),
    "smoothed batch": (
        "((n - first - equal) + ties * (equal + 1)) / (n + 1)",
        {
            "no +1": "((n - first - equal) + ties * equal) / max(n, 1)",
            "+1 in the numerator only": "((n - first - equal) + ties * (equal + 1)) / max(n, 1)",
            "> for >=": "((n - first - equal) + ties) / (n + 1)",
            "sign flipped": "(first + ties * (equal + 1)) / (n + 1)",
        },
    ),
}
ADAPTIVE = """\
        counts, bank = self.counts(question, turn, score)
        p_value = smoothed(counts, u)
        taken_over, alpha = self.judge(question, turn, p_value)
        return Decision(p_value, alpha, taken_over, bank, self.observe(question, turn, score, u, attempt))
"""

MUTANTS = (
    *(
        Mutant(f"{kind}: {fault}", "pvalue.py", f"return {right}", f"return {wrong}")
        for kind, (right, faults) in P_VALUES.items()
        for fault, wrong in faults.items()
    ),
    Mutant(
        "bank: > for >=",
        "bank.py",
        "first, last = self._scores.bisect_left(score), self._scores.bisect_right(score)",
        "first = last = self._scores.bisect_right(score)",
    ),
    # A score among those that it is compared with.
    Mutant(
        "online: insert before query",
        "calibrators.py",
        "        p_value = smoothed(bank.counts(score), u)\n        bank.add(score)\n",
        "        bank.add(score)\n        p_value = smoothed(bank.counts(score), u)\n",
    ),
    Mutant(
        "adaptive: insert before query",
        "calibrators.py",
        ADAPTIVE,
        """\
        alarms = self.observe(question, turn, score, u, attempt)
        counts, bank = self.counts(question, turn, score)
        p_value = smoothed(counts, u)
        taken_over, alpha = self.judge(question, turn, p_value)
        return Decision(p_value, alpha, taken_over, bank, alarms)
""",
    ),
    Mutant(
        "member: ranked among itself",
        "bank.py",
        "return Counts(counts.greater, counts.equal - 1, counts.n - 1)",
        "return counts",
    ),
    # Learning from what was not taken over alone: ever tamer banks.
    Mutant(
        "online: learns accepted scores only",
        "calibrators.py",
        "        bank.add(score)\n",
        "        if p_value > self.alpha:\n            bank.add(score)\n",
    ),
    Mutant(
        "adaptive: learns accepted scores only",
        "calibrators.py",
        "bank, self.observe(question, turn, score, u, attempt))",
        "bank, self.leave(question, turn) if taken_over else self.observe(question, turn, score, u, attempt))",
    ),
    Mutant(
        "aci: alpha clipped to [0, 1]",
        "budget.py",
        "return self.alpha + sum(self._accounts[key].offset for key in keys if key in self._accounts)",
        "return min(1.0, max(0.0, self.alpha + sum(self._accounts[k].offset for k in keys if k in self._accounts)))",
    ),
    Mutant(
        "aci: moves the wrong way",
        "budget.py",
        "self.gamma * (self.alpha - taken_over)",
        "self.gamma * (taken_over - self.alpha)",
    ),
    Mutant(
        "monitor: insert before query",
        "monitor.py",
        "        p_value = smoothed(self._bank.counts(score), u)\n        self._bank.add(score)\n",
        "        self._bank.add(score)\n        p_value = smoothed(self._bank.counts(score), u)\n",
    ),
    # References that depend on what has happened to finish.
    Mutant(
        "cohorts: latest complete one for the fixed lag",
        "cohorts.py",
        "        if newest < 0:\n",
        "        newest = max((e for e, cohort in state.cohorts.items() if cohort.complete), default=-1)\n"
        "        if newest < 0:\n",
    ),
    Mutant(
        "cohorts: whatever of the reference has finished",
        "cohorts.py",
        "if not all(block.complete for block in blocks):",
        "if not any(block.scores for block in blocks):",
    ),
    Mutant(
        "cohorts: each segment decides anew",
        "cohorts.py",
        "        if own.reference is None:\n            own.reference",
        "        if True:\n            own.reference",
    ),
    Mutant(
        "cohorts: a member that leaves is not counted",
        "cohorts.py",
        "return len(self.scores) + self.left == self.members",
        "return len(self.scores) == self.members",
    ),
    Mutant("cohorts: lag shorter by one", "cohorts.py", "cohort - self.lag)", "cohort - self.lag + 1)"),
    Mutant("cohorts: nothing is dropped", "cohorts.py", "while state.oldest_kept < in_sight:", "while False:"),
    Mutant(
        "window: evicts the newest",
        "bank.py",
        "self._scores.remove(self._oldest_first.popleft())",
        "self._scores.remove(self._oldest_first.pop())",
    ),
    Mutant(
        "mondrian: one bank for all keys",
        "bank.py",
        "        if key not in self._banks:\n",
        "        key = None\n        if key not in self._banks:\n",
    ),
    Mutant("nan: accepted as a score", "pvalue.py", "if not math.isfinite(score):", "if math.isinf(score):"),
    Mutant(
        "nan: accepted in a batch", "pvalue.py", "if not np.all(np.isfinite(array)):", "if np.any(np.isinf(array)):"
    ),
    Mutant("nan: accepted in a sealed bank", "bank.py", "not np.all(np.isfinite(array))", "np.any(np.isinf(array))"),
    Mutant(
        "nan: accepted from an .npy",
        "store.py",
        "if not np.all(np.isfinite(array) & (array >= 1)):",
        "if np.any(array < 1) or np.any(np.isinf(array)):",
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one run of the tests: the id of the first that failed, if any, and what went wrong if none could tell."""

    mutant: str
    killed_by: str | None
    seconds: float
    trouble: str | None = None


def misfits() -> list[str]:
    """Mutants that no longer fit the code."""
    found = []
    for mutant in MUTANTS:
        times = (ROOT / PACKAGE / mutant.file).read_text(encoding="utf-8").count(mutant.old)
        if times != 1:
            found.append(f"{mutant.name}: its old text occurs {times} times in {PACKAGE / mutant.file}, not once")
    if len({mutant.name for mutant in MUTANTS}) < len(MUTANTS):
        found.append("two mutants have the same name")
    return found


def copy_repository(to: Path) -> None:
    """Files that git tracks, and those that it would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def run_tests(python: str, folder: Path, name: str) -> Outcome:
    command = [python, "-m", "pytest", "-x", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    command += ["--hypothesis-profile=unshrunk"]
    # Two mutants of a file may share its size and, within a second, its time: compiled files would not be renewed.
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    started = time.monotonic()
    try:
        done = subprocess.run([*command, TESTS], cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return Outcome(name, None, LIMIT_S, f"the tests did not end within {LIMIT_S} s")
    seconds = round(time.monotonic() - started, 1)
    failed = [line[7:].split(" - ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    if done.returncode == 1 and failed:
        return Outcome(name, failed[0].removeprefix(f"{TESTS}/"), seconds)
    if done.returncode == 0:
        return Outcome(name, None, seconds)
    last = (done.stdout + done.stderr).strip().splitlines()[-3:]
    return Outcome(name, None, seconds, f"pytest ended with status {done.returncode}: {' / '.join(last)}")


def run_mutants(python: str, mutants: Sequence[Mutant]) -> Iterator[Outcome]:
    """The outcome without any mutant, then that of each."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        copy_repository(copy)
        yield run_tests(python, copy, "(none)")
        for mutant in mutants:
            file = copy / PACKAGE / mutant.file
            whole = file.read_text(encoding="utf-8")
            file.write_text(whole.replace(mutant.old, mutant.new), encoding="utf-8")
            yield run_tests(python, copy, mutant.name)
            file.write_text(whole, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = [mutant.name for mutant in MUTANTS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="this mutant; repeatable")
    parser.add_argument("--json", action="store_true", help="print a JSON list rather than a table")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the tests")
    args = parser.parse_args()
    if found := misfits():
        print(*found, sep="\n", file=sys.stderr)
        return 1
    chosen = [mutant for mutant in MUTANTS if not args.only or mutant.name in args.only]
    outcomes, wrong = [], 0
    for outcome in run_mutants(args.python, chosen):
        first = not outcomes
        outcomes.append(outcome)
        healthy = (outcome.killed_by is None) == first and outcome.trouble is None
        wrong += not healthy
        verdict = outcome.trouble or outcome.killed_by or ("all pass" if first else "SURVIVED")
        if not args.json:
            print(f"{outcome.mutant:<50} {outcome.seconds:>6.1f} s  {verdict}", flush=True)
        if first and not healthy:
            print("the tests must pass without any mutant", file=sys.stderr)
            break
    if args.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
