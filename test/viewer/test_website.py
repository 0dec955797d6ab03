# SPDX-License-Identifier: Apache-2.0
"""The old website's clients: full and changed surface, read back by others' readers."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator

import DracoPy
import numpy as np
import pytest
import trimesh
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from world_for_viewers import delta, ground_block, growing_ground

from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.page_server import PageServer


@pytest.fixture
def server() -> Iterator[PageServer]:
    made = PageServer(ViewerConfig(web_port=0, website_mesh=True, mesh_mbps=0.0))
    made.start()
    yield made
    made.stop()


def joined(server: PageServer, query: str = ""):
    url = f"ws://127.0.0.1:{server.port}/ws/mesh{query}"
    return connect(url, proxy=None, max_size=None, close_timeout=0.2, origin="https://site.example")


def told(socket) -> tuple[dict, np.ndarray, np.ndarray]:
    """The next message, and the vertices and colours in it."""
    message = json.loads(socket.recv(10))
    data = base64.b64decode(message["data"])
    if not data:
        return message, np.zeros((0, 3)), np.zeros((0, 3))
    if message["compression"] == "draco":
        mesh = DracoPy.decode(data)
        return message, mesh.points, mesh.colors
    mesh = trimesh.load(io.BytesIO(data), file_type="ply", process=False)
    return message, mesh.vertices, mesh.visual.vertex_colors[:, :3]


@pytest.mark.parametrize("query", ["", "?format=ply"])
def test_the_whole_surface_comes_first_and_then_what_changed(server, query):
    for step in growing_ground()[:4]:
        server.mesh(step)
    with joined(server, query) as socket:
        message, vertices, _ = told(socket)
        assert message["type"] == "full"
        assert message["face_count"] == 4 * 12 * 288
        truth = np.concatenate([b.vertices for s in growing_ground()[:4] for b in s.blocks])
        np.testing.assert_allclose(vertices.min(axis=0), truth.min(axis=0), atol=1e-3)
        np.testing.assert_allclose(vertices.max(axis=0), truth.max(axis=0), atol=1e-3)
        server.mesh(delta([ground_block(0, 9)], 50, removed=((1, 0, 0),)))
        message, vertices, colours = told(socket)
        assert message["type"] == "delta"
        assert sorted(message["regions_updated"]) == [[0, 0, 0], [0, 0, 2]]
        assert message["face_count"] == (16 - 1 + 1) * 288  # both regions whole, as they now are
        assert len(vertices) == len(colours)
        gone = tuple((0, 0, k) for k in (9,))
        server.mesh(delta([], 51, removed=gone))
        message, vertices, _ = told(socket)
        assert (message["regions_updated"], len(vertices)) == ([[0, 0, 2]], 0)


def test_regions_come_one_by_one_when_asked_for(server):
    server.mesh(growing_ground()[0])
    with joined(server, "?parts=1") as socket:
        assert told(socket)[0]["type"] == "full"
        server.mesh(growing_ground()[1])
        kinds = [told(socket)[0] for _ in range(3)]
        assert {kind["type"] for kind in kinds} == {"region"}
        assert sorted(kind["regions_updated"][0] for kind in kinds) == [
            [0, 0, 0],
            [1, 0, 0],
            [2, 0, 0],
        ]


def test_regions_go_however_much_is_removed_at_once(server):
    server.mesh(growing_ground()[0])
    with joined(server, "?format=ply") as socket:
        assert told(socket)[0]["face_count"] == 12 * 288
        row = tuple((column, 0, 0) for column in range(12))
        elsewhere = tuple((column, 9, 9) for column in range(65_536))
        server.mesh(delta([], 2, removed=(*row, *elsewhere)))
        message, vertices, _ = told(socket)
        assert sorted(message["regions_updated"]) == [[0, 0, 0], [1, 0, 0], [2, 0, 0]]
        assert len(vertices) == 0


def test_it_is_served_only_when_wanted(page_server):
    with pytest.raises(InvalidStatus, match="404"):
        joined(page_server).__enter__()
