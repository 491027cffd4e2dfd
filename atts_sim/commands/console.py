"""Where tables are printed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH = 120  # of logs and pipes, for which Rich takes 80


def stdout_console() -> Console:
    """Rich's for stdout: as wide as the terminal or COLUMNS say, and where neither does wide enough for the tables."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH)
