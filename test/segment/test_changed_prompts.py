# SPDX-License-Identifier: Apache-2.0
"""What is followed when the prompt changes while the video goes on."""

from __future__ import annotations

import numpy as np
from oracle import OracleDetector, OracleMasks

from worldsystem_segment.learned.detection_thread import DetectionThread
from worldsystem_segment.learned.mask_tracker import MaskTracker

NAMES = {1: "person", 2: "dog", 3: "car"}


def _labels(tracker: MaskTracker) -> list[str]:
    return sorted(followed.label for followed in tracker.followed.values())


def test_what_nobody_asks_for_any_more_makes_way_for_what_is_asked_for() -> None:
    truth = np.zeros((60, 180), np.int64)
    for number in NAMES:
        truth[20:44, 60 * number - 45 : 60 * number - 20] = number
    picture = np.zeros((60, 180, 3), np.uint8)
    detections = DetectionThread(OracleDetector(lambda rgb: truth, NAMES), synchronous=True)
    tracker = MaskTracker(OracleMasks(lambda rgb: truth), detections, every=1, max_objects=2)
    for _ in range(16):
        tracker.step(picture, {"person": 0.3, "dog": 0.3})
    assert _labels(tracker) == ["dog", "person"]
    for _ in range(4):
        tracker.step(picture, {"car": 0.3, "dog": 0.3})
    assert _labels(tracker) == ["car", "dog"]
    assert tracker.refused == 0
    for _ in range(4):
        tracker.step(picture, dict.fromkeys(NAMES.values(), 0.3))
    assert _labels(tracker) == ["car", "dog"], "what is asked for makes way for nothing"
    assert tracker.refused > 0
