# SPDX-License-Identifier: Apache-2.0
"""What the mesher says of itself: its counters, and what became of a correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


@dataclass(frozen=True)
class Correction:
    """What became of a request to move or remove keyframes.

    `applied` ones are on their way: the surface follows with the next calls of `extract`.
    `unreachable` keyframes were never fused or have left the store for good: their share of the
    surface stays where it is. `insignificant` ones moved less than `move_voxels`.
    """

    applied: tuple[int, ...]
    insignificant: tuple[int, ...] = ()
    unreachable: tuple[int, ...] = ()


class MeshStats(TypedDict):
    """Where the mesher stands; `voxel` [world units] is 0 before the first keyframe."""

    voxel: float
    sequence: int
    blocks: int
    refused_blocks: int
    forgotten_blocks: int
    paged_out_blocks: int
    paged_in_blocks: int
    mesh_blocks: int
    vertices: int
    triangles: int
    memory_bytes: int
    disk_bytes: int
    keyframes: int
    stored_keyframes: int
    evicted_keyframes: int
    unreachable_corrections: int
    empty_keyframes: int
    out_of_reach: int
    waiting_keyframes: int
    waiting_blocks: int
    last_integrate_ms: float
    last_extract_ms: float
    last_refusion_ms: float
    last_extracted_blocks: int
