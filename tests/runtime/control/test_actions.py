"""What becomes of a rejected segment, and which parts do not go together."""

from __future__ import annotations

import pytest

from atts_runtime.control import ChainId, Knobs, recipe
from atts_runtime.control.actions import Fork, Redraft, Step
from atts_runtime.control.events import Settled
from atts_runtime.control.votes import Best, Confidence, Vote
from atts_runtime.errors import InputError

A, B, C, D = (ChainId(0, i) for i in range(4))


def fork(**knobs: float) -> Fork:
    """Peers: B scored 0.2 in its second turn, C 0.5 in its first; chain D is of another question."""
    action = Fork(Knobs(0.5, attempts=2, **knobs))  # type: ignore[arg-type]
    action.stands(B, 1, 0.2)
    action.stands(C, 0, 0.5)
    action.stands(ChainId(1, 0), 0, 0.0)
    return action


def reject(action: Redraft, chain: ChainId, *ells: float, settled: Settled | None = None) -> Step:
    """All attempts of a turn, rejected; what the last one leads to."""
    for attempt, ell in enumerate(ells):
        step = action.rejected(chain, 3, attempt, ell, settled)
        assert (step.outcome == "redraft") == (attempt + 1 < action.knobs.attempts)
    return step


@pytest.mark.parametrize(("ells", "best"), [((3.0, 1.0, 2.0), 1), ((1.0, 1.0, 1.0), 0), ((3.0, 2.0, 1.0), 2)])
def test_the_best_scored_attempt_is_kept_and_of_equals_the_first(ells: tuple[float, ...], best: int) -> None:
    action = Redraft(Knobs(0.5, attempts=3))
    assert reject(action, A, *ells) == Step("keep", attempt=best)
    assert reject(action, A, *ells) == Step("keep", attempt=best)  # the next turn begins anew


def test_a_chain_forks_from_the_best_of_its_question_s_other_chains() -> None:
    assert reject(fork(), A, 1.0, 0.9) == Step("fork", source=B, upto=2)


def test_no_fork_without_a_gap() -> None:
    """B is better by 0.3 than the best attempt."""
    assert reject(fork(fork_gap=0.29), A, 1.0, 0.5).outcome == "fork"
    assert reject(fork(fork_gap=0.3), A, 1.0, 0.5) == Step("keep", attempt=1)


def test_a_chain_is_not_forked_from_more_often_than_the_width_allows() -> None:
    action = fork(fork_width=1)
    assert reject(action, A, 1.0, 0.9).source == B
    assert reject(action, A, 1.0, 0.9).source == C
    assert reject(action, A, 1.0, 0.9).outcome == "keep"


def test_neither_itself_nor_chains_that_are_over_or_forked_away_are_copied() -> None:
    action = fork(fork_width=9)
    assert reject(action, B, 1.0, 0.9).source == C
    assert reject(action, A, 1.0, 0.9).source == C  # B's own segment is no longer in its text
    action.left(C)
    assert reject(action, A, 1.0, 0.9).outcome == "keep"


def test_a_chain_that_an_earlier_session_finished_is_not_copied() -> None:
    action = Fork(Knobs(0.5, attempts=2))
    action.finished_before([B])
    action.stands(B, 1, 0.2)
    action.stands(C, 0, 0.5)
    assert reject(action, A, 1.0, 0.9).source == C


def test_a_fork_of_an_earlier_session_is_repeated_whatever_the_peers_are_now() -> None:
    settled = Settled(True, 0.1, 0.5, None, source=2, upto=1)
    assert reject(fork(), A, 1.0, 0.9, settled=settled) == Step("fork", source=C, upto=1)
    kept = Settled(True, 0.1, 0.5, None)
    assert reject(fork(), A, 1.0, 0.9, settled=kept) == Step("keep", attempt=1)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"gate": "worst"}, "gate worst ranks segments of one turn, which takes schedule barrier"),
        ({"gate": "open", "action": "redraft"}, "keeps the best scored attempt, but gate open has no scores"),
        ({"gate": "adaptive", "action": "fork"}, "judges one segment a chain and turn, action fork drafts several"),
        ({"gate": "budget", "action": "redraft"}, "judges one segment a chain and turn, action redraft drafts several"),
        ({"vote": "best", "early_stop": "majority"}, "early stop majority counts votes, which vote best does not"),
        ({"vote": "confidence", "early_stop": "beta"}, "it takes vote majority, not confidence"),
        ({"gate": "gut"}, "unknown gate 'gut'; choose one of open, shut, worst"),
        ({"action": "shrug"}, "unknown action 'shrug'; choose one of continue, resample"),
        ({"schedule": "rota"}, "unknown schedule 'rota'; choose one of free, barrier"),
        ({"vote": "veto"}, "unknown vote 'veto'; choose one of majority"),
        ({"early_stop": "majority,tea"}, "unknown early stop 'tea'; choose one of majority, beta"),
    ],
)
def test_parts_that_contradict_each_other_or_are_unknown_are_refused(parts: dict[str, str], said: str) -> None:
    with pytest.raises(InputError) as refused:
        recipe("async-marginal", **parts)
    assert said in str(refused.value)


def test_votes() -> None:
    votes = [("4", 0.9), ("5", 0.5), ("5", 0.3), ("6", 0.85), ("6", 0.1)]
    assert Vote().winner((answer, 1.0) for answer, _ in votes) == "5"  # ties go to the one seen first
    assert Confidence().winner(votes) == "6"
    assert Best().winner(votes) == "4"
    assert [vote.winner([]) for vote in (Vote(), Confidence(), Best())] == [None, None, None]
