# SPDX-License-Identifier: Apache-2.0
"""A known object: the printed edge of an ArUco marker, measured in a keyframe's own geometry."""

from __future__ import annotations

import math

import cv2
import numpy as np

from worldsystem_core.reconstruction import Keyframe
from worldsystem_slam3r.graph.features import points_at

SMALLEST_PX = 12.0
SIGMA = 0.03
"""Relative error of an edge measured in dense depth, at the least."""


class MarkerRuler:
    """Finds markers (dictionary 4×4, 50 of them) whose edge is `edge_m` long."""

    def __init__(self, edge_m: float) -> None:
        self._edge_m = edge_m
        dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
        self._detector = cv2.aruco.ArucoDetector(dictionary)

    def log_scale(self, keyframe: Keyframe) -> tuple[float, float] | None:
        """Logarithm of metres per unit of the keyframe's points, and its standard deviation.

        None where no marker is large enough or its points are unknown. The corners are taken on
        the plane through the marker's known points: depth is unknown at the edge of paper.
        """
        grey = np.asarray(cv2.cvtColor(keyframe.rgb, cv2.COLOR_RGB2GRAY))
        found, _, _ = self._detector.detectMarkers(grey)
        logs = [value for quad in found if (value := self._of_quad(keyframe, quad[0])) is not None]
        if not logs:
            return None
        return float(np.median(logs)), SIGMA / math.sqrt(len(logs))

    def _of_quad(self, keyframe: Keyframe, quad: np.ndarray) -> float | None:
        edges_px = np.linalg.norm(quad - np.roll(quad, 1, axis=0), axis=1)
        if edges_px.min() < SMALLEST_PX:
            return None
        shares = np.stack(np.meshgrid(*[np.linspace(0.15, 0.85, 7)] * 2), axis=-1).reshape(-1, 2)
        a, b = shares[:, :1], shares[:, 1:]
        inside = (1 - a) * ((1 - b) * quad[0] + b * quad[3]) + a * ((1 - b) * quad[1] + b * quad[2])
        points = points_at(keyframe.pointmap, keyframe.confidence, inside.astype(np.float32))
        points = points[np.isfinite(points[:, 2])].astype(np.float64)
        if len(points) < 8:
            return None
        middle = np.median(points, axis=0)
        normal = np.linalg.svd(points - middle)[2][2]
        camera = keyframe.camera
        rays = np.column_stack(
            [(quad - (camera.cx, camera.cy)) / (camera.fx, camera.fy), np.ones(4)]
        )
        facing = rays @ normal
        if np.abs(facing).min() < 1e-6:
            return None
        corners = rays * (middle @ normal / facing)[:, None]
        edges = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
        return math.log(self._edge_m / float(np.median(edges)))
