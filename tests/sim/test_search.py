"""Which points are tried, and that nothing but the study decides it."""

from __future__ import annotations

import importlib.util
import itertools

import pytest

from atts_runtime.errors import InputError
from atts_sim.axes import axis
from atts_sim.search import Chosen, Optuna, grid, random, search

AXES = [
    axis("s", "settings.policy", ["barrier", "async-marginal"]),
    axis("s", "settings.alpha", {"from": 0.1, "to": 0.5, "steps": 3}),
]
HAS_OPTUNA = importlib.util.find_spec("optuna") is not None


def test_a_grid_is_every_combination_the_last_axis_fastest() -> None:
    found = grid(AXES).ask()
    expected = itertools.product(["barrier", "async-marginal"], [0.1, 0.3, 0.5])
    assert [tuple(point.values()) for point in found] == list(expected)


def test_a_study_without_a_sweep_is_one_point() -> None:
    assert grid([]).ask() == [{}]


def test_a_grid_beyond_all_measure_is_refused() -> None:
    wide = [axis("s", f"settings.{n}", {"from": 1, "to": 10**4, "steps": 9999}) for n in ("chains", "turns")]
    with pytest.raises(InputError, match="make it smaller"):
        grid(wide)


def test_random_points_hang_on_the_seed_and_more_trials_only_add_some() -> None:
    few, many = random(AXES, 5, seed=1).ask(), random(AXES, 50, seed=1).ask()
    assert many[:5] == few
    assert random(AXES, 5, seed=2).ask() != few
    assert {point["settings.policy"] for point in many} == {"barrier", "async-marginal"}


def test_a_search_ends() -> None:
    for found in (grid(AXES), random(AXES, 3, 0)):
        assert found.ask()
        found.tell([1.0, None, 2.0])
        assert found.ask() == []


@pytest.mark.skipif(HAS_OPTUNA, reason="Optuna is installed")
def test_without_optuna_the_error_says_how_to_get_it() -> None:
    with pytest.raises(InputError, match=r"pip install 'atts\[optuna\]'"):
        search("optuna", AXES, 3, 0)


@pytest.mark.skipif(not HAS_OPTUNA, reason="Optuna is an extra, and not installed")
def test_optuna_finds_the_low_end_and_does_so_again() -> None:
    def tried() -> list[Chosen]:
        searching, points = Optuna(AXES, 40, seed=0), []
        while asked := searching.ask():
            points += asked
            searching.tell([None if p["settings.policy"] == "barrier" else float(p["settings.alpha"]) for p in asked])
        return points

    first = tried()
    assert first == tried()
    assert len(first) == 40
    assert min(float(p["settings.alpha"]) for p in first if p["settings.policy"] != "barrier") < 0.15
