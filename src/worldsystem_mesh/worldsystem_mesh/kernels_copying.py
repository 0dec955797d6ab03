# SPDX-License-Identifier: Apache-2.0
"""Warp kernel that copies many short pieces of an array, one behind the other.

Twin in plain numpy: `reference.copied_pieces`.
"""
# mypy: disable-error-code="untyped-decorator, misc, index"

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False, "max_unroll": 1, "fuse_fp": False})

# On plain pointers: Warp's own language works out each element's address anew.
COPY_PIECE = """
    using namespace wp;
    const int64 bytes = row_bytes * int64(last.data[i] - first.data[i]);
    const uint8* from = source.data + row_bytes * int64(first.data[i]);
    uint8* to = target.data + row_bytes * int64(begin.data[i]);
    memcpy(to, from, size_t(bytes));
"""


@wp.func_native(COPY_PIECE)
def copy_piece(
    source: wp.array[wp.uint8],
    row_bytes: wp.int64,
    first: wp.array[wp.int32],
    last: wp.array[wp.int32],
    begin: wp.array[wp.int32],
    target: wp.array[wp.uint8],
    i: wp.int32,
) -> None:
    """Piece i."""


@wp.kernel
def copy_pieces(
    source: wp.array[wp.uint8],
    row_bytes: wp.int64,
    first: wp.array[wp.int32],
    last: wp.array[wp.int32],
    begin: wp.array[wp.int32],
    target: wp.array[wp.uint8],
) -> None:
    """Copy rows `first[i]` to `last[i]` - 1 of `source` to row `begin[i]` of `target` and on; rows
    are `row_bytes` wide."""
    copy_piece(source, row_bytes, first, last, begin, target, wp.tid())
