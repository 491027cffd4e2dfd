"""Errors that the commands report to people, classed by who has to act on them."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad usage or input: one clear line, exit code 2.

    The message is a single line that says what is wrong and how to mend it; the commands print it without a
    traceback unless ``--debug`` asks for one.
    """
