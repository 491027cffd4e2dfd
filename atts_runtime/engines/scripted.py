"""Hot paths as TorchScript: it runs outside the interpreter's lock, for which two engines in one process contend."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., torch.Tensor])


def scripted(function: Function) -> Function:
    """The function as TorchScript, or as it stands where torch has none (Python 3.14 and later)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, but what replaces it wants a C++ compiler at hand
            return cast(Function, torch.jit.script(function))
    except (RuntimeError, NotImplementedError):
        return function
