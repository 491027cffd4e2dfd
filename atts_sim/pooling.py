"""Values by turn, joined where there are few: what distributions are made of."""

from __future__ import annotations

from collections.abc import Sequence

FEW = 30  # values of a turn below which it is pooled with the turns after it
_MOST_KEPT = 400  # values of a distribution; of more, as many quantiles


def spans(counts: Sequence[int]) -> list[int]:
    """The pool of each turn, of so many values: a turn of few is joined with those after it, at the end with those
    before it. Empty where there is no value at all."""
    if not sum(counts):
        return []
    pools: list[int] = []
    held = 0
    for count in counts:
        pools.append(pools[-1] + (held >= FEW) if pools else 0)
        held = (0 if held >= FEW else held) + count
    if held < FEW and pools[-1]:
        pools = [min(pool, pools[-1] - 1) for pool in pools]
    return pools


def thinned(values: Sequence[float]) -> list[float]:
    """Ascending, and no more than are kept."""
    ordered = sorted(values)
    if len(ordered) <= _MOST_KEPT:
        return ordered
    return [ordered[int((i + 0.5) / _MOST_KEPT * len(ordered))] for i in range(_MOST_KEPT)]
