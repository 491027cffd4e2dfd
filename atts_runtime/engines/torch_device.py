"""The torch device that was asked for, checked before anything is put on it."""

from __future__ import annotations

import torch

from atts_runtime.errors import InputError

_KINDS = ("cpu", "cuda")


def torch_device(asked: str | None) -> torch.device:
    """The device by its name (None: CUDA where there is one, else the CPU); raises InputError where torch does not know
    it or does not find it, or the embedded engine does not run on its kind."""
    if asked is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise InputError(f"device {asked!r} is not known to torch; give cpu or cuda") from error
    if device.type not in _KINDS:
        raise InputError(f"device {asked!r} does not run the embedded engine; give cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {asked!r} is not there: torch finds no CUDA GPU; give --device cpu")
    if device.type == "cuda" and (device.index or 0) >= (found := torch.cuda.device_count()):
        raise InputError(f"device {asked!r} is not there: torch finds {found} CUDA GPU(s), counted from 0")
    return device
