# SPDX-License-Identifier: Apache-2.0
"""Blocks in lattice form of surfaces known by a formula, made cell by cell in plain Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

import numpy as np

from worldsystem_core.marching_cubes import EDGES, case_triangles
from worldsystem_core.surface import BlockIndex, MeshBlock, MeshDelta
from worldsystem_viewer.page_files import WEB

VOXEL = 0.05
NODE = shutil.which("node")
Distance = Callable[[np.ndarray], np.ndarray]


def sphere(radius: float, centre: tuple[float, float, float] = (0.3, -0.2, 0.1)) -> Distance:
    """Signed distance to a sphere [voxels]."""
    return lambda points: np.linalg.norm(points - np.array(centre), axis=-1) - radius


def bumpy(radius: float, seed: int = 0, rough: float = 0.4) -> Distance:
    """A sphere with noise on every lattice point."""

    def distance(points: np.ndarray) -> np.ndarray:
        mixed = points @ np.array([73856093.0, 19349663.0, 83492791.0]) + seed
        return sphere(radius)(points) + rough * np.sin(mixed)

    return distance


def blocks_of(distance: Distance, half: int, version: int = 1) -> list[MeshBlock]:
    """Every block with a surface among the (2 half)³ around the origin."""
    found = [block_of(distance, index, version) for index in product(range(-half, half), repeat=3)]
    return [block for block in found if block is not None]


def block_of(distance: Distance, index: BlockIndex, version: int = 1) -> MeshBlock | None:
    """One block's surface; None without any."""
    z, y, x = np.mgrid[:9, :9, :9]
    local = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    sdf = distance(8 * np.array(index) + local)
    cells, cases, edges, shares, faces = [], [], [], [], []
    number: dict[int, int] = {}
    for k, j, i in product(range(8), repeat=3):
        corners = [(i + (c & 1)) + 9 * (j + (c >> 1 & 1)) + 81 * (k + (c >> 2)) for c in range(8)]
        case = sum(1 << c for c, p in enumerate(corners) if sdf[p] < 0)
        if case in (0, 255):
            continue
        cells.append(corners[0])
        cases.append(case)
        for triangle in case_triangles()[case]:
            for low, high in (EDGES[edge] for edge in triangle):
                edge = 3 * corners[low] + (low ^ high).bit_length() - 1
                if edge not in number:
                    number[edge] = len(number)
                    edges.append(edge)
                    s0, s1 = sdf[corners[low]], sdf[corners[high]]
                    share = min(max(s0 / (s0 - s1), 0.001), 0.999)
                    shares.append(int(65536 * share))
                faces.append(number[edge])
    return _mesh_block(index, version, cells, cases, edges, shares, faces) if cells else None


def _mesh_block(index, version, cells, cases, edges, shares, faces) -> MeshBlock:
    order = np.argsort(edges)
    edges = np.array(edges, np.uint16)[order]
    shares = np.array(shares, np.uint16)[order]
    faces = np.argsort(order)[faces]
    p = edges.astype(int) // 3
    places = 8.0 * np.array(index) + np.stack([p % 9, p // 9 % 9, p // 81], axis=-1)
    places[np.arange(len(edges)), edges % 3] += shares / 65536
    return MeshBlock(
        index=index,
        version=version,
        vertices=(places * VOXEL).astype(np.float32),
        colours=colours_at(places),
        faces=np.array(faces, np.int32).reshape(-1, 3),
        edges=edges,
        shares=shares,
        cells=np.array(cells, np.uint16),
        cases=np.array(cases, np.uint8),
    )


def colours_at(places: np.ndarray) -> np.ndarray:
    """A colour for each place that changes along all axes, from black to white."""
    wave = np.sin(places @ np.array([[0.21, 0.1, 0.33], [0.3, 0.17, 0.05], [0.02, 0.4, 0.2]]))
    return np.rint(127.5 + 127.5 * wave).astype(np.uint8)


def delta(
    blocks: Iterable[MeshBlock], sequence: int, removed: tuple[BlockIndex, ...] = ()
) -> MeshDelta:
    """A delta that follows directly on the one before it."""
    blocks = tuple(blocks)
    return MeshDelta(
        stamp_ns=sequence,
        sequence=sequence,
        base_sequence=sequence - 1,
        block_size=8 * VOXEL,
        blocks=blocks,
        removed=removed,
        total_vertices=sum(len(block.vertices) for block in blocks),
        total_faces=sum(len(block.faces) for block in blocks),
        keyframe_count=sequence,
        capture_ns=sequence,
    )


def shuffled(blocks: Iterable[MeshBlock], seed: int = 1) -> list[MeshBlock]:
    """The blocks in another order."""
    blocks = list(blocks)
    return [blocks[i] for i in np.random.default_rng(seed).permutation(len(blocks))]


_DECODE = """
import { readFileSync } from "node:fs";
import { decodeMeshCode } from "./mesh_code.js";
const plain = (key, value) => (ArrayBuffer.isView(value) ? [...value] : value);
for (const name of process.argv.slice(2)) {
  const blocks = await decodeMeshCode(new Uint8Array(readFileSync(name)));
  console.log(JSON.stringify(blocks, plain));
}
"""


_READ = """
import { readFileSync } from "node:fs";
import { decodeMeshCode } from "./mesh_code.js";
const whole = ({ vertices, faces }) => faces.every((vertex) => 3 * vertex < vertices.length);
for (const name of process.argv.slice(2)) {
  const blocks = await decodeMeshCode(new Uint8Array(readFileSync(name))).catch(() => null);
  const answer = blocks === null ? "refused" : blocks.every(whole) ? "whole" : "broken";
  console.log(JSON.stringify(answer));
}
"""


_STITCH = """
import { readFileSync } from "node:fs";
import { decodeMeshCode } from "./mesh_code.js";
import { ClusterPlaces } from "./mesh_stitch.js";
const places = new ClusterPlaces();
const blocks = [];
for (const name of process.argv.slice(2)) {
  blocks.push(...(await decodeMeshCode(new Uint8Array(readFileSync(name)))));
}
for (const block of [...blocks, ...blocks]) places.add(block);
for (const block of blocks) places.remove(block);
const plain = (key, value) => (ArrayBuffer.isView(value) ? [...value] : value);
const drawn = blocks.map((b) => ({ vertices: places.vertices(b), faces: b.faces }));
console.log(JSON.stringify(drawn, plain));
for (const block of blocks) places.remove(block);
if (places.levels.some((level) => level?.size)) throw new Error("something was left behind");
"""


def decoded_by_node(codes: list[bytes], folder: Path) -> list[list[dict]]:
    """What the page's decoder makes of each of `codes`."""
    return run_in_node(_DECODE, codes, folder)


def read_by_node(codes: list[bytes], folder: Path) -> list[str]:
    """For each of `codes` `refused`, `whole`, or `broken`: a face of a vertex that is not there."""
    return run_in_node(_READ, codes, folder)


def stitched_by_node(codes: list[bytes], folder: Path) -> list[dict]:
    """Vertices and faces of all blocks of `codes` as the page draws them side by side."""
    return run_in_node(_STITCH, codes, folder)[0]


def run_in_node(script: str, codes: list[bytes], folder: Path) -> list:
    """The lines of JSON that `script` prints, given files of `codes`."""
    assert NODE is not None
    for path in (WEB / "marching_cubes.js", *WEB.glob("mesh_*.js")):
        shutil.copy(path, folder / path.name)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "decode.js").write_text(script)
    names = [str(folder / f"{i}.code") for i in range(len(codes))]
    for name, code in zip(names, codes, strict=True):
        Path(name).write_bytes(code)
    done = subprocess.run(
        [NODE, str(folder / "decode.js"), *names],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
