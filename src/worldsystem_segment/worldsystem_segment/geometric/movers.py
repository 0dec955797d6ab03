# SPDX-License-Identifier: Apache-2.0
"""What moves by itself: optical flow beyond what the camera's own motion explains.

The picture before is warped to where a rigid world would show it now (pointmap and relative pose);
dense flow (DIS, Kroeger et al., ECCV 2016) between it and the present picture is then zero on all
that stands still.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from worldsystem_core.geometry.se3 import inverse
from worldsystem_segment.geometric.pixel_kernels import seen_at
from worldsystem_segment.geometric.up import PoseOf
from worldsystem_segment.objects.normals import planes_of
from worldsystem_segment.objects.view import View

MIN_TEXTURE = 3.0  # grey levels a pixel; flow on flatter parts is a guess
MAX_PHOTO_ERROR = 25.0  # grey levels: flow that does not explain the picture is no evidence
MIN_EVIDENCE_PX = 20
MEDIAN_PX = 500  # more pixels hardly change the median


@dataclass(frozen=True, eq=False)
class EgoFlow:
    """Flow that ego-motion does not explain, where it can be trusted [px of the thinned picture].

    `px_per_unit` turns a sideways move at a pixel's depth into pixels.
    """

    residual: Float32[np.ndarray, "h w 2"]
    trusted: Bool[np.ndarray, "h w"]
    focal_px: float
    depth: Float32[np.ndarray, "h w"]

    def motion_of(self, pixels: Int64[np.ndarray, "n"]) -> float | None:
        """How far the pixels' thing went sideways since the view before, relative to its depth.

        The median over its trusted pixels [scene units per unit of depth]; None with too few.
        """
        good = pixels[self.trusted.reshape(-1)[pixels]]
        if len(good) < MIN_EVIDENCE_PX or len(good) < 0.15 * len(pixels):
            return None
        some = good[:: max(1, len(good) // MEDIAN_PX)]
        flow = np.median(self.residual.reshape(-1, 2)[some], axis=0)
        return float(np.hypot(*flow)) / self.focal_px


class MoverFinder:
    """Keeps the view before and compares each new one with it."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._before: tuple[View, UInt8[np.ndarray, "h w"]] | None = None

    def compare(self, view: View) -> EgoFlow | None:
        """Flow since the view before; None for the first view and where they share too little."""
        grey = cv2.cvtColor(view.rgb, cv2.COLOR_RGB2GRAY)
        before, self._before = self._before, (view, grey)
        if before is None or before[0].valid.shape != view.valid.shape:
            return None
        where, shared = _seen_before(view, before[0])
        if np.count_nonzero(shared) < 0.1 * shared.size:
            return None
        warped = cv2.remap(
            before[1], where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        expected = np.where(shared, warped, grey)
        flow = self._flow.calc(grey, expected, None)
        trusted = shared & _textured(grey) & _explained(grey, expected, flow)
        still = np.median(flow[::4, ::4][trusted[::4, ::4]], axis=0) if trusted.any() else 0.0
        return EgoFlow(flow - np.float32(still), trusted, view.camera.fx, view.depth)

    def follow(self, pose_of: PoseOf) -> None:
        """Poses changed: the view before lies where its keyframe does now, if that is still there.

        Nothing else of it counts: its points are not looked at any more.
        """
        if self._before is None:
            return
        view, grey = self._before
        pose = pose_of(view.keyframe_id)
        self._before = None if pose is None else (replace(view, world_from_cam=pose), grey)

    def forget(self) -> None:
        """Compare the next view with nothing."""
        self._before = None


def _seen_before(
    view: View, before: View
) -> tuple[Float32[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]]:
    """Pixel of the view before that shows each point, and which points it saw at that depth."""
    before_from_now = (inverse(before.world_from_cam) @ view.world_from_cam).astype(np.float32)
    size = (before.camera.width, before.camera.height)
    where, inside = seen_at(planes_of(view.points_cam), before_from_now[:3], before.lens, size)
    return np.asarray(where), np.asarray(inside)


def _textured(grey: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    # the smaller eigenvalue of the structure tensor asks for texture in both directions
    weakest = cv2.cornerMinEigenVal(grey.astype(np.float32), 7)
    return np.asarray(weakest > (MIN_TEXTURE * 0.25) ** 2)


def _explained(
    grey: UInt8[np.ndarray, "h w"], expected: UInt8[np.ndarray, "h w"], flow: np.ndarray
) -> Bool[np.ndarray, "h w"]:
    there = flow.copy()
    there[..., 0] += np.arange(grey.shape[1], dtype=np.float32)
    there[..., 1] += np.arange(grey.shape[0], dtype=np.float32)[:, None]
    there = cv2.remap(expected, there, None, cv2.INTER_LINEAR)
    return np.asarray(cv2.absdiff(grey, there) < MAX_PHOTO_ERROR)
