"""What the models would write: the answers that simulated calls yield.

Engines know how long a call takes, a workload knows what comes of it: how many tokens a segment has, whether an answer
stands, how the target scores it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from atts_runtime.control import ChainId, Draft, Fork, Grade, Keep, Score, TakeOver


@dataclass(frozen=True, slots=True)
class Written:
    """A piece of text. `tokens`: drawn by the model that wrote it, an end of text (`eos`) included; `elsewhere`: its
    length in the other model's vocabulary, without end of text (None: the same). `answered`, `ended`, `answer`, `cue`:
    as in `Drafted`, the last two None where the workload does not know.
    """

    tokens: int
    answered: bool = False
    ended: bool = False
    eos: bool = False
    elsewhere: int | None = None
    answer: str | None = None
    cue: bool | None = None

    def __post_init__(self) -> None:
        if self.tokens < 1 or (self.elsewhere is not None and self.elsewhere < 0) or (self.eos and not self.ended):
            raise ValueError(f"no piece of text: {self}")

    @property
    def kept(self) -> int:
        """Tokens that stay in the chain's text."""
        return self.tokens - self.eos


class Workload(Protocol):
    """Questions, and what comes of the calls on them. A chain's calls are asked for in their order."""

    @property
    def questions(self) -> int:
        """How many."""

    @property
    def chains(self) -> int:
        """Chains a question."""

    def prompt_tokens(self, question: int, role: str) -> int:
        """Length of a question in the vocabulary of the model in a role, ``draft`` or ``target``."""

    def written(self, command: Draft | TakeOver) -> Written:
        """What the call writes."""

    def ell(self, command: Score) -> float:
        """The chain's last segment's score, nats per token."""

    def grade(self, command: Grade) -> float:
        """The score of what a chain that is over votes with, nats per token."""

    def keep(self, command: Keep) -> None:
        """An earlier attempt of the turn is put in the last one's place."""

    def fork(self, command: Fork) -> None:
        """The chain goes on from a copy of another one."""

    def correct(self, chain: ChainId) -> bool | None:
        """Whether the chain's answer is right, once it is over; None where that is not known."""
