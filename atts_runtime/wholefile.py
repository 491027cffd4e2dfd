"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the file, wait for the disk, then put it in the file's place. A link is followed, and stays one;
    what is no file, like a pipe or a terminal, is written to as it is.

    Raises OSError, with the file as it was before and nothing left beside it.
    """
    file = Path(os.path.realpath(path))
    if file.is_symlink() or (path.exists() and not path.is_file()):  # links in a circle: the system refuses them
        path.write_bytes(content)
        return
    unfinished = file.with_name(f"{file.name}.new")
    out = unfinished.open("wb")
    try:
        with out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
