# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs: a computation of many small kernels, recorded once per shape and then replayed.

Needs torch; for the networks of any stage.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

LOG = logging.getLogger(__name__)
MOST_SHAPES = 24
"""Shapes recorded per computation; any further one runs unrecorded, so that memory is bounded."""
WARM_UP_RUNS = 2
_RECORDING = threading.Lock()
"""torch bears one recording at a time in a process, and has them all on one stream."""

Computation = Callable[..., tuple[Tensor, ...]]


class Recording(NamedTuple):
    """A graph with the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: tuple[Tensor, ...]
    constants: Constants


class Constants(TorchFunctionMode):
    """Tensors that a computation makes of plain numbers, such as sizes: made once, then copied.

    What comes from main memory cannot be recorded; a copy of what is on the device can.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[str, Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        wishes = kwargs or {}
        if func not in (torch.tensor, torch.as_tensor) or not _plain(*args):
            return func(*args, **wishes)
        key = f"{args} {wishes}"
        if key not in self._made:
            self._made[key] = func(*args, **wishes)
        return self._made[key].clone()


def _plain(*values: Any) -> bool:
    """Whether these are numbers, or lists or tuples of them."""
    within = [list(v) if isinstance(v, list | tuple) else [] for v in values]
    return all(isinstance(v, bool | int | float | list | tuple) for v in values) and all(
        _plain(*inner) for inner in within
    )


class Replayed:
    """`computation(setting, *tensors)` by replay; the same results, in fresh memory.

    `setting` is whatever else the computation depends on. For one thread and one CUDA stream.
    Where recording fails the computation runs plainly from then on, and a warning says so.
    """

    def __init__(self, computation: Computation) -> None:
        self._computation = computation
        self._recordings: dict[Hashable, Recording] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._usable = True

    def __call__(self, setting: Hashable, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The computation's outputs for inputs of any shape."""
        key = (setting, tuple((tensor.shape, tensor.dtype) for tensor in tensors))
        if key not in self._recordings and not self._record(key, setting, tensors):
            return self._computation(setting, *tensors)
        recording = self._recordings[key]
        for kept, given in zip(recording.inputs, tensors, strict=True):
            kept.copy_(given)
        recording.graph.replay()
        return tuple(output.clone() for output in recording.outputs)

    def _record(self, key: Hashable, setting: Hashable, tensors: tuple[Tensor, ...]) -> bool:
        """Whether there is a recording for `key` now."""
        if not self._usable or len(self._recordings) >= MOST_SHAPES:
            return False
        if not _RECORDING.acquire(blocking=False):
            return False  # nobody waits for another thread's; a later call records
        try:
            self._recordings[key] = self._recorded(setting, tensors)
        except RuntimeError as error:
            self._usable = False
            LOG.warning("CUDA graphs cannot be recorded here (%s); running without them", error)
        finally:
            _RECORDING.release()
        return self._usable

    def _recorded(self, setting: Hashable, tensors: tuple[Tensor, ...]) -> Recording:
        inputs = [tensor.clone() for tensor in tensors]
        constants = Constants()
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside), constants:
            for _ in range(WARM_UP_RUNS):
                self._computation(setting, *inputs)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # other threads use the device meanwhile: only what this one does is recorded and judged
        with (
            # torch itself leaves its own stream current where a recording fails
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
            constants,
        ):
            outputs = self._computation(setting, *inputs)
        return Recording(graph, inputs, outputs, constants)
