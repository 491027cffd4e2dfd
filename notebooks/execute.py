"""Executes the notebooks and writes their outputs into them: python notebooks/execute.py [NAME...]

Each runs in an empty folder, on the Python that runs this. ATTS_TRACES may name the folder of the traces published with
the method; cells that need them say so where it does not.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
PATIENCE_S = 300
"""Of one cell, on a busy machine."""


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run in `folder`. Raises nbclient's CellExecutionError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=PATIENCE_S, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    client.execute(env=_environment())
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    return notebook


def _environment() -> dict[str, str]:
    """This source tree's packages, and the commands of the environment that this runs in."""
    ours = {"PYTHONPATH": str(FOLDER.parent), "PATH": str(Path(sys.executable).parent)}
    kept = {name: os.environ.get(name) for name in ours}
    joined = {name: os.pathsep.join([path, *filter(None, [kept[name]])]) for name, path in ours.items()}
    return {**os.environ, "COLUMNS": "110", **joined}


def main(names: list[str]) -> None:
    """Execute those named, or all."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        start_s = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        nbformat.write(notebook, path)
        print(f"{path.name}: {time.monotonic() - start_s:.0f} s, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
