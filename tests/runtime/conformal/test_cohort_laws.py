"""Cohorts keep p-values exactly uniform for every order of completion, also one that the scores decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations

import pytest

from atts_runtime.conformal import Bank, CohortBank, Counts, Fallback, SealedBank
from tests.runtime.conformal.exact import tie_patterns, unfair_levels

Segment = tuple[int, int, float]  # cohort, member, score
Completion = Callable[[Segment], tuple[float, ...]]

COMPLETIONS: dict[str, Completion] = {
    "as admitted": lambda s: (s[0], s[1]),
    "last admitted first": lambda s: (-s[0], -s[1]),
    "strangest last": lambda s: (s[2], s[0], s[1]),
    "strangest first": lambda s: (-s[2], s[0], s[1]),
    "middling last": lambda s: (-abs(s[2] - 2), s[1], s[0]),
    "the tame half, then the strange half": lambda s: (s[2] > 2, s[0], s[1]),
}

every_completion = pytest.mark.parametrize("completion", COMPLETIONS.values(), ids=COMPLETIONS.keys())


def run(cohorts: list[list[float]], bank: CohortBank, completion: Completion) -> Iterator[tuple[Segment, object]]:
    """Each segment, as it completes, with its cohort's reference.

    A cohort is admitted once all that it is to be compared with have completed, which takes however long it takes;
    until then younger ones are at work beside the old. Of the segments at work, the least by `completion` is next.
    """
    at_work: list[Segment] = []
    admitted = 0
    while at_work or admitted < len(cohorts):
        while admitted < len(cohorts) and all(e > admitted - bank.lag for e, _, _ in at_work):
            at_work += [(admitted, member, score) for member, score in enumerate(cohorts[admitted])]
            bank.expect("key", len(cohorts[admitted]))
            admitted += 1
        at_work.sort(key=completion)
        done = at_work.pop(0)
        yield done, bank.reference("key", done[0])
        bank.insert("key", done[0], done[2])


def split(order: tuple[int, ...], sizes: tuple[int, ...]) -> list[list[float]]:
    starts = [sum(sizes[:e]) for e in range(len(sizes))]
    return [[float(s) for s in order[at : at + size]] for at, size in zip(starts, sizes, strict=True)]


# Cohort sizes, lag, window; at most 6 scores, of which there are 720 orders.
SHAPES = [
    ((2, 2), 1, 1),
    ((3, 2), 1, 1),
    ((1, 2, 2), 1, 2),
    ((2, 2, 2), 2, 1),
    ((1, 1, 2, 2), 2, 2),
    ((1, 1, 1, 2), 3, 1),
]


@every_completion
@pytest.mark.parametrize(("sizes", "lag", "window"), SHAPES)
def test_each_segments_p_value_is_exactly_uniform_in_whatever_order_segments_complete(
    sizes: tuple[int, ...], lag: int, window: int, completion: Completion
) -> None:
    counts: dict[tuple[int, int], list[Counts]] = {}
    for order in permutations(range(sum(sizes))):
        for (cohort, member, score), reference in run(
            split(order, sizes), CohortBank(lag=lag, window=window), completion
        ):
            if isinstance(reference, SealedBank):
                counts.setdefault((cohort, member), []).append(reference.counts(score))
            else:
                assert reference is Fallback.COLD
    assert set(counts) == {(e, member) for e in range(lag, len(sizes)) for member in range(sizes[e])}
    for ranks in counts.values():
        assert not unfair_levels(ranks)


@every_completion
def test_the_same_holds_under_every_pattern_of_ties(completion: Completion) -> None:
    for values in tie_patterns(3):
        counts: dict[tuple[int, int], list[Counts]] = {}
        for order in permutations(values):
            for (cohort, member, score), reference in run(split(order, (1, 1, 2)), CohortBank(lag=2), completion):
                if isinstance(reference, SealedBank):
                    counts.setdefault((cohort, member), []).append(reference.counts(score))
        assert set(counts) == {(2, 0), (2, 1)}
        for ranks in counts.values():
            assert not unfair_levels(ranks)


@pytest.mark.parametrize(("sizes", "lag", "window"), SHAPES)
def test_references_and_ranks_are_the_same_for_every_order_of_completion(
    sizes: tuple[int, ...], lag: int, window: int
) -> None:
    for order in list(permutations(range(sum(sizes))))[::7]:
        outcomes = set()
        for completion in COMPLETIONS.values():
            bank = CohortBank(lag=lag, window=window)
            outcome = set()
            for (cohort, member, score), reference in run(split(order, sizes), bank, completion):
                if isinstance(reference, SealedBank):
                    outcome.add((cohort, member, tuple(reference.scores.tolist()), reference.counts(score)))
            outcomes.add(frozenset(outcome))
        assert len(outcomes) == 1


def test_a_bank_of_whatever_has_finished_is_unfair_when_the_strangest_finish_last() -> None:
    """Why cohorts exist: the same segments and the same order of completion, ranked among those that came before."""
    counts: dict[tuple[int, int], list[Counts]] = {}
    for order in permutations(range(4)):
        finished = Bank()
        for (cohort, member, score), _ in run(split(order, (2, 2)), CohortBank(), COMPLETIONS["strangest last"]):
            counts.setdefault((cohort, member), []).append(finished.counts(score))
            finished.add(score)
    assert all(unfair_levels(ranks) for (cohort, _), ranks in counts.items() if cohort == 1)
