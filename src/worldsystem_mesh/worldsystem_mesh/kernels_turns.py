# SPDX-License-Identifier: Apache-2.0
"""How the threads of a launch share a range: on CUDA each has one item, on a CPU a few threads take
some at a time, so that one that starts late or is held up leaves its work to the others."""
# mypy: disable-error-code="untyped-decorator, misc, index"

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False, "max_unroll": 1, "fuse_fp": False})


@wp.struct
class Turns:
    """Items 0 to `count` - 1, taken `step` at a time, from `taken` on; without `taken` (on CUDA)
    each thread has the item of its own number."""

    taken: wp.array[wp.int32]
    count: wp.int32
    step: wp.int32


# Warp's own atomics are plain writes on a CPU; threads of one launch each take turns in one place.
TAKE = """
#ifdef __CUDA_ARCH__
    return step;
#else
    return __atomic_fetch_add(taken.data, step, __ATOMIC_RELAXED);
#endif
"""


@wp.func_native(TAKE)
def take(taken: wp.array[wp.int32], step: wp.int32) -> wp.int32:
    """Where the next `step` items begin; on a CPU only."""


@wp.func
def first_turn(turns: Turns, thread: wp.int32) -> wp.int32:
    """The first item of a thread; past the end when there is none."""
    if turns.taken.shape[0] == 0:
        return thread
    return take(turns.taken, turns.step)


@wp.func
def next_turn(turns: Turns, item: wp.int32) -> wp.int32:
    """The item after `item`; past the end when there is none."""
    if turns.taken.shape[0] == 0:
        return turns.count
    if (item + 1) % turns.step != 0:
        return item + 1
    return take(turns.taken, turns.step)
