"""Token counts of a published trace, mended: they were made with another model's tokenizer.

A piece after which its chain writes on stopped at the cap of a segment, so its true length is known although its count
is not: counts of such pieces scatter around the cap by as much as the tokenizers disagree. Here every piece that counts
at least as much as all but a hundredth of those is given one length, their median count; what is shorter is scaled by
how its question's capped pieces are counted. Lengths stay in the counting tokenizer's tokens, on average.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from atts_sim.recorded import Recorded, RecordedChain
from atts_sim.workload import Written

_Kind = Literal["drafts", "takeovers"]
_KINDS: tuple[_Kind, ...] = ("drafts", "takeovers")
_BELOW = 0.01  # of the pieces at the cap, those that may count less than its lower bound: faults of the recording
_NARROW = 0.75  # of the median; a lower bound below that is no sign of a cap
_FEWEST = 20  # pieces from which a cap is told
_SHRINK = 5  # capped pieces that a question is taken to have besides its own, counted as all questions' are


def at_cap(recorded: Recorded) -> Recorded:
    """The recording with such lengths; unchanged for kinds of pieces that show no cap."""
    for kind in _KINDS:
        recorded = _of_kind(recorded, kind)
    return recorded


def _of_kind(recorded: Recorded, kind: _Kind) -> Recorded:
    capped: dict[int, list[int]] = {question: [] for question in range(recorded.questions)}
    for chain, record in recorded.recorded.items():
        capped[chain.question] += [piece.tokens for piece in _written_on(record, kind)]
    counts = sorted(count for of_question in capped.values() for count in of_question)
    if len(counts) < _FEWEST:
        return recorded
    cap = round(statistics.median(counts))
    counts = [count for count in counts if count > cap / 2]
    least = counts[int(_BELOW * len(counts))]
    if least < _NARROW * cap:
        return recorded
    scales = {}
    for question, of_question in capped.items():
        known = [cap / count for count in of_question if count >= least]
        scales[question] = (sum(known) + _SHRINK) / (len(known) + _SHRINK)

    def mended(pieces: list[Written | None], scale: float) -> list[Written | None]:
        return [piece and replace(piece, tokens=_length(piece.tokens, scale, least, cap)) for piece in pieces]

    chains = {}
    for chain, record in recorded.recorded.items():
        pieces = mended(getattr(record, kind), scales[chain.question])
        chains[chain] = replace(record, drafts=pieces) if kind == "drafts" else replace(record, takeovers=pieces)
    return Recorded(recorded.prompts, chains, unrecorded=recorded.unrecorded)


def _length(counted: int, scale: float, least: int, cap: int) -> int:
    return cap if counted >= least else min(cap, max(1, round(counted * scale)))


def _written_on(record: RecordedChain, kind: _Kind) -> Iterator[Written]:
    """Pieces of a kind that were the last of a turn after which there was another."""
    for draft, takeover in list(zip(record.drafts, record.takeovers, strict=True))[:-1]:
        last = draft if takeover is None else takeover
        if last is not None and (takeover is None) == (kind == "drafts"):
            yield last
