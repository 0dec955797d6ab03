# SPDX-License-Identifier: Apache-2.0
"""Segmentation of the simulator's hamlet, seen from the air with exact and with noisy depth."""

from __future__ import annotations

import numpy as np
import pytest
from segment_scoring import iou_table

from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.reconstruction import Keyframe
from worldsystem_segment.segmenter import Segmenter

FAR_M = 80.0
THINGS = {"house", "barn", "car", "tree"}


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "recall"), [(0.0, 0.5), (0.01, 0.5)])  # measured 0.6
def test_more_than_half_of_the_houses_cars_and_trees_in_view_are_one_instance(
    noise, recall
) -> None:
    config, flight, renderer = _simulator()
    names = renderer.scene.class_names
    owner = np.arange(max(names) + 1)
    for instance in renderer.scene.instances:
        owner[instance.id] = instance.part_of or instance.id
    segmenter, random = Segmenter(), np.random.default_rng(0)
    found = asked = 0
    for index in range(12):
        pose = flight.world_from_cam(index * 3.2)
        depth, ids = renderer.render_truth(pose)
        depth = np.where(depth < FAR_M, depth, np.nan)
        depth = depth * (1.0 + noise * random.standard_normal(depth.shape))
        keyframe = Keyframe(
            id=index,
            frame_id=index,
            stamp_ns=index,
            world_from_cam=pose,
            camera=config.camera,
            pointmap=pointmap_from_depth(depth, config.camera),
            confidence=np.isfinite(depth).astype(np.float32),
            rgb=np.full((*depth.shape, 3), 128, np.uint8),
        )
        truth = np.where(np.isfinite(depth), owner[ids], 0)
        table = iou_table(truth, segmenter.feed(keyframe).labels)
        areas = np.bincount(truth.ravel())
        for thing in (i for i in np.flatnonzero(areas >= 150) if names.get(int(i)) in THINGS):
            asked += 1
            found += bool((table[thing, 1:] > 0.5).any())
    assert asked > 50
    assert found / asked > recall


def _simulator():
    from worldsystem_sim.config import SimConfig
    from worldsystem_sim.flight import flight
    from worldsystem_sim.render import Renderer
    from worldsystem_sim.scene import build_scene

    config = SimConfig(width=320, height=180, flight="demo")
    scene = build_scene(1)
    return config, flight("demo", 1, 40.0, scene), Renderer(scene, config.camera)
