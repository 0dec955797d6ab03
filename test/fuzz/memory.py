# SPDX-License-Identifier: Apache-2.0
"""How much memory a parser may take for how many bytes."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Iterator

_PACKED = 1100  # zlib makes at most 1032 bytes of one


@contextlib.contextmanager
def at_most(megabytes: float, data: bytes, *, each: int = _PACKED) -> Iterator[None]:
    """Python and numpy may take so much at once inside, and `each` bytes for each of `data`."""
    tracemalloc.start(1)
    try:
        yield
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    limit_bytes = megabytes * 2**20 + each * len(data)
    assert peak_bytes < limit_bytes, f"{peak_bytes} bytes for {len(data)}"
