r"""How far two ways of finding answers in the same 1,600 model texts agree, and what looking for one costs a chain.

    python tests/benchmarks/bench_answers.py [--trace pair_math500_raw] [--limit-s 5] [--all] [--json]

A published trace holds, for each chain, the answer that the method's authors took by a regular expression
(``\\boxed\{(.*?)\}``, the last match) and the one that they had a language model extract from the same text.
math-verify says which pairs are equal; every pair that is not is put into the first class that fits:

neither answers           both columns are blank or "invalid" (no disagreement, and no agreement on an answer)
no answer by regex        the regular expression found none, or a blank box
no answer by the LLM      it said "invalid"
cut at a brace            the regular expression stopped at the first closing brace: ``\dfrac{8`` of ``\dfrac{8}{15}``
one of several values     the regular expression kept the last box of several: "-2" of "1, -2"
unit or words             equal once units and words are taken away
unknown                   math-verify failed or ran out of time
another value             none of these

The cost is that of asking after each of 40 segments of 2,000 characters whether the chain has answered.
The traces are read from the folder that ATTS_TRACES names, by default ../shared/traces.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from atts_runtime.tasks.answers import MathAnswers
from atts_runtime.tasks.base import Question, Task

TRACES = Path(os.environ.get("ATTS_TRACES") or Path(__file__).parents[2].parent / "shared" / "traces")
EQUAL, NEITHER = "equal", "neither answers"
_WORDS = re.compile(r"\\(?:text|mathrm|textbf)\{[^{}]*\}|\\[,;: ]|\b[A-Za-z]{2,}\b(?![({])")


def compared(trace: Path, limit_s: float) -> pd.DataFrame:
    """A row a chain: `regex`, `llm`, `final`, and the `verdict`, which is `EQUAL`, `NEITHER` or a class."""
    samples = pd.read_parquet(trace)
    answers = MathAnswers(limit_s)
    table = samples.rename(columns={"answer_regex": "regex", "answer_llm": "llm", "final_answer": "final"})
    table = table[["problem", "regex", "llm", "final"]]
    table["verdict"] = [classed(regex, llm, answers) for regex, llm in zip(table["regex"], table["llm"], strict=True)]
    answers.close()
    return table


def classed(regex: str, llm: str, answers: MathAnswers) -> str:
    """The class of one pair of answers."""
    found, read = (answer.strip() not in ("", "invalid") for answer in (regex, llm))
    if not (found and read):
        return NEITHER if not (found or read) else "no answer by the LLM" if found else "no answer by regex"
    same = answers.same(regex, llm)
    if same:
        return EQUAL
    if regex.count("{") > regex.count("}"):
        return "cut at a brace"
    if any(answers.same(regex, part) for part in llm.split(",")):
        return "one of several values"
    if answers.same(bare(regex), bare(llm)):
        return "unit or words"
    return "unknown" if same is None else "another value"


def bare(answer: str) -> str:
    """An answer without units and words."""
    return _WORDS.sub("", answer).strip()


def streaming(segments: int, chars: int, repeats: int) -> dict[str, float]:
    """Seconds to ask after every segment of a chain whether it has answered; the median of `repeats` chains.

    The text has braces in every line and mentions the answer; it also quotes an empty box, or opens one for good.
    """
    line = "so that $\\frac{a}{b} = \\sqrt{x_{1}}$, and the answer is near\n"
    segment = (line * (chars // len(line) + 1))[:chars]
    task = Task("bench", (Question("q", "?", "1"),), None, MathAnswers())
    starts = {"no box": "", "a blank box": "put it in \\boxed{}\n", "a box left open": "\\boxed{1\n"}
    seconds: dict[str, list[float]] = {name: [] for name in starts}
    for _ in range(repeats):
        for name, start in starts.items():
            text, spent = start, 0.0
            for _ in range(segments):
                text += segment
                begin = time.perf_counter()
                task.answered(text, len(segment))
                spent += time.perf_counter() - begin
            seconds[name].append(spent)
    return {name: statistics.median(spent) for name, spent in seconds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", default="pair_math500_raw")
    parser.add_argument("--limit-s", type=float, default=5.0, help="of one comparison")
    parser.add_argument("--all", action="store_true", help="list every pair that disagrees")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    path = TRACES / f"{args.trace}.samples.parquet"
    if not path.exists():
        print(f"bench_answers: {path} is not there: set ATTS_TRACES to the folder of the published traces")
        return 0
    start = time.perf_counter()
    table = compared(path, args.limit_s)
    wall_s = time.perf_counter() - start
    both = table[table["verdict"] != NEITHER]
    agree = int((both["verdict"] == EQUAL).sum())
    result: dict[str, Any] = {
        "chains": len(table),
        "with_an_answer": len(both),
        "equal": agree,
        "equal_as_text": int((both["regex"] == both["llm"]).sum()),
        "agreement": agree / len(both),
        "final_is_llm": int((table["final"] == table["llm"]).sum()),
        "classes": dict(Counter(table["verdict"]).most_common()),
        "wall_s": wall_s,
        "streaming_s": streaming(40, 2000, 5),
    }
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"{args.trace}: {agree} of {len(both)} chains with an answer agree ({100 * agree / len(both):.1f}%); "
          f"as text {result['equal_as_text']}; the final answer is the LLM's in {result['final_is_llm']}")  # fmt: skip
    for name, count in result["classes"].items():
        print(f"  {count:5} {name}")
    if args.all:
        wrong = both[both["verdict"] != EQUAL]
        for (name, regex, llm), count in wrong.groupby(["verdict", "regex", "llm"]).size().items():  # type: ignore[misc]
            print(f"  {name:24} {count:3}  {regex!r}  {llm!r}")
    print(f"comparing took {wall_s:.1f} s; asking 40 times whether a chain of 80,000 characters has answered: "
          + ", ".join(f"{1e3 * s:.1f} ms ({name})" for name, s in result["streaming_s"].items()))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
