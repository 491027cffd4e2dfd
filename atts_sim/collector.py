"""When Python looks for garbage: not while a simulation runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Without cyclic garbage collection: what a simulation allocates it keeps, and looking through it again and again
    takes a tenth of the time. Leave it when what was allocated is gone, or all of it is looked through once more."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
