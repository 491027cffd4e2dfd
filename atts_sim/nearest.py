"""What a name that there is not may have been meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", shown: Callable[[str], str] = repr) -> str:
    """A question after the known name that begins with this one or is spelt most like it, as `shown`; where none is
    near, `otherwise`."""
    names = list(known)
    near = [one for one in names if name and one.startswith(name)] or difflib.get_close_matches(name, names, n=1)
    return f"did you mean {shown(near[0])}?" if near else otherwise
