"""The forward passes of a loaded model, told of before each is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atts_runtime.engines.causal_lm import CausalLM


@dataclass
class Pass:
    """One forward pass: ids fed to each row, from which positions on, whether it was an append, positions that a
    decode's groups of rows attend over together (None: rows are not grouped), and how many groups there are."""

    fed: list[list[int]]
    starts: list[int]
    append: bool
    attended: int | None = None
    groups: int = 1


def watch(lm: CausalLM, told: Callable[[Pass], None]) -> None:
    """Tell of each pass of `lm`, which raises what `told` raises."""
    append, decode = lm.append_pass, lm.decode_pass

    def append_pass(buffer: Any, new_ids: list[list[int]], starts: list[int]) -> Any:
        told(Pass(new_ids, starts, append=True))
        return append(buffer, new_ids, starts)

    def decode_pass(groups: Any, ids: list[int], starts: list[int]) -> Any:
        attended = sum(rows * time for _, rows, time in groups) if lm.groups_rows else None
        told(Pass([[one] for one in ids], starts, append=False, attended=attended, groups=len(groups)))
        return decode(groups, ids, starts)

    lm.append_pass, lm.decode_pass = append_pass, decode_pass  # type: ignore[method-assign]
