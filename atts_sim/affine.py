"""Step times made up, or fitted by hand: a few constants, and no profile behind them."""

from __future__ import annotations

from dataclasses import dataclass

from atts_sim.cost import Cost, DecodeLines, Phase, StepShape


@dataclass(frozen=True, slots=True)
class AffineCost:
    """A step takes the longer of compute and memory, and an overhead.

    compute_s: a new token, attention a token it looks at; memory_s: the weights, then a kept token. Rows are padded to
    the longest, whose kept tokens are padded to a multiple of `block` (0: nothing is padded). It vouches for steps
    of at most `rows_measured` rows (None: any).
    """

    overhead_s: float
    row_s: float = 0.0
    token_s: float = 0.0
    attention_s: float = 0.0
    weights_s: float = 0.0
    kept_s: float = 0.0
    logit_s: float = 0.0
    block: int = 0
    padded_s: float = 0.0
    rows_measured: int | None = None
    row_stops: tuple[int, ...] = ()
    group_s: float = 0.0

    def cost(self, phase: Phase, shape: StepShape) -> Cost:
        pairs = shape.pairs if shape.pairs is not None else shape.new_tokens * shape.kept_tokens / shape.rows
        kept = shape.kept_tokens
        if shape.attended is not None:
            pairs = kept = shape.attended
        compute = self.token_s * shape.new_tokens + self.logit_s * shape.logit_rows + self.attention_s * pairs
        memory = self.weights_s + self.kept_s * kept
        inside = self.rows_measured is None or shape.rows <= self.rows_measured
        more = self.group_s * (shape.groups - 1)
        return Cost(max(compute, memory) + self._fixed(shape.rows, shape.longest_kept) + more, inside)

    def decode_lines(self, rows: int, longest_kept: int) -> DecodeLines:
        until = -(-longest_kept // self.block) * self.block if self.block else None
        compute = ((self.token_s + self.logit_s) * rows, self.attention_s)
        inside = self.rows_measured is None or rows <= self.rows_measured
        memory = (self.weights_s, self.kept_s)
        return DecodeLines((compute, memory), self._fixed(rows, longest_kept), until, inside)

    def _fixed(self, rows: int, longest_kept: int) -> float:
        padded = -(-longest_kept // self.block) * self.block if self.block else 0
        return self.overhead_s + self.row_s * rows + self.padded_s * rows * padded
