# SPDX-License-Identifier: Apache-2.0
"""Whether a registered frame's pose is to be believed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from worldsystem_core.geometry.se3 import rotation_angle_rad
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.slam3r.intrinsics import FocalEstimate, weiszfeld_focal_px
from worldsystem_slam3r.slam3r.pose import Placement, place
from worldsystem_slam3r.slam3r.shots import Shot

_RECOGNISED = 1.5
"""How much better than while following the points must fit before a lost frame counts as found."""
_MOST_WANTED = 0.9
_MOST_TURN_RAD = np.deg2rad(60.0)


class Judge:
    """Finds poses and believes those that pixels, geometry and confidence agree on.

    Where the camera is unknown it learns the focal length from the frames' own geometry.
    """

    def __init__(self, config: Slam3rConfig, picture_px: int) -> None:
        self._config = config
        self.focal = FocalEstimate(picture_px)
        self._focal_in: dict[int, FocalEstimate] = {}  # by scene; those of one lens share one

    def learn_focal(self, shot: Shot) -> None:
        """Take the focal length that a shot's own points tell, if nobody else does."""
        for focal_px in _own_focals_px([shot]):
            self.focal.add(focal_px)

    def learn_start(self, keys: Sequence[Shot], scenes: Iterable[int]) -> None:
        """As `learn_focal`, of a scene's start: the cut before it may be one to another lens. The
        other `scenes` that can be found again keep theirs, or what was known until now."""
        before = self.focal
        self.focal = before.with_start(_own_focals_px(keys))
        self._focal_in = {k: self._focal_in.get(k, before) for k in scenes}
        self._focal_in[keys[0].view.segment] = self.focal

    def forget_focal(self) -> None:
        """Pictures show another angle: of no scene is the focal length known any more."""
        self.focal.forget()
        self._focal_in.clear()

    def believes(
        self, shot: Shot, *, after: Placement | None = None, recognising: bool = False
    ) -> bool:
        """Find the pose of a shot and say whether to believe it.

        It may not lie too far from the one `after` which it comes. A lost camera that is
        recognised must fit better than one that is followed.
        """
        assert shot.sample is not None
        focal = self._focal_in.get(shot.view.segment, self.focal)  # through which it was filmed
        shot.camera = shot.picture.camera or focal.camera
        if shot.camera is None:
            self.learn_focal(shot)
            shot.camera = self.focal.camera
        if shot.camera is None:
            return False
        shot.placement = place(shot.sample, shot.camera)
        if shot.placement is None or shot.view.world_score < self._config.lost_confidence:
            return False
        wanted = self._config.inlier_share * (_RECOGNISED if recognising else 1.0)
        fit = min(shot.placement.inlier_share, shot.placement.agreement)
        believed = fit >= min(wanted, _MOST_WANTED) and not self._jumps(after, shot.placement)
        if believed:
            self.focal = focal
        return believed

    def _jumps(self, before: Placement | None, now: Placement) -> bool:
        """Whether the camera would have moved further than one does between two frames."""
        if before is None or not self._config.most_way:
            return False
        way = np.linalg.norm(now.scene_from_cam[:3, 3] - before.scene_from_cam[:3, 3])
        turn = rotation_angle_rad(before.scene_from_cam[:3, :3].T @ now.scene_from_cam[:3, :3])
        return bool(way > self._config.most_way * before.scale or turn > _MOST_TURN_RAD)


def _own_focals_px(shots: Sequence[Shot]) -> list[float]:
    """What the points of those shots tell whose camera is unknown."""
    told = []
    for shot in shots:
        if shot.picture.camera is None and shot.sample is not None and len(shot.sample):
            middle = 0.5 * (shot.picture.rgb.shape[0] - 1)
            told.append(weiszfeld_focal_px(shot.sample.local, shot.sample.uv - middle))
    return told
