"""A scripted engine: no model and no torch, but real text for the bundled task, real mistakes and real faults.

It writes the next paragraph of a sum, right or (with a probability, drawn from the call's own seed) wrong, mends a
wrong paragraph or box that it finds at the end when it is `careful`, and scores wrong segments high. Calls are
answered after a seeded random number of turns of the event loop, so that `order` alone decides who comes first.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from atts_runtime.config import RunConfig
from atts_runtime.control import ChainId
from atts_runtime.driver import Driver
from atts_runtime.engines.base import (
    Engine,
    EngineError,
    EngineStats,
    GenerateCall,
    Generated,
    Piece,
    ScoreCall,
    Scored,
    Usage,
)
from atts_runtime.records import ChainRecord
from atts_runtime.rundir import RunDir
from atts_runtime.session import roles, run_once
from atts_runtime.tasks.arithmetic import LABELS, PARAGRAPH, WAIT, step_text
from atts_runtime.tasks.base import Task
from atts_runtime.tasks.load import load_task

BUSY_S = 0.25  # a call; the engine's own clock, so that its totals are exact
_TERM = re.compile(r"\(\w\)([+-]\d+)")
_STEP = re.compile(r"(?:Wait, )?(\d+) \((\w)\)([+-]\d+): .* = (\d+)")
_BOX = re.compile(r"\\boxed\{(\d+)\}")

Misbehaviour = Literal["nan", "infinite", "error", "retryable", "hang", "empty", "bug"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a chain: from its `first` call of a method on, `times` times (None: for ever)."""

    what: Misbehaviour
    method: Literal["generate", "score"]
    first: int = 0
    times: int | None = None

    def hits(self, method: str, nth: int) -> bool:
        """Whether the chain's `nth` call of a method goes wrong."""
        return method == self.method and nth >= self.first and (self.times is None or nth < self.first + self.times)


@dataclass
class ScriptedEngine:
    """An `Engine` that follows the rules above.

    `writes` fixes what a chain's call of a turn writes (text, end of text) instead. `wrote` has what each call of a
    turn wrote last, `pieces` what each wrote by chain, turn and the last part of its seed, its role and attempt;
    `asked` the generate calls; `answered` the calls by chain, faults included.
    """

    name: str
    wrong: float = 0.0
    careful: bool = False
    order: int = 0
    faults: Mapping[ChainId, Fault] = field(default_factory=dict)
    writes: Mapping[tuple[ChainId, int], tuple[str, bool]] = field(default_factory=dict)
    max_context: int | None = None
    calls: Counter[ChainId] = field(default_factory=Counter)
    wrote: dict[tuple[ChainId, int], Piece] = field(default_factory=dict)
    pieces: dict[tuple[ChainId, int, int], Piece] = field(default_factory=dict)
    asked: list[GenerateCall] = field(default_factory=list)
    released: list[ChainId] = field(default_factory=list)
    spec: None = None
    uncounted: str | None = "it is scripted"
    open: int = 0
    most_open: int = 0

    def __post_init__(self) -> None:
        self._order = random.Random(self.order)
        self._by_method: Counter[tuple[str, ChainId]] = Counter()
        self._stats = EngineStats()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def settled(self) -> None: ...

    async def reset(self, *, counted: bool = True) -> None:
        self._stats = EngineStats()

    def release(self, chain: ChainId) -> None:
        self.released.append(chain)

    def stats(self) -> EngineStats:
        return replace(self._stats)

    def steps(self) -> None:
        """It does not count."""

    @property
    def placement(self) -> None:
        """It is nowhere."""

    def prompt_tokens(self, prompt: str) -> int:
        return len(prompt)

    @property
    def max_context_tokens(self) -> int | None:
        return self.max_context

    async def generate(self, call: GenerateCall) -> Generated:
        with self._opened():
            usage, fault = await self._begin("generate", call)
            self.asked.append(call)
            turn = call.seed[3]
            if fault is not None and fault.what == "empty":
                text, eos = "", False
            elif (call.chain, turn) in self.writes:
                text, eos = self.writes[call.chain, turn]
            else:
                text, eos = self._continue(call)
            piece = Piece(text[: call.max_tokens], tuple(map(ord, text[: call.max_tokens])), self.name, eos)
            self.wrote[call.chain, turn] = self.pieces[call.chain, turn, call.seed[4]] = piece
            self._end(usage, tokens_new=len(piece.ids), context=call.pieces)
            return Generated(piece, False, usage)

    async def score(self, call: ScoreCall) -> Scored:
        with self._opened():
            usage, fault = await self._begin("score", call)
            *before, piece = call.pieces
            if not piece.text and not piece.eos:
                raise EngineError("empty segment: there is nothing to score")
            self._end(usage, tokens_new=len(piece.text) + piece.eos, context=before)
            if fault is not None and fault.what in ("nan", "infinite"):
                return Scored(math.nan if fault.what == "nan" else math.inf, usage)
            noise = random.Random(f"{call.chain}/{call.prompt}/{''.join(p.text for p in call.pieces)}").random()
            flawed = _flaw(call.prompt, "".join(p.text for p in call.pieces)) is not None
            return Scored((2.0 if flawed else 0.1) + noise, usage)

    @contextmanager
    def _opened(self) -> Any:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            yield
        finally:
            self.open -= 1

    async def _begin(self, method: str, call: GenerateCall | ScoreCall) -> tuple[Usage, Fault | None]:
        usage = Usage(time.perf_counter())
        nth = self._by_method[method, call.chain]
        self._by_method[method, call.chain] += 1
        self.calls[call.chain] += 1
        fault = self.faults.get(call.chain)
        if fault is not None and not fault.hits(method, nth):
            fault = None
        for _ in range(self._order.randrange(6)):
            await asyncio.sleep(0)
        usage.t_start_s = time.perf_counter()
        await asyncio.sleep(0)
        match fault and fault.what:
            case "error" | "retryable" as what:
                raise EngineError(f"scripted {what}", retryable=what == "retryable")
            case "hang":
                await asyncio.get_running_loop().create_future()
            case "bug":
                raise KeyError("scripted bug")
        return usage, fault

    def _end(self, usage: Usage, tokens_new: int, context: Iterable[Piece]) -> None:
        usage.t_end_s = time.perf_counter()
        usage.tokens_new, usage.tokens_cached = tokens_new, sum(len(piece.text) for piece in context)
        self._stats.busy_s += BUSY_S
        self._stats.steps += 1

    def _continue(self, call: GenerateCall) -> tuple[str, bool]:
        """The next paragraph and whether the text then ends."""
        text = "".join(piece.text for piece in call.pieces)
        flaw = _flaw(call.prompt, text) if self.careful else None
        if flaw is not None:
            return WAIT + flaw, "boxed" in flaw
        if _BOX.search(text):
            return "", True
        value, terms = _progress(call.prompt, text)
        draw = random.Random(repr(call.seed))
        slip = draw.randint(1, 9) if draw.random() < self.wrong else 0
        if not terms:
            return _boxed(value + slip), True
        (label, term), *_ = terms
        good = step_text(label, value, term)
        return good.removesuffix(str(value + term)) + str(value + term + slip) + PARAGRAPH, False


def _boxed(value: int) -> str:
    return f"\\boxed{{{value}}}"


def _progress(prompt: str, text: str) -> tuple[int, list[tuple[str, int]]]:
    """The running value that a text has come to, and the terms still to add."""
    listed, _, worked = prompt.partition(PARAGRAPH)
    terms = list(zip(LABELS, map(int, _TERM.findall(listed)), strict=False))
    steps = _STEP.findall(worked + text)
    if not steps:
        return int(listed.split()[0]), terms
    _, label, _, result = steps[-1]
    return int(result), terms[LABELS.index(label) + 1 :]


def _flaw(prompt: str, text: str) -> str | None:
    """What a text should have ended on, if it ended on a wrong step or a wrong box."""
    boxes = _BOX.findall(text)
    if boxes:
        value, _ = _progress(prompt, text)
        return None if int(boxes[-1]) == value else _boxed(value)
    steps = _STEP.findall(text)
    if not steps:
        return None
    value, label, term, result = steps[-1]
    if int(value) + int(term) == int(result):
        return None
    return step_text(label, int(value), int(term)) + PARAGRAPH


def settings(policy: str, **changes: Any) -> RunConfig:
    """A small study: 3 questions, 4 chains, long enough for every sum."""
    small: dict[str, Any] = {"questions": 3, "chains": 4, "turns": 12, "draft_tokens": 64, "takeover_tokens": 64}
    small |= {"alpha": 0.4, "takeover": "continue", "cues": "wait"}
    return RunConfig(policy=policy, **small | changes)


def task_of(config: RunConfig) -> Task:
    """The task that a configuration names."""
    return load_task(config.task, config.questions, config.seed)


def pair(
    order: int = 0, *, draft: Mapping[str, Any] | None = None, target: Mapping[str, Any] | None = None
) -> dict[str, Engine]:
    """A draft that errs in a fifth of its paragraphs and a target that mends them, each with settings of its own."""
    return {
        "draft": ScriptedEngine("draft", **{"wrong": 0.2, "order": 2 * order} | dict(draft or {})),
        "target": ScriptedEngine("target", **{"careful": True, "order": 2 * order + 1} | dict(target or {})),
    }


def scripted(engines: Mapping[str, Engine], role: str) -> ScriptedEngine:
    """The engine of a role, with what it remembers."""
    engine = engines[role]
    assert isinstance(engine, ScriptedEngine)
    return engine


@dataclass
class Outcome:
    """What a driver left: records by chain, in the order in which they finished."""

    driver: Driver
    wall_s: float
    records: dict[ChainId, ChainRecord]


def drive(config: RunConfig, engines: dict[str, Engine] | None = None, finished: Iterable[ChainRecord] = ()) -> Outcome:
    """Run a configuration on scripted engines to its end, without a run directory."""
    records: dict[ChainId, ChainRecord] = {}

    def keep(record: ChainRecord) -> None:
        assert record.chain not in records
        records[record.chain] = record

    made = engines or pair()
    used = {role: made[of] for role, of in roles(config).items()}

    async def run() -> Outcome:
        driver = Driver(config, task_of(config), used, finished=finished, on_finish=keep)
        return Outcome(driver, await driver.run(), records)

    return asyncio.run(run())


def open_run(path: Path, config: RunConfig, *, resume: bool = False) -> RunDir:
    """The run directory of a configuration, new or to go on with."""
    fingerprint = config.fingerprint(task_of(config).fingerprint)
    return RunDir.resume(path, fingerprint) if resume else RunDir.create(path, config, fingerprint)


def record_run(
    path: Path, config: RunConfig, engines: dict[str, Engine] | None = None, *, resume: bool = False
) -> dict[str, Any]:
    """Run a configuration into a run directory; returns the summary."""
    run_dir = open_run(path, config, resume=resume)
    return asyncio.run(run_once(config, task_of(config), engines or pair(), run_dir, lambda _: None))


def untimed(record: ChainRecord) -> dict[str, Any]:
    """A record without its times. Who waited for whom is a matter of time too."""
    return _without_times(asdict(record))


def _without_times(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_times(value) for key, value in data.items() if not key.endswith("_s")}
    return [_without_times(item) for item in data] if isinstance(data, list) else data
