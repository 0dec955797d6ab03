# SPDX-License-Identifier: Apache-2.0
"""What the page makes of a sphere's blocks for the graphics: triangles, normals, bounds."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "mesh"))

from block_lab import NODE, VOXEL, blocks_of, sphere

from worldsystem_core.mesh_code.code import decode, encode
from worldsystem_core.surface import join_blocks
from worldsystem_viewer.page_files import WEB

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")
CENTRE = (0.3, -0.2, 0.1)  # [voxels]
RADIUS = 11.3

_JOIN = """
import { readFileSync } from "node:fs";
import { decodeMeshCode } from "./mesh_code.js";
import { joined } from "./mesh_geometry.js";
import { ClusterPlaces } from "./mesh_stitch.js";
const blocks = await decodeMeshCode(new Uint8Array(readFileSync(process.argv[2])));
const made = joined(blocks, new ClusterPlaces());
if (joined([], new ClusterPlaces()) !== null) throw new Error("something was made of nothing");
const arrayOf = (name) => [...made.attributes[name].array];
const [position, normal, color] = ["position", "normal", "color"].map(arrayOf);
const { boundingBox: box, boundingSphere: ball } = made;
console.log(JSON.stringify({
  position, normal, color, faces: [...made.index.array],
  low: box.min.toArray(), high: box.max.toArray(),
  centre: ball.center.toArray(), radius: ball.radius,
}));
"""


@pytest.fixture(scope="module")
def code() -> bytes:
    return encode(blocks_of(sphere(RADIUS, CENTRE), 2), VOXEL)


@pytest.fixture(scope="module")
def made(code, tmp_path_factory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("page")
    for path in (WEB / "marching_cubes.js", *WEB.glob("mesh_*.js")):
        shutil.copy(path, folder / path.name)
    shutil.copytree(WEB / "vendor", folder / "vendor")
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "join.js").write_text(_JOIN)
    (folder / "code").write_bytes(code)
    command = [str(NODE), str(folder / "join.js"), str(folder / "code")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return {name: np.array(value) for name, value in json.loads(done.stdout).items()}


def test_all_blocks_are_joined_to_one_surface(made, code):
    whole = join_blocks(list(decode(code)))
    np.testing.assert_array_equal(made["position"].reshape(-1, 3), whole.vertices)
    np.testing.assert_array_equal(made["faces"].reshape(-1, 3), whole.faces)
    srgb = whole.colours / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    colours = made["color"].reshape(-1, 4) / 65535
    np.testing.assert_allclose(colours[:, :3], linear, atol=1e-5)
    assert (colours[:, 3] == 1.0).all()


def test_normals_of_a_sphere_point_away_from_its_centre(made):
    outward = made["position"].reshape(-1, 3) / VOXEL - np.array(CENTRE)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    normals = made["normal"].reshape(-1, 4)[:, :3] / 127.0
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=0.01)  # bytes
    along = (normals * outward).sum(axis=1)
    assert along.min() > 0.9  # thin triangles of marching cubes lean by up to 20 degrees
    assert np.median(along) > 0.995


def test_vertices_at_one_place_have_one_normal_so_that_blocks_show_no_seam(made):
    places, which = np.unique(made["position"].reshape(-1, 3), axis=0, return_inverse=True)
    normals = made["normal"].reshape(-1, 4)[:, :3]
    assert len(places) < len(normals)  # blocks do share places
    first = np.zeros((len(places), 3), normals.dtype)
    first[which.reshape(-1)] = normals
    np.testing.assert_array_equal(first[which.reshape(-1)], normals)


def test_the_bounds_hold_the_surface(made):
    places = made["position"].reshape(-1, 3)
    np.testing.assert_allclose(made["low"], places.min(axis=0), rtol=1e-6)
    np.testing.assert_allclose(made["high"], places.max(axis=0), rtol=1e-6)
    distance = np.linalg.norm(places - made["centre"], axis=1)
    assert distance.max() <= made["radius"]


def test_the_code_that_warms_the_decoder_is_a_level_surface(tmp_path):
    for path in (WEB / "marching_cubes.js", *WEB.glob("mesh_*.js")):
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "warm.js").write_text(
        'import { levelCode } from "./mesh_warm.js";\n'
        'process.stdout.write(Buffer.from(await levelCode()).toString("base64"));\n'
    )
    command = [str(NODE), str(tmp_path / "warm.js")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    blocks = list(decode(base64.b64decode(done.stdout)))
    assert [block.index for block in blocks] == [(x, 0, 0) for x in range(32)]
    for block in blocks:
        assert len(block.faces) == 2 * 64  # two triangles for each of 8 × 8 cells
        assert len(np.unique(block.vertices[:, 2])) == 1
        assert 4.0 < block.vertices[0, 2] < 5.0
