# SPDX-License-Identifier: Apache-2.0
"""The page's layers without a browser: what is over what, where clouds lie, splats."""

from __future__ import annotations

import re
from dataclasses import fields

from page_modules import needs_node, run_beside

from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.page_files import WEB
from worldsystem_viewer.splats.config import SplatsConfig

pytestmark = needs_node

# What layers find around them, and a stage that draws nothing.
_AROUND = """
import * as THREE from "./vendor/three.module.min.js";
globalThis.Worker = class { postMessage() {} };
const stage = {
  world: new THREE.Group(),
  renderer: { getPixelRatio: () => 1 },
  beforeDraw: [],
  redraw: () => {},
};
const tell = (found) => console.log(JSON.stringify(found));
const given = JSON.parse(process.argv[2]);
"""

_ORDERS = """
const { Measure } = await import("./measure.js");
const { SplatPool } = await import("./splat_pool.js");
const measure = new Measure(stage, { set: () => {} }, String);
const pool = new SplatPool(stage);
tell([measure.lines, measure.dots, pool.mesh].map((each) => each.renderOrder));
"""

# Points of keyframe 3, then its place, then a correction of it: what is drawn of it after each.
_CLOUD = """
const { PointsLayer } = await import("./points.js");
const layer = new PointsLayer(stage);
layer.group.visible = true;
const drawn = () => {
  stage.world.updateMatrixWorld();
  const seen = [];
  stage.world.traverseVisible((each) => {
    if (!each.isPoints) return;
    const places = each.geometry.getAttribute("position");
    const first = new THREE.Vector3().fromBufferAttribute(places, 0);
    seen.push(first.applyMatrix4(each.matrixWorld).toArray());
  });
  return seen;
};
const place = (x) => layer.frames({
  removed: [], id: [3], point_scale: [2],
  world_from_cam: new Float32Array([1, 0, 0, x, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]),
});
layer.update({
  keyframe_id: 3, step: 0.5, low: [1, 1, 1],
  points: new Uint16Array([2, 4, 6]), colours: new Uint8Array([9, 9, 9]),
});
const found = [drawn()];
for (const x of given) {
  place(x);
  found.push(drawn());
}
tell(found);
"""

# How long the sides of the splats' textures are when there is room for so many splats.
_TEXTURES = """
const { SplatPool } = await import("./splat_pool.js");
const pool = new SplatPool(stage);
while (pool.pages * 256 < given) pool.grow(2 * pool.pages);
tell([pool.words, pool.places].flatMap(({ image }) => {
  if (image.data.length !== 4 * image.width * image.height) throw new Error("not all is used");
  return [image.width, image.height];
}));
"""


def test_measured_lengths_are_drawn_after_the_splats_which_know_no_depth(tmp_path):
    lines, dots, splats = run_beside(WEB, tmp_path, _AROUND + _ORDERS)
    assert min(lines, dots) > splats


def test_a_cloud_is_drawn_once_its_keyframes_place_is_known(tmp_path):
    before, placed, corrected = run_beside(WEB, tmp_path, _AROUND + _CLOUD, [10.0, -5.0])
    assert before == []
    # its point is at low + step * (2, 4, 6) = (2, 3, 4), twice that in the world, beside the camera
    assert placed == [[14.0, 6.0, 8.0]]
    assert corrected == [[-1.0, 6.0, 8.0]]


def test_the_page_holds_as_many_points_as_a_server_may_be_told_to_send():
    """It lets go of what is more, and the server takes it for shown."""
    (limit,) = re.findall(r"^const MOST_POINTS = ([\d_]+);", (WEB / "points.js").read_text(), re.M)
    (most,) = (f.metadata["high"] for f in fields(ViewerConfig) if f.name == "cloud_points")
    assert most == int(limit)


def test_as_many_splats_as_can_be_kept_fit_into_textures(tmp_path):
    (most,) = (f.metadata["high"] for f in fields(SplatsConfig) if f.name == "most_splats")
    sides = run_beside(WEB, tmp_path, _AROUND + _TEXTURES, most)
    assert max(sides) <= 8192  # what a phone's graphics take; others take 16384 or more
