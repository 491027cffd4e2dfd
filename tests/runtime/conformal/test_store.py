"""A bank comes back from disk as it was saved, and nothing else passes for one."""

from __future__ import annotations

import gc
import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atts_runtime.conformal import Bank, SealedBank
from atts_runtime.conformal.store import FORMAT, load_bank, save_bank
from tests.full_disk import full_disk

scores = st.lists(st.floats(allow_nan=False, allow_infinity=False))


class Trap:
    """Leaves a trace where it is unpickled, and nowhere else."""

    sprung = 0

    @classmethod
    def spring(cls) -> None:
        cls.sprung += 1

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return self.spring, ()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank"


def archive(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def array(values: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, values, allow_pickle=True)
    return out.getvalue()


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return out.getvalue()


@pytest.mark.parametrize("make", [Bank, SealedBank, lambda values: Bank(values, window=3)])
@settings(deadline=None, max_examples=30)
@given(values=scores)
def test_what_is_saved_is_what_is_loaded(
    make: Callable[[list[float]], Bank | SealedBank], values: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("banks") / "bank.npz"
    bank = make(values)
    save_bank(bank, path)
    loaded = load_bank(path)
    assert isinstance(loaded, SealedBank)
    assert loaded.scores.tolist() == (list(bank) if isinstance(bank, Bank) else bank.scores.tolist())


def test_a_bank_is_saved_under_the_name_that_was_given(path: Path) -> None:
    save_bank(Bank([0.5]), path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_saving_replaces_what_was_there(path: Path) -> None:
    save_bank(Bank(float(s) for s in range(100)), path)
    save_bank(Bank([0.5]), path)
    assert load_bank(path).scores.tolist() == [0.5]


def test_a_bank_that_cannot_be_saved_leaves_the_one_that_was_there(path: Path) -> None:
    save_bank(Bank([0.5]), path)
    with pytest.raises(OSError, match="File too large"), full_disk(1000):
        save_bank(Bank(float(s) for s in range(1000)), path)
    assert load_bank(path).scores.tolist() == [0.5]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_npy_of_perplexities_is_read_as_nats_per_token(path: Path, dtype: type[np.floating[Any]]) -> None:
    path.write_bytes(array(np.array([4.0, 1.0, 2.0], dtype=dtype)))
    assert load_bank(path).scores.tolist() == pytest.approx([0.0, np.log(2), np.log(4)], abs=1e-12)


@pytest.mark.parametrize(
    "values",
    [[1.0, 0.99], [1.0, 0.0], [1.0, -2.0], [1.0, np.nan], [1.0, np.inf], [[1.0, 2.0]], 2.0, [1, 2], ["2.0"], [True]],
)
def test_an_npy_that_is_no_list_of_perplexities_is_refused(path: Path, values: object) -> None:
    path.write_bytes(array(np.asarray(values)))
    with pytest.raises(ValueError, match=r"is not a bank: .*perplexit"):
        load_bank(path)


@pytest.mark.parametrize("version", [FORMAT + 1, FORMAT - 1, -1])
def test_another_version_is_refused_and_named(path: Path, version: int) -> None:
    path.write_bytes(archive(format=np.int64(version), scores=np.array([0.5])))
    with pytest.raises(ValueError, match=f"has format {version}, this version reads {FORMAT}"):
        load_bank(path)


@pytest.mark.parametrize(
    "values", [[0.5, np.nan], [0.5, np.inf], [-np.inf], [[0.5, 1.0]], 0.5, [1, 2], ["0.5"], np.float32([0.5])]
)
def test_scores_that_are_no_list_of_finite_float64_numbers_are_refused(path: Path, values: object) -> None:
    path.write_bytes(archive(format=np.int64(FORMAT), scores=np.asarray(values)))
    with pytest.raises(ValueError, match="must be a list of finite float64 numbers"):
        load_bank(path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"scores": [0.5]},
        {"format": FORMAT},
        {"format": FORMAT, "score": [0.5]},
        {"format": FORMAT, "scores": [0.5], "names": ["a"]},
    ],
)
def test_an_archive_of_other_arrays_is_refused(path: Path, arrays: dict[str, Any]) -> None:
    path.write_bytes(archive(**{name: np.asarray(values) for name, values in arrays.items()}))
    with pytest.raises(ValueError, match="it holds other arrays than a bank's"):
        load_bank(path)


@pytest.mark.parametrize("version", [["1", "2"], "one", [], np.nan])
def test_a_version_that_is_no_number_is_refused(path: Path, version: object) -> None:
    path.write_bytes(archive(format=np.asarray(version), scores=np.array([0.5])))
    with pytest.raises(ValueError, match="is not a bank"):
        load_bank(path)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Trap()),
        array(np.array([Trap()], dtype=object)),
        archive(format=np.int64(FORMAT), scores=np.array([Trap()], dtype=object)),
        archive(format=np.array(Trap(), dtype=object), scores=np.array([0.5])),
    ],
    ids=["pickle", "npy", "scores of an npz", "format of an npz"],
)
def test_nothing_is_ever_unpickled(path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trap, "sprung", 0)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a bank"):
        load_bank(path)
    assert Trap.sprung == 0
    pickle.loads(pickle.dumps(Trap()))
    assert Trap.sprung == 1


@pytest.mark.parametrize(
    "whole",
    [archive(format=np.int64(FORMAT), scores=np.array([0.5, 1.0, 2.0])), array(np.array([1.0, 2.0, 4.0]))],
    ids=["npz", "npy"],
)
def test_a_file_cut_short_anywhere_is_refused(path: Path, whole: bytes) -> None:
    path.write_bytes(whole)
    assert len(load_bank(path)) == 3
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not a bank"):
            load_bank(path)


@pytest.mark.parametrize("cut", [1, 30])
def test_a_refused_file_is_closed(path: Path, cut: int) -> None:
    path.write_bytes(archive(format=np.int64(FORMAT), scores=np.array([0.5]))[:-cut])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="is not a bank"):
            load_bank(path)
        gc.collect()
    assert not caught


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x05\x06" + bytes(18), b"0.5\n1.0\n", b"{}"])
def test_a_file_of_another_kind_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match="it is not a NumPy file"):
        load_bank(path)


NPY = array(np.ones(3))
DAMAGED = {
    "members that are no arrays": zipped(format=b"1", scores=b"hello"),
    "an infinite version": archive(format=np.float64(np.inf), scores=np.array([0.5])),
    "more scores than there are addresses": NPY.replace(b"(3,), }" + b" " * 15, b"(9999999999999999,), }"),
    "a header that does not end": NPY.replace(b"(3,), }", b"(3,), ("),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a bank"):
        load_bank(path)


def test_a_file_that_cannot_be_read_is_not_called_a_bad_bank(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_bank(tmp_path / "missing.npz")
    with pytest.raises(OSError, match="directory"):
        load_bank(tmp_path)
