# SPDX-License-Identifier: Apache-2.0
"""A stage may take every so many pictures; what it leaves out is accounted for."""

from __future__ import annotations

import numpy as np

from worldsystem.pipeline import Pipeline
from worldsystem_core.frames import Frame
from worldsystem_slam3r.config import Slam3rConfig


def test_reconstruction_takes_every_third_picture_and_counts_the_others():
    pipeline = Pipeline(Slam3rConfig(synchronous=True, frame_step=3))
    stamps = []
    for number in range(10):
        rgb = np.full((120, 160, 3), 100, np.uint8)
        step = pipeline.feed(Frame(id=number, stamp_ns=number * 10**8, rgb=rgb))
        stamps += [event.stamp_ns for event in step.events]
    stamps += [event.stamp_ns for event in pipeline.finish().events]
    account = pipeline.ledgers["slam3r"].state()
    assert sorted(stamps) == [0, 3 * 10**8, 6 * 10**8, 9 * 10**8]
    assert account.taken == 10
    assert account.dropped["skipped"] == 6
    assert pipeline.ledgers["slam3r"].violations == 0


def test_the_loop_shows_the_segmentation_every_picture(monkeypatch):
    pipeline = Pipeline(Slam3rConfig(synchronous=True, frame_step=2))
    seen = []
    monkeypatch.setattr(pipeline.segmenter, "look", lambda frame: seen.append(frame.id))
    for number in range(4):
        rgb = np.full((120, 160, 3), 100, np.uint8)
        pipeline.feed(Frame(id=number, stamp_ns=number * 10**8, rgb=rgb))
    pipeline.finish()
    assert seen == [0, 1, 2, 3]
