"""Errors that stand are found again in scores and in which chains came out right."""

from __future__ import annotations

import numpy as np
import pytest

from atts_sim.draws import logistic
from atts_sim.error_fit import Found, Outcome, Step, fit_errors

LEVEL, STANDS, MENDS, SPOILS = -1.5, 0.97, 0.6, 0.02
TURNS = 5


def chains(count: int, *, replaces: bool, seed: int = 0) -> tuple[list[Outcome], list[list[bool]]]:
    """Chains of four turns and an answer, taken over at random; and whether an error stands after each draft."""
    draw = np.random.default_rng(seed)
    outcomes, states = [], []
    for i in range(count):
        question, wrong = i % 4, False
        hard = 1.0 if question == 3 else 0.0
        steps, of_chain = [], []
        for turn in range(TURNS):
            before = wrong
            wrong = draw.random() < (STANDS if before else logistic(LEVEL + hard))
            of_chain.append(wrong)
            ell = draw.normal(2.0 if wrong else 0.0)
            taken = draw.random() < (0.5 if ell > 1 else 0.1)
            if taken:
                base = before if replaces else wrong
                wrong = draw.random() < (1 - MENDS if base else SPOILS)
            last = turn == TURNS - 1
            steps.append(Step(last, ell, last if taken else None))
        outcomes.append(Outcome(question, not wrong, steps))
        states.append(of_chain)
    return outcomes, states


def fitted(outcomes: list[Outcome], *, replaces: bool) -> Found:
    found = fit_errors(outcomes, 4, replaces=replaces)
    assert found is not None
    return found


@pytest.mark.parametrize("replaces", [True, False])
def test_the_chances_that_errors_arise_stand_and_are_mended_are_found_again(replaces: bool) -> None:
    errors, hard, _ = fitted(chains(4000, replaces=replaces, seed=1)[0], replaces=replaces)
    arises = [errors.drafted(turn, 0.0, False, False) for turn in range(TURNS - 1)]
    assert arises == pytest.approx([logistic(LEVEL + 0.25)] * (TURNS - 1), abs=0.05)
    assert hard[3] - hard[:3].mean() == pytest.approx(1.0, abs=0.25)
    assert errors.stands[0] == pytest.approx(STANDS, abs=0.05)
    assert errors.mends[0] == pytest.approx(MENDS, abs=0.1)
    assert errors.spoils[0] == pytest.approx(SPOILS, abs=0.03)


def test_single_errors_are_told_better_than_by_their_scores() -> None:
    outcomes, states = chains(2000, replaces=True)
    wrong = fitted(outcomes, replaces=True).wrong[:, :, 1]
    said = [(wrong[i, t] > 0.5) == state for i, of_chain in enumerate(states) for t, state in enumerate(of_chain)]
    by_score = [
        (outcomes[i].steps[t].ell > 1.0) == state
        for i, of_chain in enumerate(states)
        for t, state in enumerate(of_chain)
    ]
    assert np.mean(said) > 0.9
    assert np.mean(said) > np.mean(by_score) + 0.03


def test_the_higher_a_score_the_likelier_is_an_error() -> None:
    outcomes, _ = chains(300, replaces=True, seed=1)
    wrong = fitted(outcomes, replaces=True).wrong
    by_ell = sorted((outcome.steps[0].ell or 0.0, wrong[i, 0, 1]) for i, outcome in enumerate(outcomes))
    thirds = [np.mean([chance for _, chance in part]) for part in (by_ell[:100], by_ell[100:200], by_ell[200:])]
    assert thirds[0] < thirds[1] < thirds[2]


def test_chains_that_never_erred_give_a_model_that_seldom_does() -> None:
    outcomes = [Outcome(i % 2, True, [Step(False, 0.1 * (i % 7), None), Step(True, 0.1, None)]) for i in range(200)]
    errors, _, wrong = fitted(outcomes, replaces=True)
    assert errors.drafted(0, 0.0, False, False) < 0.03
    assert wrong[:, -1, 1].max() == 0.0
    assert (errors.chains, errors.wrong) == (200, 0)


def test_where_no_end_is_known_there_is_no_model() -> None:
    assert fit_errors([Outcome(0, None, [Step(False, 0.1, None)])], 1, replaces=True) is None


def test_turns_in_which_the_target_alone_writes_are_no_draft_s_and_have_a_level_all_the_same() -> None:
    outcomes, _ = chains(200, replaces=True)
    alone = Outcome(0, True, [Step(None, None, False)] * TURNS + [Step(None, None, True)])
    errors = fitted([*outcomes, alone], replaces=True).errors
    assert len(errors.level) == TURNS + 1
    assert errors.drafted(TURNS, 0.0, False, False) == pytest.approx(
        errors.drafted(TURNS - 1, 0.0, False, False), abs=0.02
    )


def test_a_target_that_always_writes_alone_can_be_fitted() -> None:
    alone = [Outcome(question, True, [Step(None, None, False), Step(None, None, True)]) for question in range(4)]
    assert fitted(alone, replaces=True).errors.wrong == 0
