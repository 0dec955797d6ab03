# SPDX-License-Identifier: Apache-2.0
"""Arrays on a GPU handed from thread to thread: by reference, against a way through main memory.

Needs a CUDA device; `benchmarks/gpu.sh` runs it. Readers queue on streams of their own, as stages
do. Measured is until the reader has the array's sum, so that everybody does the same work.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from harness import QUICK, Benchmark

from worldsystem_core.cuda_array import CudaArray, DeviceCopies

ROUNDS = 20 if QUICK else 200
READERS = 3
SHAPES = {"pointmap_224": (224, 224, 3), "picture_1080p": (1080, 1920, 3)}
WORK_CYCLES = 5_000_000  # about 3 ms that the writer's stream still has before it


def main() -> None:
    """One reader of an array that is on the device; three readers of one that is not."""
    bench = Benchmark("cuda")
    with ThreadPoolExecutor(READERS) as pool:
        for name, shape in SHAPES.items():
            tensor = torch.rand(shape, device="cuda")
            ways = _by_reference(tensor, pool), _by_host(tensor, pool)
            _compare(bench, f"{name}_handed_on", *ways, "down to main memory and up again")
        picture = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
        picture.flags.writeable = False
        ways = _one_upload(picture, pool), _three_uploads(picture, pool)
        _compare(bench, "three_readers", *ways, "each reader uploads the picture")
    tensor = torch.rand(SHAPES["picture_1080p"], device="cuda")
    ways = partial(_held_up, partial(CudaArray, tensor)), partial(_held_up, torch.cuda.synchronize)
    _compare(bench, "writer_held_up", *ways, "waits for the device before it hands on")
    bench.write()


def _compare(
    bench: Benchmark, name: str, ours: Callable[[], float], naive: Callable[[], float], note: str
) -> None:
    """Both in turn, the same number of times; `ours` and `naive` return microseconds."""
    for _ in range(10):
        ours(), naive()
    pairs = [(ours(), naive()) for _ in range(ROUNDS)]
    fast, slow = (list(times) for times in zip(*pairs, strict=True))
    bench.add(f"{name}_us", fast, "us", note=torch.cuda.get_device_name())
    bench.add(f"{name}_naive_us", slow, "us", note=note)
    bench.add(f"{name}_speedup", statistics.median(slow) / statistics.median(fast), "x")


def _timed(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - start)


def _on_own_stream(read: Callable[[], torch.Tensor]) -> float:
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        return read().sum().item()


def _by_reference(tensor: torch.Tensor, pool: ThreadPoolExecutor) -> Callable[[], float]:
    def hand_on() -> float:
        def work() -> None:
            array = CudaArray(tensor)
            pool.submit(_on_own_stream, array.on).result()

        return _timed(work)

    return hand_on


def _by_host(tensor: torch.Tensor, pool: ThreadPoolExecutor) -> Callable[[], float]:
    def hand_on() -> float:
        def work() -> None:
            array = tensor.cpu().numpy()
            upload = lambda: torch.from_numpy(array).to("cuda")  # noqa: E731
            pool.submit(_on_own_stream, upload).result()

        return _timed(work)

    return hand_on


def _one_upload(picture: np.ndarray, pool: ThreadPoolExecutor) -> Callable[[], float]:
    def read() -> float:
        copies = DeviceCopies()
        return _timed(lambda: _all_read(pool, lambda: copies.on(picture, "cuda")))

    return read


def _three_uploads(picture: np.ndarray, pool: ThreadPoolExecutor) -> Callable[[], float]:
    def read() -> float:
        return _timed(lambda: _all_read(pool, lambda: torch.tensor(picture).to("cuda")))

    return read


def _all_read(pool: ThreadPoolExecutor, read: Callable[[], torch.Tensor]) -> None:
    jobs = [pool.submit(_on_own_stream, lambda: read().float()) for _ in range(READERS)]
    for job in jobs:
        job.result()


def _held_up(hand_on: Callable[[], object]) -> float:
    """Of the writer's thread alone, with work still queued on its stream."""
    torch.cuda.synchronize()
    torch.cuda._sleep(WORK_CYCLES)  # type: ignore[no-untyped-call]
    start = time.perf_counter()
    hand_on()
    return 1e6 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
