"""Python's garbage collector during runs: it leaves alone what was there before."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loaded_left_alone() -> Iterator[None]:
    """What is there now, modules and models above all, is looked through for garbage once, and not again inside: with
    torch loaded that takes .2 s, in which no thread goes on. Where somebody else has frozen what there is, their
    freeze stands, and is left to them."""
    mine = gc.get_freeze_count() == 0
    if mine:
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        if mine:
            gc.unfreeze()
