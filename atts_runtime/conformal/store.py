"""Banks on disk: saved by a run, loaded by the next one or by a replay.

Our own format is a NumPy archive without pickles: ``scores`` (n,) float64 in nats per token and ``format``, a version.
A bare ``.npy`` of perplexities, as published with the method, is read as well.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atts_runtime.conformal.bank import Bank, SealedBank
from atts_runtime.wholefile import write_whole

FORMAT = 1


def save_bank(bank: Bank | SealedBank, path: Path) -> None:
    """Write a bank to ``path`` (.npz), whole or not at all. Its window is not part of it: what is saved is the scores
    that it holds. Raises OSError."""
    scores = np.asarray(list(bank) if isinstance(bank, Bank) else bank.scores, dtype=np.float64)
    made = io.BytesIO()
    np.savez(made, format=np.int64(FORMAT), scores=scores)
    write_whole(path, made.getvalue())


def load_bank(path: Path) -> SealedBank:
    """Read a bank: ``.npz`` as saved here (nats per token), or ``.npy`` of perplexities.

    Raises OSError where it cannot be read, ValueError where it is not a bank, is cut short, or is of another version.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        try:
            if magic == b"\x93NUM":
                return SealedBank(_log_perplexities(np.load(file, allow_pickle=False)))
            if magic != b"PK\x03\x04":
                raise ValueError("it is not a NumPy file")
            with np.load(file, allow_pickle=False) as archive:
                scores = _scores(archive)
        except OSError:
            raise
        except Exception as error:  # a damaged file makes NumPy's readers raise almost anything
            raise ValueError(f"{path} is not a bank: {' '.join(str(error).split())}") from error
    return SealedBank(scores)


def _scores(archive: Any) -> NDArray[np.float64]:
    if set(archive.files) != {"format", "scores"}:
        raise ValueError("it holds other arrays than a bank's")
    version, scores = archive["format"], archive["scores"]
    if version.dtype.kind != "i" or version.ndim != 0 or int(version) != FORMAT:
        raise ValueError(f"it has format {version}, this version reads {FORMAT}; make the bank again")
    if scores.dtype != np.float64 or scores.ndim != 1 or not np.all(np.isfinite(scores)):
        raise ValueError("its scores must be a list of finite float64 numbers")
    return np.asarray(scores)


def _log_perplexities(
    array: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    if array.ndim != 1 or array.dtype.kind != "f":
        raise ValueError("an .npy bank must be a list of perplexities")
    if not np.all(np.isfinite(array) & (array >= 1)):
        raise ValueError("a perplexity is finite and at least 1")
    logs: NDArray[np.float64] = np.log(array.astype(np.float64))
    return logs
