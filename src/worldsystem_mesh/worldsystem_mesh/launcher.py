# SPDX-License-Identifier: Apache-2.0
"""Where kernels run: one launch on CUDA, slices over a few threads on a CPU."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import warp as wp
from jaxtyping import Int

from worldsystem_core.errors import BackendError

SLICES_PER_THREAD = 2
MIN_SLICE = 32


def start_warp() -> None:
    """Initialise Warp without its banner; safe to call again."""
    wp.config.log_level = wp.LOG_ERROR
    wp.init()


def head(array: wp.array, count: int) -> np.ndarray:
    """The first `count` rows: on a CPU the array's own memory, on CUDA a copy of just these, which
    waits for the kernels before it."""
    if array.device.is_cpu:
        return np.asarray(array.numpy()[:count])
    return np.asarray(array[:count].numpy()) if count else np.asarray(array.numpy()[:0])


def rows(array: wp.array, chosen: Int[np.ndarray, "n"]) -> np.ndarray:
    """A copy of some rows, on CUDA gathered there."""
    if array.device.is_cpu:
        return np.asarray(array.numpy()[chosen])
    return gathered(array, chosen) if len(chosen) else head(array, 0)


def gathered(array: wp.array, chosen: Int[np.ndarray, "n"]) -> np.ndarray:
    """A copy of some rows, gathered on the array's device."""
    index = wp.array(chosen.astype(np.int32), dtype=wp.int32, device=array.device)
    return np.asarray(wp.indexedarray(array, [index]).contiguous().numpy())


def scatter(array: wp.array, chosen: Int[np.ndarray, "n"], values: np.ndarray) -> None:
    """Replace some rows, on the array's device."""
    index = wp.array(chosen.astype(np.int32), dtype=wp.int32, device=array.device)
    source = wp.array(values, dtype=array.dtype, device=array.device)
    wp.copy(wp.indexedarray(array, [index]), source)


def over(values: np.ndarray, dtype: Any) -> wp.array:
    """An array of `dtype` (any Warp type) on the CPU over the memory of `values`, which it keeps
    alive: what `wp.array(values, copy=False)` gives, without its checks, in a third of the time."""
    held = np.ascontiguousarray(values)
    inner = len(getattr(dtype, "_shape_", ()))
    shape = held.shape[: held.ndim - inner] if inner else held.shape
    made = wp.array(ptr=held.ctypes.data, dtype=dtype, shape=shape, device="cpu")
    made.memory_of = held
    return made


class Launcher:
    """Launches Warp kernels on `device` ("auto", "cpu" or "cuda").

    A Warp launch on a CPU is serial but releases the interpreter lock, so a range cut into slices
    uses several cores, the caller's among them. Atomics are plain writes there: kernels that use
    them go through `whole`.
    """

    def __init__(self, device: str, threads: int) -> None:
        start_warp()
        if device == "cuda" and not wp.is_cuda_available():
            raise BackendError("device = 'cuda', but no CUDA device answers; use 'cpu' or 'auto'")
        use_cuda = device != "cpu" and wp.is_cuda_available()
        self.device = "cuda:0" if use_cuda else "cpu"
        self._threads = 1 if use_cuda else threads
        others = self._threads - 1
        self._pool = ThreadPoolExecutor(others, "mesh") if others else None

    # Any: Warp kernels and their arguments have no static types.
    def whole(self, kernel: Any, dim: int | tuple[int, ...], inputs: list[Any]) -> None:
        """Run the whole range in one launch."""
        wp.launch(kernel, dim=dim, inputs=inputs, device=self.device)

    def sliced(
        self,
        kernel: Any,
        count: int,
        inputs: list[Any],
        *,
        inner: tuple[int, ...] = (),
        least: int = MIN_SLICE,
    ) -> None:
        """Run `count` × `inner` threads; the kernel's first argument is where its slice begins.

        A slice has at least `least` of `count`, so that starting it is worth its while.
        """
        if self._pool is None or count < 2 * least:
            wp.launch(kernel, dim=(count, *inner), inputs=[0, *inputs], device=self.device)
            return
        slices = min(self._threads * SLICES_PER_THREAD, count // least)
        edges = [count * i // slices for i in range(slices + 1)]
        waiting = deque(pairwise(edges))

        def work() -> None:
            while waiting:
                try:
                    start, end = waiting.popleft()
                except IndexError:  # another thread took the last
                    return
                dim = (end - start, *inner)
                wp.launch(kernel, dim=dim, inputs=[start, *inputs], device=self.device)

        jobs = [self._pool.submit(work) for _ in range(self._threads - 1)]
        work()
        for job in jobs:
            if not job.cancel():  # one that has not begun yet has nothing left to do
                job.result()

    def close(self) -> None:
        """Join the threads; launches after this run in the caller's."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
