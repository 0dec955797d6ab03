# SPDX-License-Identifier: Apache-2.0
"""Chunks whose keyframe is gone while another one stands in for it: they go along with that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
from jaxtyping import Float64

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Successor


class Placed(Protocol):
    """What lies in the world by a similarity."""

    world_from_chunk: Sim3


class Heirs:
    """Which of `chunks` hang on which keyframe, where that is not the one that gave them."""

    def __init__(self, chunks: Mapping[int, Placed]) -> None:
        self._chunks = chunks
        self._hanging: dict[int, dict[int, Sim3]] = {}

    def stand_in(self, id: int, successor: Successor) -> None:
        """Chunk `id`, and what hangs on its keyframe, goes along with `successor` from now on."""
        hanging = [id, *self._hanging.pop(id, ())]
        successor_from_world = successor.world_from_points.inverse()
        for chunk in hanging:
            if chunk in self._chunks:
                place = self._chunks[chunk].world_from_chunk
                own = self._hanging.setdefault(successor.id, {})
                own[chunk] = successor_from_world @ place

    def stand_alone(self, id: int) -> None:
        """Chunk `id` is new: it lies where its own keyframe does."""
        for own in self._hanging.values():
            own.pop(id, None)

    def hanging_on(self, id: int) -> list[int]:
        """Chunks of other keyframes that go along with this one."""
        found = self._hanging.get(id, {})
        return [chunk for chunk in found if chunk != id and chunk in self._chunks]

    def places(
        self,
        world_from_cam: Mapping[int, Float64[np.ndarray, "4 4"]],
        point_scale: Mapping[int, float],
    ) -> dict[int, Sim3]:
        """Where chunks lie when these keyframes lie and have grown so; one without a size keeps
        the one that it has since it was told."""
        found: dict[int, Sim3] = {}
        for number, pose in world_from_cam.items():
            place = Sim3.from_pose(pose, point_scale.get(number, self._size(number)))
            if number in self._chunks:
                found[number] = place
            for hanging, heir_from_chunk in self._hanging.get(number, {}).items():
                if hanging in self._chunks:
                    found[hanging] = place @ heir_from_chunk
        return found

    def _size(self, id: int) -> float:
        """How much keyframe `id` has grown since it was told, by how its chunk lies, or any that
        hangs on it: it may have none of its own."""
        hanging = self._hanging.get(id, {})
        for chunk in (id, *hanging):
            if chunk in self._chunks:
                size = self._chunks[chunk].world_from_chunk.scale
                return size / hanging[chunk].scale if chunk in hanging else size
        return 1.0

    def with_predecessors(self, ids: Iterable[int]) -> list[int]:
        """These keyframes and what hangs on them; nothing does from now on."""
        return [each for key in ids for each in (key, *self._hanging.pop(key, ()))]

    def arrays(self) -> dict[str, np.ndarray]:
        """What hangs on what, for a file: m heirs and chunks, and `heir_from_chunk`."""
        rows = [
            (heir, chunk, place)
            for heir, own in self._hanging.items()
            for chunk, place in own.items()
            if chunk in self._chunks
        ]
        return {
            "heirs": np.array([heir for heir, _, _ in rows], np.int64),
            "hanging": np.array([chunk for _, chunk, _ in rows], np.int64),
            "hanging_poses": np.array([place.pose for *_, place in rows]).reshape(-1, 4, 4),
            "hanging_scales": np.array([place.scale for *_, place in rows]),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Have hang what `arrays` said, and nothing else."""
        self._hanging.clear()
        columns = (arrays[name].tolist() for name in ("heirs", "hanging", "hanging_scales"))
        for heir, chunk, scale, pose in zip(*columns, arrays["hanging_poses"], strict=True):
            self._hanging.setdefault(heir, {})[chunk] = Sim3.from_pose(pose, scale)
