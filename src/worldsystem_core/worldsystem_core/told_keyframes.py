# SPDX-License-Identifier: Apache-2.0
"""Which keyframes a stage was told: all are told again when another stage has begun anew."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

import numpy as np
from jaxtyping import Float64

from worldsystem_core.keyframe_inbox import Told, ToldAgain
from worldsystem_core.reconstruction import Keyframe, MovedKeyframes, NewKeyframe

TOLD_AGAIN = "told_again"
"""Why a keyframe goes that the stage has: it is where it was."""
_SAME_PLACE = 1e-6


class ToldKeyframes:
    """Remembers the frame and the pose of each keyframe; a reconstruction that died may give a
    number again to another frame. Any thread may note a keyframe that another one did not."""

    def __init__(self) -> None:
        self._frames: dict[int, int] = {}
        self._poses: dict[int, Float64[np.ndarray, "4 4"]] = {}

    @property
    def ids(self) -> tuple[int, ...]:
        """Those that were told and not withdrawn."""
        return tuple(self._frames)

    def lacks(self, ids: Iterable[int]) -> bool:
        """Whether one of these was not told, or was withdrawn before it was told again."""
        return any(key not in self._frames for key in ids)

    def knows(self, keyframe: Keyframe) -> bool:
        """Whether this very keyframe was told before, wherever it lay."""
        return self._frames.get(keyframe.id) == keyframe.frame_id

    def lies_there(self, keyframe: Keyframe) -> bool:
        """Whether it was told before and lies where it lay: nothing is new."""
        return self.knows(keyframe) and np.allclose(
            self._poses[keyframe.id], keyframe.world_from_cam, atol=_SAME_PLACE
        )

    def poses(self, ids: Iterable[int]) -> dict[int, Float64[np.ndarray, "4 4"]]:
        """`world_from_cam` of those that were told, as told last."""
        return {known: self._poses[known] for known in ids if known in self._poses}

    def moved(
        self, world_from_cam: Mapping[int, Float64[np.ndarray, "4 4"]]
    ) -> dict[int, Float64[np.ndarray, "4 4"]]:
        """Those of these keyframes that were told before and lay elsewhere."""
        return {
            known: pose
            for known, pose in world_from_cam.items()
            if known in self._poses and not np.allclose(self._poses[known], pose, atol=_SAME_PLACE)
        }

    def nearest(self, ids: Iterable[int], among: Container[int] | None = None) -> dict[int, int]:
        """For each of these keyframes, the one told beside them whose camera is nearest, of those
        `among` if given; nothing where there is none."""
        chosen = {key for key in ids if key in self._poses}
        beside = self._poses.keys() - chosen
        others = sorted(key for key in beside if among is None or key in among)
        if not others:
            return {}
        eyes = np.array([self._poses[other][:3, 3] for other in others])
        gaps = {key: eyes - self._poses[key][:3, 3] for key in chosen}
        return {key: others[int((gap * gap).sum(axis=1).argmin())] for key, gap in gaps.items()}

    def note(self, event: Told) -> None:
        """Remember what an event tells."""
        if isinstance(event, NewKeyframe):
            keyframe = event.keyframe
            self._poses[keyframe.id] = keyframe.world_from_cam
            self._frames[keyframe.id] = keyframe.frame_id
        elif isinstance(event, (MovedKeyframes, ToldAgain)):
            moved = event.world_from_cam.items()
            self._poses.update({known: pose for known, pose in moved if known in self._frames})
        else:
            for gone in event.ids:
                self._frames.pop(gone, None)
                self._poses.pop(gone, None)

    def remember(self, id: int, frame_id: int, pose: Float64[np.ndarray, "4 4"]) -> None:
        """A process before was told this keyframe."""
        self._frames[id], self._poses[id] = frame_id, pose

    def arrays(self) -> dict[str, np.ndarray]:
        """What is remembered, for a file: n ids, their frames and poses (n, 4, 4)."""
        known = list(self._frames)
        return {
            "ids": np.array(known, np.int64),
            "frames": np.array([self._frames[key] for key in known], np.int64),
            "poses": np.array([self._poses[key] for key in known]).reshape(-1, 4, 4),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Remember what `arrays` gave, and nothing else."""
        ids = arrays["ids"].tolist()
        self._frames = dict(zip(ids, arrays["frames"].tolist(), strict=True))
        self._poses = dict(zip(ids, arrays["poses"], strict=True))
