# SPDX-License-Identifier: Apache-2.0
"""Arrays on a GPU go to other threads by reference, and nobody reads what is not written yet."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest
import torch

from worldsystem_core.cuda_array import CudaArray, DeviceCopies

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
A_WHILE = 400_000_000  # clock cycles: about a quarter of a second
VALUES = 1 << 20


def read_only(seed: int = 0) -> np.ndarray:
    picture = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)
    picture.flags.writeable = False
    return picture


def written_late(value: float) -> torch.Tensor:
    """Memory that holds -1 and will hold `value` once the current stream has worked for a while."""
    tensor = torch.full((VALUES,), -1.0, device="cuda")
    torch.cuda.synchronize()
    torch.cuda._sleep(A_WHILE)
    return tensor.fill_(value)


def in_another_thread(work) -> list:
    """What `work` gives in a thread that queues on a stream of its own."""
    results: list = []

    def run() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            results.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20.0)
    return results


def test_a_tensor_in_main_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="on a CUDA device, not on cpu"):
        CudaArray(torch.zeros(3))


def test_a_copy_for_the_cpu_is_the_callers_own() -> None:
    picture, copies = read_only(), DeviceCopies()
    mine, yours = copies.on(picture, "cpu"), copies.on(picture, "cpu")
    mine.zero_()
    assert np.array_equal(yours.numpy(), picture)
    assert len(copies) == 0


@pytest.mark.gpu
@needs_cuda
def test_a_reader_on_another_stream_waits_for_the_writer() -> None:
    handed_on = CudaArray(written_late(7.0))
    [total] = in_another_thread(lambda: handed_on.on().sum().item())
    assert total == 7.0 * VALUES


@pytest.mark.gpu
@needs_cuda
def test_without_the_order_a_reader_would_see_what_was_there_before() -> None:
    """The check above would notice: the bare tensor is read before it is written."""
    bare = written_late(7.0)
    [total] = in_another_thread(lambda: bare.sum().item())
    assert total == -1.0 * VALUES


@pytest.mark.gpu
@needs_cuda
def test_handing_on_and_reading_keep_no_thread_waiting() -> None:
    stream = torch.cuda.Stream()

    def read(array: CudaArray) -> torch.Tensor:
        with torch.cuda.stream(stream):
            return array.on() * 2

    tensor = torch.full((VALUES,), -1.0, device="cuda")
    read(CudaArray(tensor))  # memory and kernels are at hand from now on
    torch.cuda.synchronize()
    start = time.perf_counter()
    torch.cuda._sleep(A_WHILE)
    late = read(CudaArray(tensor.fill_(7.0)))
    queued_s = time.perf_counter() - start
    torch.cuda.synchronize()
    assert queued_s < 0.5 * (time.perf_counter() - start)
    assert late[0].item() == 14.0


@pytest.mark.gpu
@needs_cuda
def test_memory_is_not_used_again_while_a_reader_is_at_work() -> None:
    """The reader sleeps before it reads; all references are gone and the writer wants memory."""
    handed_on = CudaArray(torch.full((VALUES,), 7.0, device="cuda"))
    reader = torch.cuda.Stream()
    with torch.cuda.stream(reader):
        tensor = handed_on.on()
        torch.cuda._sleep(A_WHILE)
        total = tensor.sum()
    address = tensor.data_ptr()
    del tensor, handed_on
    others = [torch.full((VALUES,), -1.0, device="cuda") for _ in range(4)]
    assert address not in [other.data_ptr() for other in others]
    reader.synchronize()
    assert total.item() == 7.0 * VALUES


@pytest.mark.gpu
@needs_cuda
def test_the_copy_in_main_memory_is_made_once_and_waits_for_the_array_alone() -> None:
    handed_on = CudaArray(torch.full((VALUES,), 7.0, device="cuda"))
    torch.cuda._sleep(4 * A_WHILE)  # what the caller is busy with
    start = time.perf_counter()
    host = handed_on.host()
    copied_s = time.perf_counter() - start
    torch.cuda.synchronize()
    assert copied_s < 0.5 * (time.perf_counter() - start)
    assert (host == 7.0).all()
    assert not host.flags.writeable
    assert handed_on.host() is host


@pytest.mark.gpu
@needs_cuda
def test_other_libraries_take_it_by_reference_and_in_order() -> None:
    handed_on = CudaArray(written_late(7.0))

    def read() -> tuple[int, float]:
        tensor = torch.from_dlpack(handed_on)
        return tensor.data_ptr(), tensor.sum().item()

    [(address, total)] = in_another_thread(read)
    assert address == handed_on.on().data_ptr()
    assert total == 7.0 * VALUES


@pytest.mark.gpu
@needs_cuda
def test_warp_reads_it_where_it_is() -> None:
    wp = pytest.importorskip("warp")
    handed_on = CudaArray(written_late(7.0))
    array = wp.from_dlpack(handed_on)
    assert array.ptr == handed_on.on().data_ptr()
    assert (array.numpy() == 7.0).all()


@pytest.mark.gpu
@needs_cuda
def test_readers_of_one_array_share_one_upload() -> None:
    picture, copies = read_only(), DeviceCopies()
    first = copies.on(picture, "cuda")
    [second] = in_another_thread(lambda: copies.on(picture, "cuda:0"))
    assert first.data_ptr() == second.data_ptr()
    assert np.array_equal(first.cpu().numpy(), picture)


@pytest.mark.gpu
@needs_cuda
def test_a_copy_goes_with_its_array_and_the_oldest_make_room() -> None:
    copies = DeviceCopies(most=3)
    pictures = [read_only(seed) for seed in range(4)]
    addresses = [copies.on(picture, "cuda").data_ptr() for picture in pictures]
    assert len(copies) == 3
    assert copies.on(pictures[3], "cuda").data_ptr() == addresses[3]
    del pictures[1:]
    gc.collect()
    assert len(copies) == 0
    assert np.array_equal(copies.on(pictures[0], "cuda").cpu().numpy(), pictures[0])


@pytest.mark.gpu
@needs_cuda
def test_an_array_that_may_still_change_is_copied_each_time() -> None:
    picture, copies = read_only().copy(), DeviceCopies()
    before = copies.on(picture, "cuda")
    picture[:] = 0
    assert copies.on(picture, "cuda").sum().item() == 0
    assert before.sum().item() > 0
    assert len(copies) == 0
