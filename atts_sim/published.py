"""Published traces as recordings to be replayed.

The tables of a trace leave gaps, which are filled so: an empty target row is an end of text drawn at once, one token;
an empty draft at a chain's end likewise, and as it was not scored, the end belongs to the turn before; a prompt has a
token for four characters of the question; an answer stands where the trace's final one is not ``invalid``, and whether
it is right is not known. `token_scale` corrects token counts that were made with another tokenizer.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from atts_runtime.control import ChainId
from atts_runtime.errors import InputError
from atts_runtime.untrusted import table_in
from atts_sim.columns import check_numbers, floats
from atts_sim.recorded import Prompt, Recorded, RecordedChain, Unrecorded
from atts_sim.workload import Written

_CHARS_PER_TOKEN = 4
_MOST_TOKENS = 10_000_000  # of a piece: no model's context holds more
_Call: TypeAlias = tuple[int, str, float, float]
"""Turn, kind, tokens and perplexity, NaN where there is none."""


def read_trace(path: Path, *, token_scale: float = 1.0, unrecorded: Unrecorded = "raise") -> Recorded:
    """A published trace: `path` is its ``.events.parquet``, the table of samples lies beside it.

    Raises InputError where a table cannot be read, lacks columns, holds something else in them, or has rows that make
    no chain.
    """
    if not token_scale > 0:
        raise InputError(f"token_scale must be positive, got {token_scale}")
    events = _table(path, ("sample", "problem", "turn", "kind", "tokens", "ppl"))
    beside = path.with_name(path.name.replace("events.parquet", "samples.parquet"))
    samples = _table(beside, ("sample", "problem", "duration_s", "final_answer", "question_chars"))
    check_numbers(events, f"trace {path}", numbers=("tokens", "ppl"), counts=("sample", "turn"))
    counts = ("sample", "problem", "question_chars")
    check_numbers(samples, f"trace {beside}", numbers=("duration_s",), counts=counts)
    numbers = {int(problem): q for q, problem in enumerate(sorted(samples["problem"].unique()))}
    prompts = [Prompt(1, 1)] * len(numbers)
    chains: dict[ChainId, RecordedChain] = {}
    calls_of: dict[int, list[_Call]] = {}
    columns = [events[name].tolist() for name in ("sample", "turn", "kind")]
    columns += [floats(events, name).tolist() for name in ("tokens", "ppl")]
    for sample, turn, kind, count, ppl in zip(*columns, strict=True):
        calls_of.setdefault(int(sample), []).append((int(turn), str(kind), count, ppl))
    index: dict[int, int] = {}
    last_turn = int(events["turn"].max())
    samples = samples.assign(duration_s=floats(samples, "duration_s")).sort_values(["problem", "sample"])
    for row in samples.itertuples():
        question = numbers[int(row.problem)]
        chain = ChainId(question, index.get(question, 0))
        index[question] = chain.index + 1
        tokens = max(1, round(row.question_chars / _CHARS_PER_TOKEN))
        prompts[question] = Prompt(tokens, tokens)
        calls = calls_of.get(int(row.sample))
        if calls is None:
            raise InputError(f"trace {path} has no events of sample {row.sample}")
        try:
            ends = calls[-1][0] < last_turn
            recorded = _published_chain(calls, token_scale, answered=str(row.final_answer) != "invalid", ends=ends)
        except ValueError as error:
            raise InputError(f"trace {path}, sample {row.sample}: {error}") from error
        recorded.duration_s = row.duration_s if math.isfinite(row.duration_s) else None
        chains[chain] = recorded
    return Recorded(prompts, chains, unrecorded=unrecorded)


def _table(path: Path, needed: tuple[str, ...]) -> Any:
    try:
        table = table_in(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not a Parquet table: {error}") from error
    lacking = [name for name in needed if name not in table.columns]
    if lacking:
        raise InputError(f"{path} lacks the columns {', '.join(lacking)}")
    if not len(table):
        raise InputError(f"{path} is empty")
    return table


def _published_chain(calls: list[_Call], scale: float, *, answered: bool, ends: bool) -> RecordedChain:
    """`ends`: it had turns left when it stopped. Raises ValueError where the calls are no chain of drafts, scores and
    takeovers."""
    last_turn, last_kind, last_tokens, _ = calls[-1]
    if last_kind == "draft" and last_tokens == 0 and last_turn > 0 and len(calls) > 1:
        calls, ends = calls[:-1], True
    recorded = RecordedChain()
    for turn, kind, tokens, ppl in calls:
        if kind == "draft" and turn == recorded.turns:
            recorded.drafts.append(_written(tokens, scale))
            recorded.ells.append(None)
            recorded.takeovers.append(None)
        elif turn != recorded.turns - 1:
            before = f"turn {recorded.turns - 1}" if recorded.turns else "nothing"
            raise ValueError(f"a {kind} in turn {turn} follows on {before}")
        elif kind == "score":
            if not (math.isfinite(ppl) and ppl >= 1):
                raise ValueError(f"the score of turn {turn} has a perplexity of {ppl}")
            recorded.ells[turn] = math.log(ppl)
        elif kind == "target":
            recorded.takeovers[turn] = _written(tokens, scale)
        else:
            raise ValueError(f"rows of kind {kind!r} cannot be replayed; draft, score and target can")
    for written in (recorded.drafts, recorded.takeovers):
        last = written[-1]
        if last is not None:
            eos = written is recorded.takeovers and last_tokens == 0
            written[-1] = replace(last, answered=answered, ended=eos or (ends and not answered), eos=eos)
    return recorded


def _written(tokens: float, scale: float) -> Written:
    """An empty piece is one token, an end of text, which does not stop the chain unless it is the chain's last."""
    if not 0 <= tokens * scale <= _MOST_TOKENS:
        raise ValueError(f"a piece of {tokens:g} tokens" + (f", times {scale:g}" if scale != 1 else ""))
    return Written(max(1, round(int(tokens) * scale)))
