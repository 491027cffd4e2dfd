"""What is loaded before a run is no business of the garbage collector's during it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from atts_runtime.collector import loaded_left_alone
from atts_runtime.config import RunConfig
from atts_runtime.errors import InputError
from atts_runtime.session import engines_for


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


async def frozen_inside(config: RunConfig) -> int:
    async with engines_for(config, {"draft"}):
        return gc.get_freeze_count()


def test_modules_are_frozen_while_engines_run_and_not_after() -> None:
    assert asyncio.run(frozen_inside(RunConfig())) > 100_000
    assert gc.get_freeze_count() == 0


def test_one_inside_another_leaves_the_outer_one_its_freeze() -> None:
    with loaded_left_alone():
        before = gc.get_freeze_count()
        with loaded_left_alone():
            pass
        assert gc.get_freeze_count() == before > 0
    assert gc.get_freeze_count() == 0


def test_a_users_own_freeze_stands() -> None:
    gc.freeze()
    with loaded_left_alone():
        pass
    assert gc.get_freeze_count() > 0


def test_engines_that_do_not_start_change_nothing() -> None:
    gc.freeze()
    before = gc.get_freeze_count()
    with pytest.raises(InputError):
        asyncio.run(frozen_inside(RunConfig(draft="./nowhere")))
    assert gc.get_freeze_count() == before
