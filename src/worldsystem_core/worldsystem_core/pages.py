# SPDX-License-Identifier: Apache-2.0
"""Arrays in pages of their own, beside the heap: for room to grow into, and for what is kept long.

What is kept among arrays that come and go leaves holes in the heap, and the heap grows around
them; a page of its own goes back to the system with what lies in it.
"""

from __future__ import annotations

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


def _pages(size_bytes: int) -> mmap.mmap:
    return mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
