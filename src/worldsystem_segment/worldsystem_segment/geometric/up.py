# SPDX-License-Identifier: Apache-2.0
"""What is up: learned from the ground of each keyframe, since `scene` has no such axis."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Float64

KEPT = 64
PoseOf = Callable[[int], Float64[np.ndarray, "4 4"] | None]


class UpMemory:
    """The ground normals of the last keyframes, each in its camera frame so that it moves with it.

    In a metric `map` the z axis is up by definition and nothing is learned.
    """

    def __init__(self) -> None:
        self._up_cam: OrderedDict[int, Float32[np.ndarray, "3"]] = OrderedDict()

    def add(self, keyframe_id: int, up_cam: Float32[np.ndarray, "3"]) -> None:
        """Remember the ground normal of a keyframe; the oldest one goes."""
        self._up_cam[keyframe_id] = up_cam
        if len(self._up_cam) > KEPT:
            self._up_cam.popitem(last=False)

    def forget(self, keyframe_ids: set[int]) -> None:
        """Drop the normals of withdrawn keyframes."""
        for keyframe_id in keyframe_ids & self._up_cam.keys():
            del self._up_cam[keyframe_id]

    def hang_on(
        self, keyframe_id: int, heir: int, heir_from_keyframe: Float64[np.ndarray, "4 4"]
    ) -> None:
        """A normal goes on with another keyframe, unless that has its own."""
        up_cam = self._up_cam.pop(keyframe_id, None)
        if up_cam is not None and heir not in self._up_cam:
            self.add(heir, (heir_from_keyframe[:3, :3] @ up_cam).astype(np.float32))

    @property
    def keyframe_ids(self) -> set[int]:
        """The keyframes whose poses are needed."""
        return set(self._up_cam)

    def world(self, pose_of: PoseOf) -> Float32[np.ndarray, "3"] | None:
        """Mean up direction in the world, or None while no ground has been seen."""
        poses = ((pose_of(k), up) for k, up in self._up_cam.items())
        ups = [pose[:3, :3] @ up for pose, up in poses if pose is not None]
        if not ups:
            return None
        mean = np.mean(ups, axis=0)
        length = float(np.linalg.norm(mean))
        return (mean / length).astype(np.float32) if length > 0.5 else None
