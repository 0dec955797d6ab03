# SPDX-License-Identifier: Apache-2.0
"""Scores of one mask against its truth, as DAVIS measures (Perazzi et al., CVPR 2016)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool

BOUNDARY = 0.008  # of the picture's diagonal: how far two boundaries may be apart


def region(truth: Bool[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> float:
    """J: intersection over union; 1 when both are empty."""
    union = (truth | mask).sum()
    return float((truth & mask).sum() / union) if union else 1.0


def boundary(truth: Bool[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> float:
    """F: harmonic mean of how much of each boundary lies near the other one."""
    reach = int(np.ceil(BOUNDARY * np.hypot(*truth.shape)))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    edges = [_edge(truth), _edge(mask)]
    if not edges[0].any() and not edges[1].any():
        return 1.0
    near = [cv2.dilate(edge.astype(np.uint8), disk) > 0 for edge in edges]
    precision = (edges[1] & near[0]).sum() / max(edges[1].sum(), 1)
    recall = (edges[0] & near[1]).sum() / max(edges[0].sum(), 1)
    both = precision + recall
    return float(2.0 * precision * recall / both) if both else 0.0


def _edge(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return np.asarray(mask & ~inside)
