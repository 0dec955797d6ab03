# SPDX-License-Identifier: Apache-2.0
"""Where kernels run: one launch on CUDA, one in each of a few threads on a CPU."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import warp as wp
from jaxtyping import Int

from worldsystem_core.errors import BackendError
from worldsystem_core.pages import unwritten_zeros
from worldsystem_mesh.kernels_turns import Turns as TurnsStruct

log = logging.getLogger(__name__)

STEP = 8
LEAST_STEPS = 8
"""Fewer steps are not worth waking another thread for."""

SPIN_S = 0.0002
KEPT_ON_DEVICE_BYTES = 256 << 20
"""Freed memory that a device keeps; else it may go back to the driver at the end of each update."""


Turns: Any = TurnsStruct  # a Warp struct, which mypy takes for a class


def start_warp() -> None:
    """Initialise Warp without its banner; safe to call again."""
    wp.config.log_level = wp.LOG_ERROR
    wp.init()


def cuda_devices() -> list[str]:
    """CUDA devices that kernels can run on: Warp's compiler leaves out what is too old for it."""
    start_warp()
    oldest = min(wp.get_cuda_supported_archs(), default=0)
    return [card.alias for card in wp.get_cuda_devices() if card.arch >= oldest]


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


def blank(array: wp.array, chosen: Int[np.ndarray, "n"]) -> None:
    """Make some rows zero, on the array's device."""
    if array.device.is_cpu:
        array.numpy()[chosen] = 0
        return
    index = wp.array(chosen.astype(np.int32), dtype=wp.int32, device=array.device)
    wp.indexedarray(array, [index]).zero_()


def over(values: np.ndarray, dtype: Any) -> wp.array:
    """An array of `dtype` (any Warp type) on the CPU over the memory of `values`, which it keeps
    alive: what `wp.array(values, copy=False)` gives, without its checks, in a third of the time."""
    held = np.ascontiguousarray(values)
    inner = len(getattr(dtype, "_shape_", ()))
    shape = held.shape[: held.ndim - inner] if inner else held.shape
    made = wp.array(ptr=held.ctypes.data, dtype=dtype, shape=shape, device="cpu")
    made.memory_of = held
    return made


def listed(values: np.ndarray, device: str) -> wp.array:
    """32-bit integers on a device: on a CPU those of `values` themselves, on CUDA a copy."""
    plain = np.ascontiguousarray(values, np.int32)
    return over(plain, wp.int32) if device == "cpu" else wp.array(plain, device=device)


def zeros(shape: int | tuple[int, ...], dtype: Any, device: str) -> wp.array:
    """Zeros on a device; on a CPU pages that take memory only once they are written."""
    if device != "cpu":
        return wp.zeros(shape, dtype=dtype, device=device)
    host = unwritten_zeros(shape, wp.dtype_to_numpy(dtype))
    return wp.array(host, dtype=dtype, device=device, copy=False)


def _await(job: Future[None]) -> None:
    """Wait for a job that is about to end: looking again and again notices it in a tenth of the
    time that it takes to wake up."""
    end = time.perf_counter() + SPIN_S
    while not job.done() and time.perf_counter() < end:
        time.sleep(0.0)  # lets the other thread have the interpreter
    job.result()


class Launcher:
    """Launches Warp kernels on `device` ("auto", "cpu" or "cuda").

    A Warp launch on a CPU is serial but releases the interpreter lock, so one launch a thread over
    a shared range uses several cores, the caller's among them. Atomics are plain writes there:
    kernels that use them go through `whole`.
    """

    def __init__(self, device: str, threads: int) -> None:
        start_warp()
        cards = cuda_devices() if device != "cpu" else []
        too_old = device != "cpu" and not cards and wp.is_cuda_available()
        problem = "the GPU is too old for Warp" if too_old else "no CUDA device answers"
        if device == "cuda" and not cards:
            raise BackendError(f"device = 'cuda', but {problem}; use 'cpu' or 'auto'")
        if too_old:
            log.warning("%s: the mesh is made on the processor", problem)
        use_cuda = bool(cards)
        self.device = cards[0] if use_cuda else "cpu"
        if use_cuda and wp.get_device(self.device).is_mempool_supported:
            wp.set_mempool_release_threshold(self.device, KEPT_ON_DEVICE_BYTES)
        self._threads = 1 if use_cuda else threads
        others = self._threads - 1
        self._pool = ThreadPoolExecutor(others, "mesh") if others else None

    # Any: Warp kernels and their arguments have no static types.
    def whole(self, kernel: Any, dim: int | tuple[int, ...], inputs: list[Any]) -> None:
        """Run the whole range in one launch."""
        wp.launch(kernel, dim=dim, inputs=inputs, device=self.device)

    def shared(
        self,
        kernel: Any,
        count: int,
        inputs: list[Any],
        *,
        lanes: int = 1,
        step: int = STEP,
    ) -> None:
        """Run the kernel, whose first argument are the `Turns`, over `count` items: with `lanes`
        threads for each on CUDA, and on a CPU over the pool, `step` items at a time."""
        turns = Turns()
        turns.count, turns.step = count, step
        if self.device != "cpu":
            dim = (count, lanes) if lanes > 1 else count
            wp.launch(kernel, dim=dim, inputs=[turns, *inputs], device=self.device)
            return
        turns.taken = over(np.zeros(1, np.int32), wp.int32)
        everything = [turns, *inputs]

        def work() -> None:
            wp.launch(kernel, dim=1, inputs=everything, device="cpu")

        if self._pool is None or count < LEAST_STEPS * step:
            work()
            return
        jobs = [self._pool.submit(work) for _ in range(self._threads - 1)]
        work()
        for job in jobs:
            if not job.cancel():  # one that has not begun yet has nothing left to do
                _await(job)

    def close(self) -> None:
        """Join the threads; launches after this run in the caller's."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
