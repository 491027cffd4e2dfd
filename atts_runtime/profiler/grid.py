"""What a step of the embedded engine costs, measured: a real `Worker` is brought into a wanted state and stepped.

The state is put into the worker's store as if earlier calls had left it: chains that hold so many ids, with keys and
values of their own (what they say does not matter, how many they are does). Calls then go through `Worker.add` and
`Worker.step`, so that a second measured here is a second of a run, Python included. No token ends a text meanwhile.

Points are visited in rounds, each in another order, and a point's figure is a low quantile over its visits: other
programs on the machine only ever add time. Which points are held out of the fit is fixed before anything is measured.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from atts_runtime.control.events import ChainId
from atts_runtime.engines.base import GenerateCall, Piece, ScoreCall, Usage
from atts_runtime.errors import InputError
from atts_runtime.profiler.counts import Fed
from atts_runtime.profiler.padding import grouped
from atts_runtime.profiler.steptime import Padding, Phase, StepShape

if TYPE_CHECKING:
    from atts_runtime.engines.worker import Worker

__all__ = [
    "PROMPT",
    "CallKind",
    "CallSample",
    "Grid",
    "Measured",
    "Point",
    "Sample",
    "engine_padding",
    "grid_of",
    "measure",
]

CallKind = Literal["generate", "score"]

PROMPT = "1"
"""Of every call: any text will do, as long as its ids are few."""

_DECODE_STEPS = 8  # of a visit; the first also takes the calls in and the last answers them, so they are no samples
_QUANTILE = 0.2
_ROWS = (1, 2, 4, 8, 16, 32, 64)
_NEW = (4, 16, 48, 128, 512)
_CACHED = (16, 96, 256, 512, 1008)
_MOST_KEPT = 17_000  # tokens of a batch: more rows that are longer take seconds to set up, and say nothing new
_STOPS_PERIOD = 512  # of kv.aligned_time, beyond which its lengths repeat


@dataclass(frozen=True, slots=True)
class Point:
    """A batch to measure: (new, cached) tokens of each row. `held_out`: kept from the fit, to judge it."""

    phase: Phase
    rows: tuple[tuple[int, int], ...]
    held_out: bool

    def shape(self, padding: Padding) -> StepShape:
        """In the engine; a decode's shape is that of the middle of its measured steps."""
        ahead = _DECODE_STEPS // 2 if self.phase == "decode" else 0
        logits = 1 if self.phase == "decode" else None
        shape = StepShape.of(Fed(n, s + ahead, n if logits is None else logits) for n, s in self.rows)
        if self.phase == "append":
            return shape
        attended, groups = grouped(padding.row_stops, [s + ahead + 1 for _, s in self.rows])
        return shape._replace(attended=attended, groups=groups)


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds of a step, a low quantile of `steps` of them."""

    phase: Phase
    shape: StepShape
    seconds: float
    steps: int
    held_out: bool


@dataclass(frozen=True, slots=True)
class CallSample:
    """Seconds that a call takes besides its steps: to be taken in, and, where it decodes, to join a batch and leave it.

    `cached`: tokens that its chain held.
    """

    kind: CallKind
    cached: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """All points of a grid, with what their calls took; `rounds` of visits were made."""

    samples: tuple[Sample, ...]
    calls: tuple[CallSample, ...]
    rounds: int


@dataclass(frozen=True, slots=True)
class Grid:
    """Points to visit. `longest` tokens is the longest row, new ones included."""

    points: tuple[Point, ...]
    longest: int


def grid_of(max_rows: int, step_tokens: int, max_context_tokens: int | None, prompt_tokens: int = 1) -> Grid:
    """The points for an engine of these limits; those held out lie inside the range, between the others.

    Half of those held out have rows of unlike lengths, as runs have. No row holds less than a prompt.
    """
    context = max_context_tokens or 2 * _CACHED[-1]
    points: list[Point] = []

    def add(phase: Phase, rows: tuple[tuple[int, int], ...], held_out: bool) -> None:
        rows = tuple((n, max(s, prompt_tokens)) for n, s in rows)
        ends = _DECODE_STEPS + 1 if phase == "decode" else 0
        longest_new = -(-max(n for n, _ in rows) // 4) * 4
        fits = len(rows) <= max_rows and max(n + s + ends for n, s in rows) < context
        fits &= phase == "decode" or len(rows) * longest_new <= step_tokens
        if fits and sum(n + s for n, s in rows) <= _MOST_KEPT:
            points.append(Point(phase, rows, held_out))

    for i, count in enumerate(_ROWS):
        for k, cached in enumerate(_CACHED):
            add("decode", ((1, cached),) * count, False)
            if count > 2 and cached >= _CACHED[2]:  # rows that attend in several groups
                add("decode", tuple((1, _part(cached, j, count)) for j in range(count)), False)
            for j, new in enumerate(_NEW):
                if (i + j + k) % 2 == 0:  # every other corner: neighbours say much the same
                    add("append", ((new, cached),) * count, False)
    for i, count in enumerate((3, 6, 12, 24, 48)):
        for k, cached in enumerate((48, 176, 640)):
            add("decode", ((1, cached),) * count, True)
            add("decode", tuple((1, _part(cached, j, count)) for j in range(count)), True)
            for j, new in enumerate((8, 33, 80, 240)):
                if (i + j + k) % 2 == 0:
                    add("append", ((new, cached),) * count, True)
                else:
                    rows = ((_part(new, j, count), _part(cached, count - 1 - j, count)) for j in range(count))
                    add("append", tuple(rows), True)
    if not points:
        raise InputError(f"a context of {context} tokens is too short to profile; choose another model")
    return Grid(tuple(points), max(n + s for point in points for n, s in point.rows) + _DECODE_STEPS + 1)


def _part(whole: int, index: int, count: int) -> int:
    """From a quarter to the whole, in even steps over a batch; no less than four."""
    return max(4, whole // 4 + (whole - whole // 4) * (index + 1) // count)


def engine_padding(*, groups_rows: bool) -> Padding:
    """The embedded engine's rules, from the engine itself; `groups_rows`: as its `CausalLM` has it."""
    from atts_runtime.engines.kv import NEW_ALIGN, ROW_ALIGN, ROW_STOPS, aligned_time

    stops = tuple(sorted({aligned_time(n) for n in range(1, _STOPS_PERIOD + 1)}))
    return Padding(
        rectangular=True,
        rows_to=ROW_ALIGN,
        new_to=NEW_ALIGN,
        kept_stops=stops,
        row_stops=ROW_STOPS if groups_rows else (),
    )


def measure(worker: Worker, grid: Grid, seconds: float, on_progress: Callable[[float], None]) -> Measured:
    """Visit the grid in rounds for about so many seconds, two rounds at least; call from the engine's own thread.

    `on_progress` is told the share that is done. The worker's chains are forgotten, and no token ends its texts after.
    """
    bench = _Bench(worker, grid.longest)
    order = random.Random(0)
    points = list(grid.points)
    took: dict[Point, list[float]] = {point: [] for point in points}
    calls: dict[tuple[CallKind, int, int], list[float]] = {}
    begin, rounds = time.perf_counter(), 0
    bench.visit(points[0])  # whatever is compiled or allocated first is no sample
    while rounds < 2 or (time.perf_counter() - begin) * (1 + 1 / rounds) < seconds:
        order.shuffle(points)
        for done, point in enumerate(points):
            steps, call_s = bench.visit(point)
            took[point] += steps
            kind: CallKind = "generate" if point.phase == "decode" else "score"
            cached = sum(s for _, s in point.rows) // len(point.rows)
            calls.setdefault((kind, cached, len(point.rows)), []).append(call_s)
            spent = (time.perf_counter() - begin) / seconds
            on_progress(min(1.0, max(spent, (rounds + done / len(points)) / 2 if rounds < 2 else spent)))
        rounds += 1
    padding = engine_padding(groups_rows=worker.lm.groups_rows)
    samples = [Sample(p.phase, p.shape(padding), _low(took[p]), len(took[p]), p.held_out) for p in grid.points]
    return Measured(
        tuple(samples),
        tuple(CallSample(kind, cached, _low(values)) for (kind, cached, _), values in sorted(calls.items())),
        rounds,
    )


def _low(values: list[float]) -> float:
    return sorted(values)[int(_QUANTILE * (len(values) - 1))]


class _Bench:
    """A worker, and the calls that bring it into a state."""

    def __init__(self, worker: Worker, longest: int) -> None:
        import torch

        self.worker, lm = worker, worker.lm
        lm.eos_ids = frozenset()
        self._ids = random.Random(1)
        self._prompt_ids = lm.encode_prompt(PROMPT)
        self._vocab = len(lm.tokenizer)
        generator = torch.Generator().manual_seed(0)
        shape = (lm.layers, 2, lm.kv_heads, longest, lm.head_dim)
        self._kv = torch.rand(shape, generator=generator).to(lm.device, lm.dtype)

    def visit(self, point: Point) -> tuple[list[float], float]:
        """Seconds of each step at a point, and the mean seconds that a call took besides."""
        return self._decode(point) if point.phase == "decode" else self._append(point)

    def _decode(self, point: Point) -> tuple[list[float], float]:
        self.worker.reset()
        calls = []
        for i, (_, cached) in enumerate(point.rows):
            ids = self._chain(i, cached, 1, logits=False)
            pieces = (Piece("", tuple(ids), self.worker.lm.vocab),)
            calls.append(GenerateCall(ChainId(0, i), PROMPT, pieces, _DECODE_STEPS, 1.0, "\0", (i,)))
        adding_s, steps = self._run(calls)
        middle = steps[1:-1]
        usual = _low(middle)
        return middle, (adding_s + max(0.0, steps[0] - usual) + max(0.0, steps[-1] - usual)) / len(calls)

    def _append(self, point: Point) -> tuple[list[float], float]:
        self.worker.reset()
        calls = []
        for i, (new, cached) in enumerate(point.rows):
            ids = self._chain(i, cached, new, logits=True)
            context, segment = ids[: len(ids) - new], ids[len(ids) - new :]
            pieces = tuple(Piece("", tuple(part), self.worker.lm.vocab) for part in (context, segment))
            calls.append(ScoreCall(ChainId(0, i), PROMPT, pieces))
        adding_s, steps = self._run(calls)
        return steps, adding_s / len(calls)

    def _chain(self, index: int, cached: int, new: int, *, logits: bool) -> list[int]:
        """Let a chain hold `cached` ids; returns those after the prompt's, `new` that it does not hold included.

        With `logits` it also holds those that follow its ids, as after an earlier call.
        """
        import torch

        ids = [self._ids.randrange(self._vocab) for _ in range(cached + new - len(self._prompt_ids))]
        held = self.worker.store.open(ChainId(0, index), None)
        held.ids = [*self._prompt_ids, *ids][:cached]
        held.seen = cached
        held.kv = self._kv[:, :, :, :cached].clone()
        if logits:
            held.logits = torch.zeros(self._vocab, device=self._kv.device)
        return ids

    def _run(self, calls: list[GenerateCall] | list[ScoreCall]) -> tuple[float, list[float]]:
        """Seconds of taking all calls in, and of each step until they are answered."""
        worker, answers = self.worker, list[object]()
        begin = time.perf_counter()
        for call in calls:
            worker.add(call, answers.append, Usage(begin))
        adding_s = time.perf_counter() - begin
        steps = list(self._steps())
        wanted = _DECODE_STEPS if isinstance(calls[0], GenerateCall) else 1
        if any(isinstance(answer, Exception) for answer in answers) or len(steps) != wanted:
            raise RuntimeError(f"the engine took {len(steps)} steps instead of {wanted}: {answers[:1]}")
        return adding_s, steps

    def _steps(self) -> Iterator[float]:
        while self.worker.has_work:
            begin = time.perf_counter()
            self.worker.step()
            yield time.perf_counter() - begin
