"""Seconds of an engine's step from the shape of its batch: a roofline with overheads, under physical bounds.

A step of phase `append` feeds several new tokens a row (prompts, segments to score), a step of phase `decode` one.
With F the FLOPs of its linear layers and logits, A those of attention, M the bytes that it moves, `tp` devices:

    compute = (F / mfu + A / mfu_attention) / (tp * peak)          mfu, mfu_attention <= 1
    memory  = (min(M, C) / eta + max(0, M - C) / eta_beyond) / (tp * bandwidth)      eta_beyond <= eta <= 1
    seconds = (compute and memory) + step_s + layer_s * layers + row_s * rows + group_s * (groups - 1) + all-reduces

"(compute and memory)" is the larger of the two where an engine overlaps them, as a GPU does within its kernels, and
their sum where kernels follow one another on a core, some bound by arithmetic and some by memory. M is the weights
once, the keys and values once, and the copies that the engine makes of those it holds (`kv_copies`). C is what a cache
holds from one step to the next (`cache_bytes`): what does not fit comes from memory. Without C all bytes cost the same.

Overheads are not negative. Groups are those of a decode's rows by the positions that they attend over, where an engine
has such (`Padding.row_stops`).

An engine may pad: the counts are then those of the padded batch (`Padding`). What the terms say is physics and
therefore extends beyond what was measured, but a cost says whether it does (`Cost.inside`), or `OutOfRange` is raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from atts_runtime.profiler.counts import Rates
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.padding import RAGGED, Padding
from atts_runtime.profiler.provenance import Number
from atts_runtime.profiler.stepshape import Phase, Range, StepShape

__all__ = [
    "RAGGED",
    "Cost",
    "DecodeLines",
    "Link",
    "OutOfRange",
    "Padding",
    "Phase",
    "PhaseCosts",
    "Range",
    "StepModel",
    "StepShape",
    "Work",
]


@dataclass(frozen=True, slots=True)
class PhaseCosts:
    """Coefficients of one phase. `mfu_attention` None: attention runs at `mfu`; `cache_bytes`, `eta_beyond`: both or
    neither; `group_s` None: groups of rows were not priced, and cost nothing."""

    mfu: float
    eta: float
    step_s: float
    row_s: float = 0.0
    layer_s: float = 0.0
    mfu_attention: float | None = None
    kv_copies: int = 0
    overlapped: bool = False
    cache_bytes: float | None = None
    eta_beyond: float | None = None
    group_s: float | None = None

    def __post_init__(self) -> None:
        attention = self.mfu if self.mfu_attention is None else self.mfu_attention
        beyond = self.eta if self.eta_beyond is None else self.eta_beyond
        if not all(0 < share <= 1 for share in (self.mfu, self.eta, attention, beyond)):
            raise ValueError(f"mfu and eta must lie above 0 and be at most 1: {self}")
        if (self.cache_bytes is None) != (self.eta_beyond is None) or beyond > self.eta:
            raise ValueError(f"beyond a cache there is an eta of its own, and it is not higher: {self}")
        if not all(cost >= 0 for cost in (self.step_s, self.row_s, self.layer_s, self.kv_copies, self.group_s or 0.0)):
            raise ValueError(f"overheads must not be negative: {self}")


@dataclass(frozen=True, slots=True)
class Link:
    """How devices that share a model sum their parts: twice a layer, in `latency_s` plus a ring's bytes over the link.

    A ring all-reduce of n bytes over tp devices moves 2 * (tp - 1) / tp * n bytes out of each.
    """

    bytes_per_s: float
    latency_s: float


class Cost(NamedTuple):
    """`inside`: the batch lies in the range that was measured, or the model's terms claim no such range."""

    seconds: float
    inside: bool


class Work(NamedTuple):
    """What a step executes, padding included: FLOPs of linear layers and logits, FLOPs of attention, bytes."""

    linear_flops: float
    attention_flops: float
    bytes: float


class DecodeLines(NamedTuple):
    """Seconds of a decode step while the rows stay and no row outgrows `until` tokens: constant + the highest line.

    lines       (seconds at 0 kept tokens, seconds a kept token); of an engine with `Padding.row_stops` by the positions
                that rows attend over together, which stay what they are until a row outgrows its stop
    until       the longest row for which this holds; None: any
    inside      as in `Cost`; where nothing is padded, for rows that all keep `longest_kept` tokens
    """

    lines: tuple[tuple[float, float], ...]
    constant_s: float
    until: int | None
    inside: bool

    def seconds(self, read: int) -> float:
        """Of a step that reads so many tokens, as `lines` have it."""
        return self.constant_s + max(at_zero + slope * read for at_zero, slope in self.lines)


class OutOfRange(ValueError):
    """A step that lies outside what its profile measured."""

    def __init__(self, phase: Phase, shape: StepShape, limits: Range) -> None:
        super().__init__(f"{phase} step {tuple(shape)} lies outside what was measured: {limits}")
        self.phase, self.shape, self.limits = phase, shape, limits


@dataclass(frozen=True)
class StepModel:
    """An engine's step times. `provenance`: of every coefficient, by its dotted name in the profile."""

    spec: ModelSpec
    flops_per_s: float
    bytes_per_s: float
    append: PhaseCosts
    decode: PhaseCosts
    padding: Padding = RAGGED
    ranges: Mapping[Phase, Range] = field(default_factory=dict)
    tp: int = 1
    link: Link | None = None
    provenance: Mapping[str, Number] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tp < 1 or (self.tp > 1 and self.link is None):
            raise ValueError(f"tp must be at least 1, and above 1 there must be a link, got {self.tp}")

    @cached_property
    def _rates(self) -> Rates:
        return Rates(self.spec)

    @cached_property
    def _peaks(self) -> tuple[float, float]:
        """FLOP/s and bytes/s of all devices together."""
        return self.tp * self.flops_per_s, self.tp * self.bytes_per_s

    def cost(self, phase: Phase, shape: StepShape) -> Cost:
        """Seconds of a step, and whether the profile vouches for them."""
        return Cost(self._seconds(phase, shape), not self.ranges or self.covers(phase, shape))

    def seconds(self, phase: Phase, shape: StepShape) -> float:
        """Seconds of a step; raises OutOfRange where the profile does not vouch for them."""
        if not self.covers(phase, shape):
            raise OutOfRange(phase, shape, self.ranges[phase])
        return self._seconds(phase, shape)

    def covers(self, phase: Phase, shape: StepShape) -> bool:
        """Whether a batch, as it is padded, lies in the range that was measured. With `Padding.row_stops` a decode is
        taken as if all of its rows were as long as the longest."""
        limits = self.ranges.get(phase)
        if limits is None:
            return True
        if self.padding.rectangular:
            kept = self.padding.row_kept if phase == "decode" else self.padding.kept
            shape = shape._replace(kept_tokens=shape.rows * kept(shape.longest_kept))
        return limits.holds(shape)

    @property
    def row_stops(self) -> tuple[int, ...]:
        """See `Padding`."""
        return self.padding.row_stops if self.padding.rectangular else ()

    @property
    def group_s(self) -> float:
        """Of a decode; see `PhaseCosts`."""
        return self.decode.group_s or 0.0

    def decode_seconds(self, rows: int, kept_tokens: int, longest_kept: int) -> float:
        """Seconds of a decode step of `rows`; raises OutOfRange."""
        return self.seconds("decode", StepShape(rows, rows, 1, kept_tokens, longest_kept, rows, kept_tokens))

    def decode_lines(self, rows: int, longest_kept: int) -> DecodeLines:
        """`decode_seconds` as a function of the kept tokens, for adding up many steps at once; with `Padding.row_stops`
        of what the rows attend over."""
        costs, padding = self.decode, self.padding
        none, each = (
            self._amounts("decode", StepShape(rows, rows, 1, n, longest_kept, rows, n, attended=n)) for n in (0, 1)
        )
        compute, *memory = zip(self._lines(costs, none), self._lines(costs, each), strict=True)
        constant = self._overhead(costs, rows, rows)
        ends = [compute, *memory]
        if not costs.overlapped:
            ends = [(compute[0] + zero, compute[1] + one) for zero, one in memory]
        lines = tuple((zero, one - zero) for zero, one in ends)
        fullest = StepShape(rows, rows, 1, rows * longest_kept, longest_kept, rows)
        until = padding.kept(longest_kept) if padding.rectangular and not padding.row_stops else None
        return DecodeLines(lines, constant, until, self.covers("decode", fullest))

    def work(self, phase: Phase, shape: StepShape) -> Work:
        """What the engine executes for a step of this shape."""
        return Work(*self._amounts(phase, shape))

    def _amounts(self, phase: Phase, shape: StepShape) -> tuple[float, float, float]:
        """The fields of `Work`, as a plain tuple: it is asked for at every step."""
        rates, padding = self._rates, self.padding
        rows, tokens, _, kept, longest_kept, logits, pairs, _, attended, _ = shape
        read = kept
        if padding.rectangular and phase == "append":
            new = -(-shape.longest_new // padding.new_to) * padding.new_to
            length = padding.kept(longest_kept + new - shape.longest_new)
            tokens = logits = rows * new
            pairs, read = tokens * length, rows * length
        elif padding.rectangular:
            tokens = logits = -(-rows // padding.rows_to) * padding.rows_to
            if not padding.row_stops:
                attended = rows * padding.kept(longest_kept)
            elif attended is None:
                attended = rows * padding.row_kept(-(-kept // rows))
            pairs = read = attended
        elif pairs is None:
            # Of rows alike: n * s + n * (n + 1) / 2 each, with n = tokens / rows and s + n = kept / rows.
            pairs = round(tokens * (kept - (tokens - rows) / 2) / rows)
        copies = (self.append if phase == "append" else self.decode).kv_copies
        return (
            float(tokens * rates.token_flops + logits * rates.logit_flops),
            float(rates.pair_flops * pairs),
            rates.weight_bytes(tokens, logits) + rates.kv_bytes * (read + copies * kept),
        )

    def _seconds(self, phase: Phase, shape: StepShape) -> float:
        costs = self.append if phase == "append" else self.decode
        compute, *lines = self._lines(costs, self._amounts(phase, shape))
        memory = max(lines)
        together = compute + memory
        if costs.overlapped:
            together = compute if compute > memory else memory
        more = (costs.group_s or 0.0) * (shape.groups - 1)
        return together + self._overhead(costs, shape.rows, shape.new_tokens) + more

    def _lines(self, costs: PhaseCosts, amounts: tuple[float, float, float]) -> tuple[float, ...]:
        """Seconds of computing, and lines of which the highest is those of moving bytes: one, or with a cache two."""
        linear_flops, attention_flops, moved = amounts
        flops_per_s, bytes_per_s = self._peaks
        mfu = costs.mfu
        attention = mfu if costs.mfu_attention is None else costs.mfu_attention
        compute = (linear_flops / mfu + attention_flops / attention) / flops_per_s
        within = moved / (bytes_per_s * costs.eta)
        if costs.cache_bytes is None or costs.eta_beyond is None:
            return compute, within
        held = costs.cache_bytes / (bytes_per_s * costs.eta)
        return compute, within, held + (moved - costs.cache_bytes) / (bytes_per_s * costs.eta_beyond)

    def _overhead(self, costs: PhaseCosts, rows: int, tokens: int) -> float:
        spec, link = self.spec, self.link
        seconds = costs.step_s + costs.layer_s * spec.layers + costs.row_s * rows
        if self.tp > 1 and link is not None:
            ring = 2 * (self.tp - 1) / self.tp * (tokens * spec.width * spec.bytes_per_weight) / link.bytes_per_s
            seconds += 2 * spec.layers * (link.latency_s + ring)
        return seconds
