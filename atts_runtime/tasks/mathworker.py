r"""The process in which math-verify runs: one question a line in, one verdict a line out.

It is started as a script (`mathpool` says why) and imports nothing of this package. Only math-verify's LaTeX grammar
is used: its reader of plain expressions ends in ``eval``. A question is a JSON line ``[reference, found]``; a verdict
is ``true``, ``false``, or ``null`` where math-verify failed. The process ends when standard input closes; when a
question takes longer than its limit (by a timer of its own, whose signal ends it even in the middle of one huge
multiplication, and even when its parent is gone); and when memory runs short: math-verify swallows most exceptions,
MemoryError among them, and then calls two answers different that it could not compare.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any


def main(limit_s: float, memory_bytes: int) -> None:
    """Serve until standard input closes."""
    from math_verify import LatexExtractionConfig, parse, verify

    replies, sys.stdout = sys.stdout, sys.stderr
    with contextlib.suppress(OSError, ValueError):  # a system without this limit, or with a tighter one already
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
    # The parent may ignore or block the signal, and both are inherited.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    config = LatexExtractionConfig(try_extract_without_anchor=True)

    def read(answer: str) -> list[Any]:
        return list(parse(f"\\boxed{{{answer}}}", [config], parsing_timeout=None, raise_on_error=True))

    verify(read("x^2-1"), read("(x-1)(x+1)"), timeout_seconds=None)  # imports the rest, which no question should pay
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        reference, found = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        verdict: bool | None
        try:
            verdict = bool(verify(read(reference), read(found), timeout_seconds=None, raise_on_error=True))
        except MemoryError:
            os._exit(1)
        except Exception:  # whatever math-verify trips over, it has not told the two apart
            verdict = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not verdict and _peak_bytes() > memory_bytes / 2:
            os._exit(1)
        print(json.dumps(verdict), file=replies, flush=True)


def _peak_bytes() -> int:
    """The most memory that this process has held. Not by `getrusage` where that can be helped: a process begins there
    with what its parent held, and a parent with models in memory holds more than any check may."""
    with contextlib.suppress(OSError), Path("/proc/self/status").open() as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
