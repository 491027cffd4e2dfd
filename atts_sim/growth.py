"""How many blocks of KV the rows of a decode batch need as they grow, in sums: no look at each row."""

from __future__ import annotations

from atts_sim.batch import DecodeBatch
from atts_sim.calls import EngineCall


class Growth:
    """A row whose tokens fill its blocks needs one more for the next step, so each needs one every `size` steps; when,
    its offset (`batch.DecodeBatch`) says, modulo `size`."""

    __slots__ = ("_batch", "_phases", "_size")

    def __init__(self, batch: DecodeBatch, size: int) -> None:
        self._batch, self._size = batch, size
        self._phases = [0] * size  # rows by their offset, modulo the tokens of a block

    def join(self, call: EngineCall) -> None:
        """A row that has joined the batch."""
        self._phases[call.offset % self._size] += 1

    def leave(self, call: EngineCall) -> None:
        """A row that leaves it."""
        self._phases[call.offset % self._size] -= 1

    def next(self) -> int:
        """Blocks that the rows need for the next step."""
        return self._phases[-self._batch.step % self._size]

    def past(self, steps: int) -> int:
        """Blocks that they needed for the last steps that the batch made."""
        phases, size = self._phases, self._size
        whole, rest = divmod(steps, size)
        if not rest:
            return whole * self._batch.size
        low = (1 + steps - self._batch.step - rest) % size  # phases go down as steps go on
        high = low + rest
        some = sum(phases[low:high]) if high <= size else sum(phases[low:]) + sum(phases[: high - size])
        return whole * self._batch.size + some

    def steps_within(self, blocks: int, most: int, ahead: int) -> int:
        """Decode steps to come, at most so many, for which `blocks` suffice; `ahead` of them need none any more."""
        phases, size = self._phases, self._size
        whole, left = divmod(blocks, self._batch.size)
        steps = whole * size + ahead
        if steps >= most:
            return most
        start = -self._batch.step
        while steps < most and (need := phases[(start - steps) % size]) <= left:
            left -= need
            steps += 1
        return steps
