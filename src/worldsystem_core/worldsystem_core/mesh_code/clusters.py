# SPDX-License-Identifier: Apache-2.0
"""The code of levels 1 and 2: which clusters there are, where in them their vertices lie, faces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32

from worldsystem_core.errors import ProtocolError
from worldsystem_core.mesh_code import colours
from worldsystem_core.mesh_code.container import (
    Head,
    SectionReader,
    blocks_section,
    differences,
    numbers_section,
    packed,
    take_blocks,
)
from worldsystem_core.mesh_code.lattice import take_colours
from worldsystem_core.mesh_code.sharing import first_of_each, place_keys
from worldsystem_core.mesh_levels import CLUSTER_VOXELS, CLUSTERS, canonical_faces
from worldsystem_core.surface import MeshBlock

STEPS = 16
"""Places of a vertex along a cluster's edge."""


def encode_clusters(blocks: Sequence[MeshBlock], level: int, voxel: float) -> bytes:
    """The code of blocks that are all of `level` 1 or 2; faces in canonical order.

    A cluster that several of the blocks have is written once, as the first of them has it.
    """
    side = CLUSTERS[level]
    index = np.array([block.index for block in blocks], np.int32).reshape(-1, 3)
    version = np.array([block.version for block in blocks], np.int32)
    numbers = [np.asarray(block.clusters, np.int64) for block in blocks]
    block = np.repeat(np.arange(len(blocks)), [len(number) for number in numbers])
    number = _joined(numbers, (0,), np.int64)
    mask = np.zeros((len(blocks), side**3), bool)
    mask[block, number] = True
    local = _local_places(number, side)
    written = _written(index, block, local, side)
    corner = _cluster_corners(index[block], local, level)
    vertices = _joined([b.vertices for b in blocks], (0, 3), np.float64)
    inside = (vertices / voxel - corner) * (STEPS / CLUSTER_VOXELS[level])
    steps = np.clip(np.floor(inside), 0, STEPS - 1).astype(np.uint8)[written]
    colour = colours.quantised(_joined([b.colours for b in blocks], (0, 3), np.uint8)[written])
    sections = [blocks_section(index, version)]
    sections.append(np.packbits(mask, axis=1, bitorder="little").reshape(-1))
    sections += [steps[:, axis] for axis in range(3)]
    sections += [differences(colour[:, channel]) for channel in range(3)]
    sections += _face_sections(blocks)
    return packed(Head(level=level, block_count=len(blocks), voxel=voxel), sections)


def decode_clusters(head: Head, reader: SectionReader) -> list[MeshBlock]:
    """The blocks as coded; raises `ProtocolError` when the code is damaged."""
    side, count = CLUSTERS[head.level], head.block_count
    index, version = take_blocks(reader, count)
    mask_bytes = (side**3 + 7) // 8
    mask = np.unpackbits(
        reader.take(count * mask_bytes).reshape(count, mask_bytes), axis=1, bitorder="little"
    )[:, : side**3]
    block, number = np.nonzero(mask)
    local = _local_places(number, side)
    key = place_keys(index, block, local, side - 1)
    first = first_of_each(key, np.zeros(len(key), bool))
    written = first == np.arange(len(key))
    total = int(written.sum())
    steps = np.stack([reader.take(total) for _ in range(3)], axis=-1)
    rgb = take_colours(reader, total)
    row = (np.cumsum(written) - 1)[first]
    corner = _cluster_corners(index[block], local, head.level)
    inside = (steps[row] + 0.5) * (CLUSTER_VOXELS[head.level] / STEPS)
    vertices = ((corner + inside) * head.voxel).astype(np.float32)
    start = np.searchsorted(block, np.arange(count + 1))
    faces, face_start = _take_faces(reader, start)
    reader.end()
    made = []
    for i, place in enumerate(index.tolist()):
        v = slice(int(start[i]), int(start[i + 1]))
        made.append(
            MeshBlock(
                index=(place[0], place[1], place[2]),
                version=int(version[i]),
                vertices=vertices[v],
                colours=rgb[row[v]],
                faces=faces[face_start[i] : face_start[i + 1]],
                level=head.level,
                clusters=number[v].astype(np.uint16),
            )
        )
    return made


def _local_places(number: Int[np.ndarray, "n"], side: int) -> Int[np.ndarray, "n 3"]:
    return np.stack([number % side, number // side % side, number // side**2], axis=-1)


def _written(
    index: Int32[np.ndarray, "b 3"],
    block: Int[np.ndarray, "n"],
    local: Int[np.ndarray, "n 3"],
    side: int,
) -> Bool[np.ndarray, "n"]:
    key = place_keys(index, block, local, side - 1)
    return np.asarray(first_of_each(key, np.zeros(len(key), bool)) == np.arange(len(key)))


def _cluster_corners(
    index: Int32[np.ndarray, "n 3"], local: Int[np.ndarray, "n 3"], level: int
) -> Float64[np.ndarray, "n 3"]:
    """Lowest corner of each cluster [voxels]."""
    cluster = index.astype(np.int64) * (CLUSTERS[level] - 1) + local
    width = CLUSTER_VOXELS[level]
    return np.asarray(width * cluster - (width - 1), dtype=np.float64)


def _face_sections(blocks: Sequence[MeshBlock]) -> list[np.ndarray]:
    """Faces of each smallest vertex: how many, and the steps to the two others."""
    starts = np.cumsum([0] + [len(block.vertices) for block in blocks])
    numbered = [block.faces + start for block, start in zip(blocks, starts[:-1], strict=True)]
    faces = canonical_faces(_joined(numbered, (0, 3), np.int64)).astype(np.int64)
    return [
        numbers_section(np.bincount(faces[:, 0], minlength=int(starts[-1]))),
        (faces[:, 1] - faces[:, 0]).astype(np.uint8),
        (faces[:, 2] - faces[:, 0]).astype(np.uint8),
    ]


def _take_faces(
    reader: SectionReader, start: Int[np.ndarray, "b+1"]
) -> tuple[Int32[np.ndarray, "F 3"], Int[np.ndarray, "b+1"]]:
    """All faces, numbered within their blocks, and where each block's begin."""
    counts = reader.take_numbers(int(start[-1]))
    if len(counts) and counts.max() > 1 << 14:
        raise ProtocolError("damaged mesh code: too many faces at one vertex")
    block = np.repeat(np.arange(len(start) - 1), np.diff(start))
    local = np.arange(int(start[-1])) - start[block]
    total = int(counts.sum())
    steps = [reader.take(total).astype(np.int64) for _ in range(2)]  # first: they may not be there
    face_block, lowest = np.repeat(block, counts), np.repeat(local, counts)
    faces = np.stack([lowest, lowest + steps[0], lowest + steps[1]], axis=-1)
    if (faces >= np.diff(start)[face_block][:, None]).any():
        raise ProtocolError("damaged mesh code: a face of a vertex that is not there")
    return faces.astype(np.int32), np.searchsorted(face_block, np.arange(len(start)))


def _joined(arrays: Sequence[np.ndarray], empty: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(empty, dtype)
