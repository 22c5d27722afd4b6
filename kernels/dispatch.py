"""Which implementation of a kernel runs: Triton's on a GPU and under its interpreter, torch's elsewhere."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

from torch import Tensor


def use_triton(x: Tensor) -> bool:
    """Whether kernels on this tensor run in Triton; without the package, torch's operators serve a GPU as well."""
    return (x.is_cuda or _interpreted()) and _installed()


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


@cache
def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
