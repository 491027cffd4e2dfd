r"""Where an answer stands in what a model wrote: the last balanced ``\boxed{}``, ``ANSWER: X``, the last number.

Model output is untrusted. Every function is linear in the length of its text, and all but :func:`boxed` look at no
more than the last ``MAX_CHARS`` characters. Where there is no box but blank ones, :func:`boxed` is one search.
"""

from __future__ import annotations

import re

__all__ = ["MAX_CHARS", "announced", "boxed", "labelled", "labelled_letter", "last_number", "letter"]

MAX_CHARS = 2000
"""Longer answers are never parsed, and an unboxed answer is only sought in this many last characters."""

_FILLED_BOX = re.compile(r"\\boxed\{(?!\s*+\})")
# An escaped brace is text. So is a double backslash (a LaTeX line break), unless it is a doubled \boxed.
_BOX_OR_BRACE = re.compile(r"\\[{}]|\\\\(?!boxed\{)|(?P<box>\\boxed\{)|(?P<brace>[{}])")

# Possessive quantifiers keep a refused match from being tried again by a shorter prefix of itself.
_MARKUP = r"[ \t*_#>]*+"
_LABEL = re.compile(rf"^{_MARKUP}(?:final )?answer{_MARKUP}:([^\n]*+)(\n?)", re.IGNORECASE | re.MULTILINE)
_ANNOUNCED = re.compile(r"answer(?: is|:)", re.IGNORECASE)
_NUMBER = r"[+-]?[0-9]++(?:,[0-9]{3}(?![0-9]))*+(?:\.[0-9]++)?+(?:/[0-9]++)?+"
# A number straight after "answer is", unless it is only where a longer expression starts.
_NUMBER_NEXT = re.compile(rf"[\s:*]*+({_NUMBER})(?!\s*(?:[\\^/+=-]|\*[^*])|\w)")
_FORMULA_NEXT = re.compile(
    r"[\s:*]*+(?:\$\$([^$]++)\$\$|\$([^$]++)\$|\\\(((?:[^\\]|\\(?!\)))*+)\\\)|\\\[((?:[^\\]|\\(?!\]))*+)\\\])"
)
_ANY_NUMBER = re.compile(rf"(?:(?<![\w)\]}}])[+-])?{_NUMBER.removeprefix('[+-]?')}")
_LETTER = re.compile(r"\\text(?:bf|rm)?\{\s*+\(?([A-J])\)?[.:]?\s*+\}|\(?([A-J])(?:\)|[.:](?=\s|$)|$)")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_MOST_WORDS = 2  # "ANSWER: 12 cm", but not "Answer: to find this we"


def boxed(text: str) -> str | None:
    r"""The content of the last complete ``\boxed{...}`` with balanced braces, or None.

    Last means opened last, so the inner of two nested boxes wins. Unclosed boxes are ignored (the chain is still
    writing) and so are blank ones (the chain quotes its instructions). Linear in the length of the text.
    """
    first = _FILLED_BOX.search(text)
    if first is None:
        return None
    open_braces: list[int | None] = []  # where the content starts, for a box; None for any other brace
    last_start, last = -1, None
    for token in _BOX_OR_BRACE.finditer(text, first.start()):  # what stands before holds no answer and closes no box
        if token["box"]:
            open_braces.append(token.end())
        elif token["brace"] == "{":
            open_braces.append(None)
        elif token["brace"] and open_braces:
            start = open_braces.pop()
            # Only an innermost box can be blank, so no part of the text is copied more than twice.
            if start is not None and start > last_start and (content := text[start : token.start()]).strip():
                last_start, last = start, content
    return last


def labelled(text: str, *, whole: bool) -> str | None:
    """What stands on the last line that begins ``ANSWER:``, without markup; None where there is none, or prose.

    A text under way (not ``whole``) may go on with the same line, so there only lines that have ended count.
    """
    found = _label(text, whole)
    return None if found is None or len(_WORD.findall(found)) > _MOST_WORDS else found


def announced(text: str) -> str | None:
    """The number or formula straight after the last "answer is" or "answer:" of a whole text, or None."""
    tail = _tail(text)
    ends = [match.end() for match in _ANNOUNCED.finditer(tail)]
    if not ends:
        return None
    if number := _NUMBER_NEXT.match(tail, ends[-1]):
        return number[1]
    if formula := _FORMULA_NEXT.match(tail, ends[-1]):
        return next(part for part in formula.groups() if part is not None).strip() or None
    return None


def last_number(text: str) -> str | None:
    """The last number of a whole text, as written; None where there is none."""
    found = None
    for match in _ANY_NUMBER.finditer(_tail(text)):
        found = match[0]
    return found


def letter(answer: str) -> str | None:
    r"""The option (A to J) that an answer names: ``B``, ``(B)``, ``\text{B}``, ``B. 42 m``; None for any other."""
    match = _LETTER.match(answer[:MAX_CHARS].strip().strip("$*").strip())
    return None if match is None else match[1] or match[2]


def labelled_letter(text: str, *, whole: bool) -> str | None:
    """The option on the last line that begins ``ANSWER:``; None where it names none. ``whole`` as in `labelled`."""
    found = _label(text, whole)
    return None if found is None else letter(found)


def _label(text: str, whole: bool) -> str | None:
    found = None
    for line in _LABEL.finditer(_tail(text)):
        if (whole or line[2]) and (content := line[1].strip().strip("*_ \t").removesuffix(".").strip()):
            found = content
    return found


def _tail(text: str) -> str:
    """The end of a text, from the start of a line where there is one: half a formula reads as another formula."""
    if len(text) <= MAX_CHARS:
        return text
    tail = text[-MAX_CHARS:]
    return tail[tail.find("\n") + 1 :]
