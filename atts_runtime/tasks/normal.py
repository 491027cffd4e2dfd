r"""Verdicts on two answers that need no computer algebra: the same spelling, or plain rational numbers.

Only what is certain is decided here; ``None`` hands the question on. Spelling is normalised where LaTeX does not
care: blanks, thin spaces, ``\left`` and ``\right``, ``\dfrac``, math delimiters around the whole.
"""

from __future__ import annotations

import re
from fractions import Fraction

__all__ = ["canonical", "verdict"]

_INTEGER = re.compile(r"([+-]?)0*([0-9]+)")
_DELIMITED = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_SIZED = re.compile(r"\\(?:left|right)(?![A-Za-z])")
_FRACTION_STYLE = re.compile(r"\\[dt]frac(?![A-Za-z])")
_SPACE = re.compile(r"(?:\\[,;:\s]|~|\s)+")
_GROUPED = re.compile(r"(?<=[0-9])(?:,?\\!|\{,\}(?:\\!)?)(?=[0-9]{3})")  # 10,\!000 and 10{,}000
_LOOSE_BLANK = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])")
_EXACT = re.compile(
    r"(?P<sign>[+-]?)(?:\\frac\{(?P<a>[0-9]+)\}\{(?P<b>[0-9]+)\}|(?P<c>[0-9]+)/(?P<d>[0-9]+)|(?P<n>[0-9]+)(?P<point>\.[0-9]+)?)"
)


def canonical(answer: str) -> str:
    """The answer in a spelling that equal ones share often enough; an integer without plus and leading zeros."""
    while (simpler := _simplified(answer)) != answer:  # what is left out may have stood within a command
        answer = simpler
    return answer


def _simplified(answer: str) -> str:
    answer = answer.strip()
    for before, after in _DELIMITED:
        inner = answer.removeprefix(before).removesuffix(after)
        if len(inner) == len(answer) - len(before) - len(after) and before not in inner and after not in inner:
            answer = inner.strip()
    answer = _GROUPED.sub("", answer)
    answer = _FRACTION_STYLE.sub(r"\\frac", _SIZED.sub("", answer).replace("\\!", ""))
    answer = _LOOSE_BLANK.sub("", _SPACE.sub(" ", answer).strip())
    if not (integer := _INTEGER.fullmatch(answer)):
        return answer
    sign, digits = integer.groups()
    return f"-{digits}" if sign == "-" and digits != "0" else digits


def verdict(reference: str, found: str) -> bool | None:
    """Whether two canonical answers are equal; None where this module cannot tell.

    Different integers and fractions are different. A decimal may be a rounded value, which is not judged here.
    """
    if reference == found:
        return True
    # Integers of any length, which int() would refuse: canonical ones are equal only if they are written alike.
    if _INTEGER.fullmatch(reference) and _INTEGER.fullmatch(found):
        return False
    a, b = _rational(reference), _rational(found)
    if a is None or b is None:
        return None
    (left, left_exact), (right, right_exact) = a, b
    return True if left == right else False if left_exact and right_exact else None


def _rational(answer: str) -> tuple[Fraction, bool] | None:
    """Value, and whether it is written without a decimal point; None where it is no plain number or a long one."""
    match = _EXACT.fullmatch(answer) if len(answer) <= 200 else None
    if match is None:
        return None
    if match["n"] is not None:
        value = Fraction(match["n"] + (match["point"] or ""))
    else:
        below = int(match["b"] or match["d"])
        if not below:
            return None
        value = Fraction(int(match["a"] or match["c"]), below)
    return -value if match["sign"] == "-" else value, match["point"] is None
