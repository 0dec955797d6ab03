# SPDX-License-Identifier: Apache-2.0
"""Masks of the last pictures, kept small until the keyframe of one of them comes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from worldsystem_segment.learned.mask_sessions import ObjectMask

KEPT_PICTURES = 64
KEPT_BYTES = 128 * 2**20  # of bits: twenty masks that fill a picture of 1080p are 5.2 MB


@dataclass(frozen=True, eq=False)
class _PackedMask:
    """An `ObjectMask` as bits of the rectangle around it, in a picture of `shape` (h, w)."""

    bits: UInt8[np.ndarray, "n"]
    where: tuple[slice, slice]
    shape: tuple[int, ...]
    presence: float


class KeptMasks:
    """Masks by picture. The oldest pictures make way, the newest one never; not thread-safe."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[int, dict[int, _PackedMask]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pictures)

    def __contains__(self, frame_id: int) -> bool:
        return frame_id in self._pictures

    def __getitem__(self, frame_id: int) -> dict[int, ObjectMask]:
        """The masks of a picture as they were given, by object."""
        return {i: _unpacked(packed) for i, packed in self._pictures[frame_id].items()}

    @property
    def held_bytes(self) -> int:
        """The size of all bits."""
        return sum(p.bits.nbytes for packed in self._pictures.values() for p in packed.values())

    def keep(self, frame_id: int, masks: Mapping[int, ObjectMask]) -> None:
        """Keep the masks of the newest picture, by object."""
        self._pictures[frame_id] = {i: _packed(mask) for i, mask in masks.items()}
        self._pictures.move_to_end(frame_id)
        while len(self) > KEPT_PICTURES or (len(self) > 1 and self.held_bytes > KEPT_BYTES):
            self._pictures.popitem(last=False)


def _packed(mask: ObjectMask) -> _PackedMask:
    rows = _extent(np.asarray(mask.mask.any(axis=1)))
    where = rows, _extent(np.asarray(mask.mask[rows].any(axis=0)))
    return _PackedMask(np.packbits(mask.mask[where]), where, mask.mask.shape, mask.presence)


def _unpacked(packed: _PackedMask) -> ObjectMask:
    mask = np.zeros(packed.shape, bool)
    part = mask[packed.where]
    part[:] = np.unpackbits(packed.bits, count=part.size).reshape(part.shape)
    return ObjectMask(mask, packed.presence)


def _extent(hit: Bool[np.ndarray, "n"]) -> slice:
    there = np.flatnonzero(hit)
    return slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 0)
