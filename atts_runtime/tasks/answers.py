"""Finding answers in what a model wrote, and deciding whether two of them mean the same.

Model output is untrusted. Boxes are found by one linear scan. Mathematical equivalence goes to math-verify,
whose computer algebra can run for ever (``9^{9^{9^9}}``) or fill the memory, so it lives in one subprocess with
a deadline on every check. Only its LaTeX grammar is used: its reader of plain expressions ends in ``eval``.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import weakref
from functools import lru_cache
from typing import Protocol

__all__ = ["Answers", "ExactAnswers", "MathAnswers", "boxed"]

MAX_CHARS = 2000
"""Longer answers are never parsed, and an unboxed answer is only sought in this many last characters."""

_CHECK_LIMIT_S = 5.0  # math-verify's own default for one comparison
_MEMORY_BYTES = 4 << 30
_CACHED_CHECKS = 1 << 14

# An escaped brace is text. So is a double backslash (a LaTeX line break), unless it is a doubled \boxed.
_BOX_OR_BRACE = re.compile(r"\\[{}]|\\\\(?!boxed\{)|(?P<box>\\boxed\{)|(?P<brace>[{}])")
_INTEGER = re.compile(r"([+-]?)0*([0-9]+)")
_ANNOUNCED = re.compile(r"answer(?: is|:)", re.IGNORECASE)
# A number straight after "answer is", unless it is only where a longer expression starts. The possessive
# quantifiers keep a refused number from matching by a shorter prefix of itself.
_NUMBER_NEXT = re.compile(
    r"[\s:*]*+([+-]?[0-9]++(?:,[0-9]{3}(?![0-9]))*+(?:\.[0-9]++)?+(?:/[0-9]++)?+)(?!\s*(?:[\\^/+=-]|\*[^*])|\w)"
)


class Answers(Protocol):
    """How a task finds answers in text and compares them."""

    def extract(self, text: str) -> str | None:
        """The last answer in the text, stripped, or None."""

    def matches(self, found: str, answer: str) -> bool:
        """Whether a found answer is the known right one."""

    def same(self, a: str, b: str) -> bool:
        """Whether two found answers mean the same; symmetric."""


def boxed(text: str) -> str | None:
    r"""The content of the last complete ``\boxed{...}`` with balanced braces, or None.

    Last means opened last, so the inner of two nested boxes wins. Unclosed boxes are ignored (the chain is still
    writing) and so are blank ones (the chain quotes its instructions). Linear in the length of the text.
    """
    open_braces: list[int | None] = []  # where the content starts, for a box; None for any other brace
    last_start, last = -1, None
    for token in _BOX_OR_BRACE.finditer(text):
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


class ExactAnswers:
    """The bundled task's rule: a boxed answer, equal as an integer or else as stripped text."""

    def extract(self, text: str) -> str | None:
        """The content of the last box, stripped."""
        found = boxed(text)
        return None if found is None else found.strip()

    def matches(self, found: str, answer: str) -> bool:
        """Equality, as in :meth:`same`."""
        return self.same(found, answer)

    def same(self, a: str, b: str) -> bool:
        """Whether both are the same integer (``07`` is ``7``) or the same text around which blanks do not count."""
        return _canonical(a) == _canonical(b)


class MathAnswers:
    """The rule for free text: boxed or announced answers, equal when math-verify says so.

    Equal strings and integers are settled here; everything else is one question to the subprocess, at most
    ``limit_s`` seconds each and remembered, also when it failed. A check that fails, or runs into the deadline
    or the memory limit, counts as not equal. Safe to call from any thread; a call may block for ``limit_s``
    plus the seconds that a fresh subprocess takes to import sympy. The deadline needs POSIX timers.
    """

    def __init__(self, limit_s: float = _CHECK_LIMIT_S) -> None:
        self._worker = _Worker(limit_s)
        self._ask = lru_cache(maxsize=_CACHED_CHECKS)(self._worker.ask)

    def extract(self, text: str) -> str | None:
        """The last box's content; without one, the number or LaTeX that follows the last "answer is" or "answer:".

        Nothing else counts as an answer: a chain stops once it has one, so a number on the way must not be one.
        """
        found = boxed(text)
        if found is not None:
            return found.strip()
        tail = _tail(text)
        announced = [match.end() for match in _ANNOUNCED.finditer(tail)]
        if not announced:
            return None
        if number := _NUMBER_NEXT.match(tail, announced[-1]):
            return number[1]
        rest = tail[announced[-1] :]
        if "$" not in rest and "\\" not in rest:
            return None
        reply = self._ask("extract", rest, "")
        return reply.strip() or None if isinstance(reply, str) else None

    def matches(self, found: str, answer: str) -> bool:
        """Whether math-verify accepts ``found`` where ``answer`` is the reference (it treats the two unalike)."""
        return self._equal(answer, found)

    def same(self, a: str, b: str) -> bool:
        """Whether math-verify accepts either one as the other."""
        low, high = sorted((a, b))  # one cache entry for both orders
        return self._equal(low, high) or self._equal(high, low)

    def close(self) -> None:
        """End the subprocess; a later check starts another. Called by itself when the object goes away."""
        self._worker.close()

    def _equal(self, reference: str, found: str) -> bool:
        reference, found = _canonical(reference), _canonical(found)
        if reference == found:
            return True
        if _INTEGER.fullmatch(reference) and _INTEGER.fullmatch(found):
            return False
        if max(len(reference), len(found)) > MAX_CHARS:
            return False
        return self._ask("equal", reference, found) is True


def _canonical(answer: str) -> str:
    """Stripped; an integer also without a plus sign and leading zeros. Not through int(): that has a size limit."""
    answer = answer.strip()
    if not (integer := _INTEGER.fullmatch(answer)):
        return answer
    sign, digits = integer.groups()
    return f"-{digits}" if sign == "-" and digits != "0" else digits


def _tail(text: str) -> str:
    """The end of a text, from the start of a line where there is one: half a formula reads as another formula."""
    if len(text) <= MAX_CHARS:
        return text
    tail = text[-MAX_CHARS:]
    return tail[tail.find("\n") + 1 :]


# The subprocess. It runs this file as a script rather than through multiprocessing, whose spawn would import the
# caller's main module again. A request is a JSON line [kind, a, b]; a reply is a JSON line. The deadline is a
# timer of the subprocess's own whose signal ends it even in the middle of one huge multiplication, and even
# when its parent is gone; the parent sees the pipe close.


class _Worker:
    """One math-verify subprocess: started by the first question, replaced after it died."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._finalizer: weakref.finalize[[subprocess.Popen[str]], _Worker] | None = None

    def ask(self, kind: str, a: str, b: str) -> object:
        """The reply, or None if this question ended the subprocess.

        Raises RuntimeError if it cannot start: a run whose every answer counts as wrong would help nobody.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            reply = self._exchange(json.dumps([kind, a, b]))
            if not reply:
                self._stop()
            return json.loads(reply) if reply else None

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _start(self) -> None:
        self._stop()
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(self._limit_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the run, which may want to finish its checks
            encoding="ascii",
        )
        self._finalizer = weakref.finalize(self, _end, self._process)
        if not self._exchange(None):
            self._stop()
            raise RuntimeError("the answer checker did not start; `python -c 'import math_verify'` says why")

    def _stop(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._finalizer = None

    def _exchange(self, request: str | None) -> str:
        """One line out (unless None), one line back; empty when the subprocess is gone."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if request is not None:
                process.stdin.write(request + "\n")
                process.stdin.flush()
            return process.stdout.readline()
        except OSError:
            return ""


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()


def _serve(limit_s: float) -> None:
    """Answer requests until standard input closes; die by SIGALRM on one that takes longer than ``limit_s``."""
    import resource

    from math_verify import LatexExtractionConfig, parse, verify

    replies, sys.stdout = sys.stdout, sys.stderr
    with contextlib.suppress(OSError, ValueError):  # a system without this limit, or with a tighter one already
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    # The parent may ignore or block the signal, and both are inherited.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})

    def read(text: str, anywhere: bool) -> list[object]:
        config = LatexExtractionConfig(try_extract_without_anchor=anywhere)
        return list(parse(text, [config], parsing_timeout=None))

    def reply(kind: str, a: str, b: str) -> object:
        if kind == "extract":
            found = read(f"answer: {a}", anywhere=False)
            return found[-1] if found and isinstance(found[-1], str) else None
        reference, found = (read(f"\\boxed{{{text}}}", anywhere=True) for text in (a, b))
        return bool(verify(reference, found, timeout_seconds=None))

    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            result = reply(*json.loads(line))
        except Exception:  # whatever math-verify trips over is not an answer
            result = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(result), file=replies, flush=True)


if __name__ == "__main__":
    _serve(float(sys.argv[1]))
