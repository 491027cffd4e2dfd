"""Hot paths as TorchScript: it runs outside the interpreter's lock, for which two engines in one process contend."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., torch.Tensor])


def scripted(function: Function) -> Function:
    """The function as TorchScript; as it stands from Python 3.14 on, which TorchScript does not support."""
    if sys.version_info >= (3, 14):
        return function
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but what replaces it wants a C++ compiler at hand
        return cast(Function, torch.jit.script(function))
