"""What the engine needs to know of a kind of server: how to ask it, and how to read what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from atts_runtime.engines.base import EngineError, GenerateCall
from atts_runtime.engines.http_errors import Unanswered
from atts_runtime.engines.vllm_scoring import Plan

_T = TypeVar("_T")
_NO_LOGPROB = -9999.0
"""vLLM writes this for what JSON cannot say: minus infinity, or NaN."""
_ROUNDING = 1e-3  # a log-probability may lie this far above 0
_MOST = (1 << 31) - 1  # of an id, and of tokens


class Ask(NamedTuple):
    """A POST."""

    path: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a call to generate: what the context leaves of its tokens, its seed as one number, the model's ends of text,
    whether log-probabilities of what is drawn are wanted, and a word that keeps runs out of each other's caches."""

    max_tokens: int
    seed: int
    eos_ids: frozenset[int]
    logprobs: bool
    salt: str


@dataclass(frozen=True, slots=True)
class Written:
    """Drawn ids, an end of text included; their negative log-likelihoods under the model as it is, whatever the
    temperature they were drawn at (and more, where a server drew on), and how much of the context the server's cache
    held, where it says so. Raises ValueError where these are not that."""

    ids: list[int]
    nll: list[float] | None
    cached_tokens: int | None

    def __post_init__(self) -> None:
        _check_ids(self.ids)
        if self.nll is not None and len(self.nll) < len(self.ids):
            raise ValueError(f"{len(self.nll)} log-probabilities of {len(self.ids)} tokens")
        _check_cached(self.cached_tokens)


@dataclass(frozen=True, slots=True)
class Rows:
    """Negative log-likelihoods of a plan's tokens; None where the cache served them. Raises ValueError for a count of
    cached tokens that is none."""

    nll: list[float] | None
    cached_tokens: int | None

    def __post_init__(self) -> None:
        _check_cached(self.cached_tokens)


class Dialect(Protocol):
    """A kind of server. Readers may raise anything for an answer of another form: call them through `reader`.

    `reuses_prefix`: a score may be asked for without its prefix being computed again.
    """

    reuses_prefix: bool

    def generate(self, ids: list[int], call: GenerateCall, figures: Figures) -> Ask:
        """Continue the ids."""

    def written(self, answer: Any) -> Written:
        """The answer to that."""

    def score(self, plan: Plan, salt: str, *, cached: bool) -> Ask:
        """How likely `plan.tokens` are; `cached` false: compute everything anew."""

    def scored(self, plan: Plan, answer: Any) -> Rows:
        """The answer to that."""

    def next_token(self, plan: Plan, salt: str) -> Ask:
        """How likely each of `plan.next_ids` is after what is fed."""

    def read_next(self, plan: Plan, answer: Any) -> Rows:
        """The answer to that, a row for each of them."""


def logprob(value: Any) -> float:
    """A server's log-probability as a negative log-likelihood; raises EngineError where it is none."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        raise Unanswered(f"{value!r} stands where a log-probability should", "request")
    if not math.isfinite(value) or value <= _NO_LOGPROB:
        raise EngineError(f"the server says {value} for a log-probability: the model computed no number there")
    if value > _ROUNDING:
        raise EngineError(f"the server says {value} for a log-probability; it wants --logprobs-mode raw_logprobs")
    return -float(value)


def logprobs(values: Sequence[Any]) -> list[float]:
    """Several of them."""
    return [logprob(value) for value in values]


def reader(path: str, read: Callable[[Any], _T]) -> Callable[[Any], _T]:
    """`read` of an answer to `path`, raising Unanswered where that has another form."""

    def form(told: Any) -> _T:
        try:
            return read(told)
        except (Unanswered, EngineError):
            raise
        except Exception as error:  # a wrong form can raise anything
            raise Unanswered(f"the answer to {path} has an unknown form: {error!r:.200}", "request") from error

    return form


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _check_ids(ids: object) -> None:
    if not isinstance(ids, list) or not all(_whole(each) for each in ids):
        raise ValueError(f"{ids!r:.50} stands where ids of tokens should")


def _check_cached(tokens: object) -> None:
    if tokens is not None and not _whole(tokens):
        raise ValueError(f"{tokens!r:.50} stands where a count of cached tokens should")
