"""Results of a device on their way to the host."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


class HostCopy:
    """A tensor that is copied to the host as soon as it is computed, while later work is being queued.

    A plain `.cpu()` would wait for all that was queued in between.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = self._copy = tensor
        self._copied: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._copy.copy_(tensor, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def read(self) -> NDArray[Any]:
        """Wait for the copy."""
        if self._copied is not None:
            self._copied.synchronize()
        array: NDArray[Any] = self._copy.numpy()
        return array
