# SPDX-License-Identifier: Apache-2.0
"""The page's stage: which way the world is turned, and what the view reaches."""

from __future__ import annotations

import numpy as np
import pytest
from page_modules import needs_node, run_beside
from scipy.spatial.transform import Rotation

from worldsystem_viewer.page_files import WEB

pytestmark = needs_node

# Stages without a renderer, each turned so that the given directions are up, one after the other.
_TURN = """
import * as THREE from "./vendor/three.module.min.js";
import { Stage } from "./scene.js";
const turned = (ups) => {
  const stage = Object.create(Stage.prototype);
  Object.assign(stage, { world: new THREE.Group(), redraw: () => {} });
  for (const up of ups) stage.turnUpright(up);
  return stage.world.quaternion.toArray();
};
console.log(JSON.stringify(JSON.parse(process.argv[2]).map(turned)));
"""
# The near plane after the view was at each of the given distances from a place amid a large map: as
# the second after tells, and at the end of a glide to there.
_REACH = """
import * as THREE from "./vendor/three.module.min.js";
import { Stage } from "./scene.js";
const { radius, distances } = JSON.parse(process.argv[2]);
const side = radius / Math.sqrt(3);
const corner = new THREE.Vector3(side, side, side);
const box = new THREE.Box3(corner.clone().negate(), corner);
const place = new THREE.Vector3(0.5 * radius, 0, 0);
const stage = Object.create(Stage.prototype);
Object.assign(stage, {
  world: new THREE.Group(),
  camera: new THREE.PerspectiveCamera(50, 1, 0.01, 5000),
  controls: { target: place.clone(), enabled: true },
  redraw: () => {},
});
const told = distances.map((distance) => {
  stage.camera.position.copy(place).add(new THREE.Vector3(0, 0, distance));
  stage.reach(box);
  const { near, far } = stage.camera;
  stage.camera.position.set(0, 0, radius);
  stage.reach(box);
  stage.focus(place, distance);
  for (const now of [0, 300, 10_000]) stage.glide(now);
  return { near, far, glided: stage.camera.near, rest: stage.camera.position.distanceTo(place) };
});
console.log(JSON.stringify(told));
"""
# How dense a stage's pixels are after it was moved to monitors of these densities, one by one.
_MONITORS = """
import * as THREE from "./vendor/three.module.min.js";
import { Stage } from "./scene.js";
const [first, ...others] = JSON.parse(process.argv[2]);
let listening = [];
Object.assign(globalThis, {
  devicePixelRatio: first,
  matchMedia: (query) => ({
    addEventListener: (_, heard) => listening.push({ query, heard }),
  }),
});
let drawn = 0;
const stage = Object.create(Stage.prototype);
Object.assign(stage, {
  element: { clientWidth: 640, clientHeight: 480 },
  renderer: { setPixelRatio: (ratio) => { drawn = ratio; }, setSize: () => {} },
  camera: new THREE.PerspectiveCamera(),
  redraw: () => {},
});
stage.resize();
stage.watchPixels();
const found = [drawn];
for (const density of others) {
  const before = `(resolution: ${globalThis.devicePixelRatio}dppx)`;
  globalThis.devicePixelRatio = density;
  const told = listening.filter(({ query }) => query === before);
  listening = [];
  for (const { heard } of told) heard();
  found.push(drawn);
}
console.log(JSON.stringify(found));
"""
LEVEL = np.array([0.0, -1.0, 0.0])  # up for a first camera that is held level: its y points down


def turned(folder, *stories) -> Rotation:
    """For each story of directions that were up: stage_from_world at its end."""
    told = [[list(map(float, up)) for up in story] for story in stories]
    return Rotation.from_quat(run_beside(WEB, folder, _TURN, told))


def leaning(angle_rad: float, towards_rad: float) -> np.ndarray:
    """Up for a first camera that was held askew."""
    axis = np.array([np.cos(towards_rad), 0.0, np.sin(towards_rad)])
    return Rotation.from_rotvec(angle_rad * axis).apply(LEVEL)


def test_up_points_up_on_the_screen_whatever_it_is(tmp_path):
    ups = np.random.default_rng(3).normal(size=(20, 3))
    ups = np.vstack([ups / np.linalg.norm(ups, axis=1)[:, None], LEVEL, -LEVEL, np.eye(3)[2]])
    stage_from_world = turned(tmp_path, *[[up] for up in ups])
    for up, rotation in zip(ups, stage_from_world, strict=True):
        np.testing.assert_allclose(rotation.apply(up), [0, 1, 0], atol=1e-6)


@pytest.mark.parametrize("angle_rad", [0.055, 0.5])
def test_the_world_turns_by_no_more_than_the_change_of_up(tmp_path, angle_rad):
    """Around the level camera, where the first estimates of a phone held upright lie."""
    ways = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    before, *after = turned(tmp_path, [LEVEL], *[[LEVEL, leaning(angle_rad, w)] for w in ways])
    for rotation in after:
        assert (rotation * before.inv()).magnitude() == pytest.approx(angle_rad, abs=1e-6)
    # from one askew to the other side is twice as far, and not once round
    across = turned(
        tmp_path, *[[leaning(angle_rad, w), leaning(angle_rad, w + np.pi)] for w in ways]
    )
    for first, rotation in zip(after, across, strict=True):
        assert (rotation * first.inv()).magnitude() == pytest.approx(2 * angle_rad, abs=1e-6)


def test_a_map_whose_z_is_up_is_seen_with_x_to_the_right_and_y_ahead(tmp_path):
    (stage_from_map,) = turned(tmp_path, [[0, 0, 1]])
    np.testing.assert_allclose(
        stage_from_map.as_matrix(), [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-6
    )


def test_what_one_looks_at_from_nearby_is_not_cut_however_large_the_map(tmp_path):
    radius = 150.0
    distances = [300.0, 20.0, 1.0, 0.3]
    told = run_beside(WEB, tmp_path, _REACH, {"radius": radius, "distances": distances})
    for distance, view in zip(distances, told, strict=True):
        assert view["rest"] == pytest.approx(distance)
        most = 1.001 * distance / 300  # a hair more for rounding
        assert 0 < view["near"] <= most
        assert 0 < view["glided"] <= most
        assert view["far"] > distance + 2 * radius  # all of the map
    assert told[0]["near"] == pytest.approx(radius / 300), "depth keeps its steps in the whole view"


def test_a_view_on_the_very_place_that_it_looks_at_keeps_a_depth(tmp_path):
    (view,) = run_beside(WEB, tmp_path, _REACH, {"radius": 10.0, "distances": [0.0]})
    assert 0 < view["near"] < 1e-4


def test_the_view_is_as_dense_as_the_monitor_that_it_is_moved_to(tmp_path):
    densities = [1, 2, 1.25, 3]
    drawn = run_beside(WEB, tmp_path, _MONITORS, densities)
    assert drawn == [1, 2, 1.25, 2], "more than twice is seen by nobody"
