# SPDX-License-Identifier: Apache-2.0
"""The contract of a reconstruction back-end: frames in, events out.

`world` is the root frame: `scene` (scale unknown) or `map` (metric); `ScaleState` says which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from worldsystem_core.frames import Camera, Frame
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.hung_poses import NOTHING
from worldsystem_core.splats.gaussians import Gaussians


class TrackingState(Enum):
    """Whether the camera's pose is known."""

    INITIALISING = 0
    TRACKED = 1
    LOST = 2


class ScaleState(Enum):
    """What one unit of length is: arbitrary (`scene`) or one metre (`map`)."""

    SCENE = 0
    METRIC = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Pose:
    """Camera pose of one frame; every frame that is fed yields exactly one, possibly later.

    `keyframe_id` is the keyframe that the pose hangs on (`NOTHING`: none yet), so that a later
    correction of that keyframe corrects this pose too. `covariance`, where the back-end tells one,
    is that of (position [world units], rotation [rad]) about the world's axes. `submap` as in
    `Keyframe`.
    """

    frame_id: int
    stamp_ns: int
    world_from_cam: Float64[np.ndarray, "4 4"]
    confidence: float
    state: TrackingState
    keyframe_id: int = NOTHING
    scale: ScaleState = ScaleState.SCENE
    covariance: Float64[np.ndarray, "6 6"] | None = None
    submap: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Keyframe:
    """A frame with dense geometry: `pointmap` [world units] in its camera frame, image-aligned.

    `pointmap[v, u]` projects to pixel (u, v) of `camera`, which has the pointmap's size and no
    distortion; NaN marks unknown points, whose `confidence` is 0. Confidence lies in [0, 1].
    Keyframes of one `submap` share origin, axes and unit; a back-end that begins anew after a loss
    counts it up. `gaussians`, in the camera frame [world units], are there where the back-end makes
    some itself; they stay within the process.
    """

    id: int
    frame_id: int
    stamp_ns: int
    world_from_cam: Float64[np.ndarray, "4 4"]
    camera: Camera
    pointmap: Float32[np.ndarray, "h w 3"]
    confidence: Float32[np.ndarray, "h w"]
    rgb: UInt8[np.ndarray, "h w 3"]
    scale: ScaleState = ScaleState.SCENE
    submap: int = 0
    gaussians: Gaussians | None = None

    def __post_init__(self) -> None:
        for array in (self.world_from_cam, self.pointmap, self.confidence, self.rgb):
            array.flags.writeable = False


@dataclass(frozen=True)
class NewKeyframe:
    """A keyframe came into being."""

    keyframe: Keyframe


@dataclass(frozen=True, eq=False)
class MovedKeyframes:
    """Poses corrected after refinement or loop closure: keyframe id → new `world_from_cam`.

    `point_scale` is the factor from a keyframe's pointmap as it was last told to the one of now;
    a keyframe without one keeps the size it has. `scale` is given where the root itself changed
    from `scene` to `map`: then all keyframes are in the event. `world`, which whoever publishes it
    fills in, is what the root is where it did not change.
    """

    world_from_cam: dict[int, Float64[np.ndarray, "4 4"]]
    point_scale: dict[int, float] = field(default_factory=dict)
    scale: ScaleState | None = None
    world: ScaleState = ScaleState.SCENE


@dataclass(frozen=True, eq=False)
class Successor:
    """Keyframe `id`, which stands in for an older one, as it lies when it does: its
    `world_from_cam`, and the factor on its pointmap as first told."""

    id: int
    world_from_cam: Float64[np.ndarray, "4 4"]
    point_scale: float = 1.0

    @property
    def world_from_points(self) -> Sim3:
        """From the unit and frame of its pointmap as first told to the world."""
        return Sim3.from_pose(self.world_from_cam, self.point_scale)


@dataclass(frozen=True)
class RemovedKeyframes:
    """Keyframes withdrawn: whoever baked them must take them out again.

    One with a successor was not wrong: a newer keyframe shows the same from the same place. What
    was made of it may stay, and hangs on the successor from now on. `world` as in `MovedKeyframes`.
    """

    ids: tuple[int, ...]
    successors: dict[int, Successor] = field(default_factory=dict)
    world: ScaleState = field(default=ScaleState.SCENE, compare=False)

    @property
    def wrong(self) -> tuple[int, ...]:
        """Those that nothing stands in for."""
        return tuple(key for key in self.ids if key not in self.successors)

    @property
    def heirs(self) -> dict[int, int]:
        """The successor's id of each that has one."""
        return {key: successor.id for key, successor in self.successors.items()}


Event = Pose | NewKeyframe | MovedKeyframes | RemovedKeyframes


class ReconstructionBackend(Protocol):
    """Turns a video into poses and keyframes, one frame at a time, causally."""

    def feed(self, frame: Frame) -> list[Event]:
        """Take the next frame (one older than the last is refused); return what it caused."""
        ...

    def finish(self) -> list[Event]:
        """The stream has ended: return what was still held back (poses, a last keyframe)."""
        ...
