# SPDX-License-Identifier: Apache-2.0
"""Arrays on a GPU that threads hand to each other by reference, in the order of their streams.

A call that computes on a GPU returns when its work is queued, not when it is done, and each stage
may queue on a stream of its own. So whoever hands an array on notes how far its stream had to get
(an event), and whoever reads makes its own stream wait for that, on the device: no thread waits.
Needs torch.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_COPIES = 16
"""Arrays whose copies are kept on a device; the one that was asked for longest ago goes first."""

_LEGACY_STREAM, _NO_ORDER = 1, -1  # streams with a name of their own in the DLPack protocol


class CudaArray:
    """A tensor as far as the stream that it is made on has written it by now; read-only from here.

    Other libraries take it as it is (`warp.from_dlpack`, `cupy.from_dlpack`, `torch.from_dlpack`):
    the DLPack protocol names the reader's stream. Raises `ValueError` for a tensor that is not on a
    CUDA device.
    """

    def __init__(self, tensor: Tensor) -> None:
        if not tensor.is_cuda:
            raise ValueError(f"a CudaArray is of a tensor on a CUDA device, not on {tensor.device}")
        self._tensor = tensor.detach()
        self._written = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._written.record(torch.cuda.current_stream(tensor.device))
        self._lock = threading.Lock()
        self._host: np.ndarray | None = None

    @property
    def device(self) -> torch.device:
        return self._tensor.device

    def on(self, stream: torch.cuda.Stream | None = None) -> Tensor:
        """The tensor, for what is queued on `stream` (the caller's current one) from now on.

        Its memory is not used for anything else before that is done, even if all references go.
        """
        reader = stream or torch.cuda.current_stream(self.device)
        reader.wait_event(self._written)
        self._tensor.record_stream(reader)
        return self._tensor

    def host(self) -> np.ndarray:
        """A read-only copy in main memory, made once, whoever asks: for messages and files.

        Waits for the array alone, not for what else the caller has queued.
        """
        with self._lock:
            if self._host is None:
                beside = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
                with torch.cuda.stream(beside):
                    self._host = self.on(beside).cpu().numpy()
                self._host.flags.writeable = False
            return self._host

    def __dlpack_device__(self) -> tuple[Any, int]:
        return self._tensor.__dlpack_device__()

    def __dlpack__(self, *, stream: int | None = None, **wishes: Any) -> Any:
        """The tensor for a library that will read it on `stream`, as the protocol numbers them."""
        if stream != _NO_ORDER:
            self.on(self._stream(stream))
        return self._tensor.__dlpack__(stream=_NO_ORDER, **wishes)

    def _stream(self, number: int | None) -> torch.cuda.Stream:
        if number in (None, 0, _LEGACY_STREAM):
            return torch.cuda.default_stream(self.device)
        return torch.cuda.ExternalStream(number, self.device)  # type: ignore[no-untyped-call]


class DeviceCopies:
    """Copies of arrays on devices, one of each however many threads read it.

    Only of read-only arrays, which is what topics hand on; a copy goes with its array, or when
    `most` others were asked for since. Safe from any thread.
    """

    def __init__(self, most: int = MOST_COPIES) -> None:
        self._most = most
        self._lock = threading.RLock()  # an array may go while its thread holds the lock
        self._copies: OrderedDict[tuple[int, str], tuple[Any, CudaArray]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._copies)

    def on(self, array: np.ndarray, device: torch.device | str) -> Tensor:
        """`array`'s values on `device`, for what is queued on the current stream from now on.

        On the CPU, and of an array that may still be written, that is a copy for the caller alone.
        """
        wanted = torch.device(device)
        if wanted.type != "cuda" or array.flags.writeable:
            return torch.tensor(array).to(wanted)
        if wanted.index is None:
            wanted = torch.device("cuda", torch.cuda.current_device())
        key = (id(array), str(wanted))
        with self._lock:
            kept = self._copies.get(key)
            copy = kept[1] if kept else CudaArray(torch.tensor(array).to(wanted))
            self._keep(key, array, copy)
        return copy.on()

    def _keep(self, key: tuple[int, str], array: np.ndarray, copy: CudaArray) -> None:
        self._copies.pop(key, None)
        self._copies[key] = (weakref.ref(array, lambda gone: self._forget(key, gone)), copy)
        while len(self._copies) > self._most:
            self._copies.popitem(last=False)

    def _forget(self, key: tuple[int, str], gone: Any) -> None:
        """The array is gone; by now another may have its number."""
        with self._lock:
            if key in self._copies and self._copies[key][0] is gone:
                del self._copies[key]


copies = DeviceCopies()
"""The process's own: stages that read the same picture share one upload."""
