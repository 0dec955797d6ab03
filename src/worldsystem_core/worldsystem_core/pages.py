# SPDX-License-Identifier: Apache-2.0
"""Arrays in pages of their own, beside the heap: for room to grow into, and for what is kept long.

What is kept among arrays that come and go leaves holes in the heap, and the heap grows around
them; a page of its own goes back to the system with what lies in it.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from typing import Any

import numpy as np

_ALIGNMENT = 64


def unwritten_zeros(shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros that take memory only once they are written. With a heap that keeps what was freed
    (`freed_memory`) `np.zeros` writes the first 64 MB of them."""
    size_bytes = math.prod(np.atleast_1d(shape).tolist()) * np.dtype(dtype).itemsize
    if not size_bytes:
        return np.zeros(shape, dtype)
    return np.frombuffer(_pages(size_bytes), dtype).reshape(shape)


def blank_rows(rows: np.ndarray) -> None:
    """Make zeros of `rows`, which are contiguous and part of `unwritten_zeros`: whole pages among
    them go back to the system until they are written again."""
    plain = rows.reshape(-1).view(np.uint8)
    start, stop = plain.ctypes.data, plain.ctypes.data + plain.nbytes
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    last = stop // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first and _forget_pages(first, last - first):
        plain[: first - start] = 0
        plain[last - start :] = 0
    else:
        plain[:] = 0


def in_own_pages(*arrays: np.ndarray) -> list[np.ndarray]:
    """Copies of `arrays`, all in the same pages, which live as long as any of them. They come from
    the heap where the system gives this process no more mappings (Linux: 65,530)."""
    sizes = [-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays]
    try:
        pages = _pages(sum(sizes) or 1)
    except OSError:
        return [array.copy() for array in arrays]
    at, copies = 0, []
    for array, size in zip(arrays, sizes, strict=True):
        copy = np.ndarray(array.shape, array.dtype, buffer=pages, offset=at)
        copy[...] = array
        copies.append(copy)
        at += size
    return copies


def _forget_pages(address: int, size_bytes: int) -> bool:
    """Have these private pages be zeros without memory; False where the system cannot."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return False
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return bool(advise(address, size_bytes, mmap.MADV_DONTNEED) == 0)


def _pages(size_bytes: int) -> mmap.mmap:
    return mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
