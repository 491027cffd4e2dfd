"""A cohort bank, whatever the interleaving, is what a list of everything that happened says it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atts_runtime.conformal import CohortBank, Fallback, SealedBank

NOT_FINITE = [float("nan"), float("inf"), -float("inf")]
KEYS = ["turn 0", "turn 1"]

scores = st.sampled_from([-1.0, 0.0, 0.5, 1.0]) | st.floats(-9, 9)
keys = st.sampled_from(KEYS)

Reference = list[float] | Fallback


@dataclass
class Cohort:
    """All that ever happened to a cohort; nothing is dropped."""

    members: int
    scores: list[float] = field(default_factory=list)
    left: int = 0
    reference: Reference | None = None

    @property
    def complete(self) -> bool:
        return len(self.scores) + self.left == self.members


def brute_reference(cohorts: list[Cohort], at: int, lag: int, window: int, least: int) -> Reference:
    if at < lag:
        return Fallback.COLD
    seen = cohorts[max(0, at - lag - window + 1) : at - lag + 1]
    if not all(cohort.complete for cohort in seen):
        return Fallback.LATE
    union = sorted(score for cohort in seen for score in cohort.scores)
    return union if len(union) >= least else Fallback.THIN


def plainly(reference: SealedBank | Fallback) -> Reference:
    return reference if isinstance(reference, Fallback) else reference.scores.tolist()


class CohortsAgainstEverything(RuleBasedStateMachine):
    """Any interleaving of announcements, scores, departures and queries, of two keys."""

    @initialize(lag=st.integers(1, 3), window=st.integers(1, 3), least=st.integers(1, 4))
    def made_with(self, lag: int, window: int, least: int) -> None:
        self.lag, self.window, self.least = lag, window, least
        self.bank = CohortBank(lag=lag, window=window, least=least)
        self.model: dict[str, list[Cohort]] = {key: [] for key in KEYS}

    def incomplete(self) -> list[tuple[str, int]]:
        return [(key, at) for key in KEYS for at, cohort in enumerate(self.model[key]) if not cohort.complete]

    def first_incomplete(self, key: str) -> int:
        return min((at for name, at in self.incomplete() if name == key), default=len(self.model[key]))

    @rule(key=keys, members=st.integers(0, 3))
    def expect(self, key: str, members: int) -> None:
        assert self.bank.expect(key, members) == len(self.model[key])
        self.model[key].append(Cohort(members))

    @rule(key=keys, members=st.integers(-3, -1))
    def refuse_to_expect(self, key: str, members: int) -> None:
        with pytest.raises(ValueError, match="cannot have"):
            self.bank.expect(key, members)

    @precondition(lambda self: self.incomplete())
    @rule(data=st.data(), score=scores)
    def insert(self, data: st.DataObject, score: float) -> None:
        key, at = data.draw(st.sampled_from(self.incomplete()))
        self.bank.insert(key, at, score)
        self.model[key][at].scores.append(score)
        assert sorted(self.kept(key)) == sorted(self.in_sight(key))

    @precondition(lambda self: self.incomplete())
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        key, at = data.draw(st.sampled_from(self.incomplete()))
        self.bank.leave(key, at)
        self.model[key][at].left += 1
        assert sorted(self.kept(key)) == sorted(self.in_sight(key))

    @precondition(lambda self: self.incomplete())
    @rule(data=st.data())
    def refer(self, data: st.DataObject) -> None:
        """Of incomplete cohorts, and of complete ones that wait for an earlier one."""
        key = data.draw(st.sampled_from(sorted({key for key, _ in self.incomplete()})))
        at = data.draw(st.integers(self.first_incomplete(key), len(self.model[key]) - 1))
        own = self.model[key][at]
        if own.reference is None:
            own.reference = brute_reference(self.model[key], at, self.lag, self.window, self.least)
        assert plainly(self.bank.reference(key, at)) == own.reference

    @precondition(lambda self: self.incomplete())
    @rule(data=st.data(), score=st.sampled_from(NOT_FINITE))
    def refuse_a_score(self, data: st.DataObject, score: float) -> None:
        key, at = data.draw(st.sampled_from(self.incomplete()))
        with pytest.raises(ValueError, match="must be finite"):
            self.bank.insert(key, at, score)

    @rule(key=st.sampled_from([*KEYS, "turn 2"]), data=st.data())
    def refuse_a_member(self, key: str, data: st.DataObject) -> None:
        """Of complete cohorts, kept or not, of those not announced, and of a key that has none."""
        cohorts = self.model.get(key, [])
        closed = [at for at in range(-1, len(cohorts) + 2) if at not in range(len(cohorts)) or cohorts[at].complete]
        at = data.draw(st.sampled_from(closed))
        with pytest.raises(ValueError, match="expects no further member"):
            self.bank.insert(key, at, 0.5)
        with pytest.raises(ValueError, match="expects no further member"):
            self.bank.leave(key, at)

    def in_sight(self, key: str) -> list[float]:
        """Scores from the oldest cohort that the first incomplete one, or else the next to come, can see."""
        oldest = max(0, self.first_incomplete(key) - self.lag - self.window + 1)
        return [score for cohort in self.model[key][oldest:] for score in cohort.scores]

    def kept(self, key: str) -> list[float]:
        scores: list[float] = []
        for at in range(len(self.model[key])):
            try:
                scores += self.bank.scores(key, at)
            except KeyError:
                continue
        return scores

    @invariant()
    def each_cohort_is_as_far_as_the_list_says(self) -> None:
        for key, cohorts in self.model.items():
            for at, cohort in enumerate(cohorts):
                assert self.bank.complete(key, at) == cohort.complete
                if at >= self.first_incomplete(key):
                    assert self.bank.scores(key, at) == tuple(cohort.scores)

    @invariant()
    def what_the_first_query_decided_stands(self) -> None:
        for key, cohorts in self.model.items():
            for at in range(self.first_incomplete(key), len(cohorts)):
                if cohorts[at].reference is not None:
                    assert plainly(self.bank.reference(key, at)) == cohorts[at].reference

    @invariant()
    def len_counts_what_is_kept(self) -> None:
        assert len(self.bank) == sum(len(self.kept(key)) for key in KEYS)


def merges(*sequences: str) -> Iterator[str]:
    """Every interleaving of the sequences, each in its own order."""
    if not any(sequences):
        yield ""
    for i, sequence in enumerate(sequences):
        if sequence:
            for rest in merges(*sequences[:i], sequence[1:], *sequences[i + 1 :]):
                yield sequence[0] + rest


# What happens to a cohort, in order: q its first query, s a score, - a member that leaves.
ORDERS = ["qss", "sqs", "qs-", "-qs"]


@pytest.mark.parametrize("third", ORDERS)
@pytest.mark.parametrize("second", ORDERS)
@pytest.mark.parametrize("first", ["ss", "s-"])
def test_in_every_schedule_the_first_query_of_a_cohort_decides(first: str, second: str, third: str) -> None:
    tracks = [[(at, act) for act in acts] for at, acts in enumerate((first, second, third))]
    for schedule in merges("a" * len(first), "b" * len(second), "c" * len(third)):
        bank, model, rests = CohortBank(), [], [iter(track) for track in tracks]
        for track in tracks:
            members = sum(act != "q" for _, act in track)
            model.append(Cohort(members))
            bank.expect("key", members)
        queried: dict[int, SealedBank | Fallback] = {}
        for step, letter in enumerate(schedule):
            at, act = next(rests["abc".index(letter)])
            if act == "q":
                queried[at] = bank.reference("key", at)
                assert plainly(queried[at]) == brute_reference(model, at, 1, 1, 1)
            elif act == "s":
                bank.insert("key", at, float(step))
                model[at].scores.append(float(step))
            else:
                bank.leave("key", at)
                model[at].left += 1
            for asked, reference in queried.items():
                if not model[asked].complete:
                    assert bank.reference("key", asked) is reference
        assert all(cohort.complete for cohort in model)


@pytest.mark.parametrize("lag", [1, 2])
def test_the_first_query_decides_for_the_whole_cohort_even_if_it_comes_too_early(lag: int) -> None:
    bank = CohortBank(lag=lag)
    for _ in range(lag + 1):
        bank.expect("key", 2)
    bank.insert("key", 0, 0.1)
    assert bank.reference("key", lag) is Fallback.LATE
    bank.insert("key", 0, 0.2)
    assert bank.complete("key", 0)
    assert bank.reference("key", lag) is Fallback.LATE


@settings(deadline=None, max_examples=50)
@given(values=st.lists(scores, min_size=3, max_size=3), lag=st.integers(1, 3))
def test_a_reference_is_the_same_for_every_order_of_insertion(values: list[float], lag: int) -> None:
    references = set()
    for order in permutations(values):
        bank = CohortBank(lag=lag)
        for _ in range(lag + 1):
            bank.expect("key", len(values))
        for score in order:
            bank.insert("key", 0, score)
        references.add(tuple(bank.reference("key", lag).scores.tolist()))  # type: ignore[union-attr]
    assert references == {tuple(sorted(values))}


@pytest.mark.parametrize(("lag", "window"), list(product((1, 2, 4), (1, 3))))
def test_memory_is_bounded_however_many_cohorts_have_passed(lag: int, window: int) -> None:
    bank = CohortBank(lag=lag, window=window)
    most = 0
    for number in range(40):
        at = bank.expect("key", 3)
        if at >= lag - 1:  # `lag` cohorts in flight
            for score in range(3):
                bank.insert("key", at - lag + 1, number + score / 4)
                most = max(most, len(bank))
    assert most == 3 * (lag + window) - 1  # the last score of a cohort lets go of the oldest


@pytest.mark.parametrize("name", ["lag", "window", "least"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_size_below_one_is_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        CohortBank(**{name: value})


def test_a_score_of_a_cohort_that_is_no_longer_kept_cannot_be_asked_for() -> None:
    bank = CohortBank()
    for at in range(3):
        bank.expect("key", 1)
        bank.insert("key", at, 0.5)
    with pytest.raises(KeyError):
        bank.scores("key", 0)
    assert bank.complete("key", 0)


TestAnyInterleaving = CohortsAgainstEverything.TestCase
TestAnyInterleaving.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


def test_cohorts_without_members_let_go_of_what_only_they_could_have_seen() -> None:
    bank = CohortBank()
    bank.expect("key", 1)
    bank.insert("key", 0, 0.5)
    bank.expect("key", 0)
    bank.expect("key", 0)
    assert len(bank) == 0


def test_what_a_cohort_is_compared_with_never_changes_not_even_once_it_is_complete() -> None:
    bank = CohortBank(window=2)
    bank.expect("key", 1)
    bank.expect("key", 1)
    first = bank.reference("key", 1)
    assert first is Fallback.LATE
    bank.insert("key", 1, 0.5)
    bank.insert("key", 0, 0.5)
    assert bank.reference("key", 1) is first
