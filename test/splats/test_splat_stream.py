# SPDX-License-Identifier: Apache-2.0
"""A client that follows the deltas has the server's world; the budget holds; poses cost little."""

from __future__ import annotations

import re
import socket
import struct
import time
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from splat_scenes import CAMERA, rounds, wall_seen_from
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from worldsystem_core.errors import ConfigError, PortInUse
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.splats.delta import SplatAssembly, SplatDelta, SplatOperation
from worldsystem_core.splats.packed import pack
from worldsystem_core.splats.world import SplatWorld
from worldsystem_viewer.splats import frame_server
from worldsystem_viewer.splats.config import SplatsConfig
from worldsystem_viewer.splats.frame_server import FrameServer
from worldsystem_viewer.splats.page_feed import SplatShelf
from worldsystem_viewer.splats.stream import SplatStream

PIXELS = CAMERA.width * CAMERA.height


def same_world(client: SplatAssembly, world: SplatWorld) -> bool:
    return client.words.keys() == world.chunks.keys() and all(
        np.array_equal(client.words[n], pack(c.gaussians))
        and client.world_from_chunk[n] is c.world_from_chunk
        for n, c in world.chunks.items()
    )


def test_a_client_that_follows_the_deltas_has_the_whole_world():
    world, client = SplatWorld(voxel=0.01), SplatAssembly()
    stream = SplatStream(world, mbps=0, renew_s=5.0)
    for i in range(8):
        keyframe = wall_seen_from([0.3 * i, 0.25 * i, 0], i)
        world.add(keyframe)
        if i == 4:
            moved = keyframe.world_from_cam.copy()
            moved[0, 3] += 0.4
            world.move({2: moved}, {2: 1.1})
        if i == 6:
            world.remove([1])
        for delta in stream.take(float(i), i, ScaleState.SCENE):
            client.apply(delta)
    for delta in stream.take(9.0, 9, ScaleState.SCENE, everything=True):
        client.apply(delta)
    assert client.missed == 0
    assert same_world(client, world)


def test_a_correction_is_sent_as_poses_alone():
    world = SplatWorld()
    stream = SplatStream(world, mbps=0, renew_s=5.0)
    poses = {}
    for i in range(3):
        keyframe = wall_seen_from([20.0 * i, 0, 0], i)
        world.add(keyframe)
        poses[i] = keyframe.world_from_cam.copy()
        poses[i][0, 3] += 1.0
    stream.take(0.0, 0, ScaleState.SCENE)
    before = stream.sent_bytes
    world.move(poses)
    deltas = stream.take(1.0, 1, ScaleState.SCENE)
    assert [delta.operation for delta in deltas] == [SplatOperation.POSE] * 3
    assert stream.sent_bytes - before < 3 * 128


def test_a_client_that_missed_something_is_told_all_again():
    """Also of a chunk that went meanwhile."""
    world, client = SplatWorld(voxel=0.01), SplatAssembly()
    stream = SplatStream(world, mbps=0, renew_s=5.0)
    for i in range(4):
        world.add(wall_seen_from([20.0 * i, 0, 0], i))
    for delta in stream.take(0.0, 0, ScaleState.SCENE):
        client.apply(delta)
    moved = wall_seen_from([22.0, 0, 0], 2).world_from_cam
    world.move({2: moved})
    world.remove([1])
    lost = stream.take(1.0, 1, ScaleState.SCENE)
    world.add(wall_seen_from([90.0, 0, 0], 9))
    (told,) = stream.take(2.0, 2, ScaleState.SCENE)
    client.apply(told)
    assert client.missed == len(lost) == 2
    assert not same_world(client, world)
    stream.tell_again()
    for delta in stream.take(3.0, 3, ScaleState.SCENE):
        client.apply(delta)
    assert same_world(client, world)


def test_the_shelf_notices_a_gap_and_begins_anew_with_number_one():
    def told(sequence: int, chunk: int) -> SplatDelta:
        return replace(delta, sequence=sequence, chunk=chunk)

    world = SplatWorld()
    world.add(wall_seen_from([0, 0, 0], 0))
    (delta,) = SplatStream(world, mbps=0, renew_s=5.0).take(0.0, 0, ScaleState.SCENE)
    shelf = SplatShelf()
    assert shelf.take_lack(), "nobody knows what was told before"
    assert not shelf.take_lack(), "once is enough"
    for sequence, chunk in ((1, 0), (2, 5)):
        shelf.apply(told(sequence, chunk))
    assert not shelf.take_lack()
    shelf.apply(told(4, 6))
    assert set(shelf.newest()) == {0, 5, 6}
    assert shelf.take_lack()
    shelf.apply(told(1, 7))
    assert set(shelf.newest()) == {7}
    assert not shelf.take_lack()


def test_a_client_misses_no_splat_while_chunks_are_joined():
    world, client = SplatWorld(voxel=1e-4), SplatAssembly()
    stream = SplatStream(world, mbps=0.001, renew_s=5.0)
    rounds(world, 0, 5)
    for delta in stream.take(0.0, 0, ScaleState.SCENE, everything=True):
        client.apply(delta)
    assert same_world(client, world)
    shown = sum(map(len, client.words.values()))
    rounds(world, 5, 6)
    assert len(world.chunks) < len(client.words)
    for delta in stream.take(1.0, 1, ScaleState.SCENE):  # there is no room for those that grew
        client.apply(delta)
    assert sum(map(len, client.words.values())) >= shown
    for delta in stream.take(1.1, 1, ScaleState.SCENE, everything=True):
        client.apply(delta)
    assert same_world(client, world)
    assert client.missed == 0


def test_the_budget_is_kept_and_what_waits_comes_later():
    world = SplatWorld()
    chunk_bits = 8 * 16 * PIXELS
    stream = SplatStream(world, mbps=chunk_bits / 1e6, renew_s=5.0)  # one such chunk a second
    for i in range(10):
        world.add(wall_seen_from([20.0 * i, 0, 0], i))
    first = stream.take(0.0, 0, ScaleState.SCENE)
    assert len(first) == 2  # the burst of two seconds
    assert first[0].chunk == 9  # the newest before the others
    later = [len(stream.take(float(t), t, ScaleState.SCENE)) for t in range(1, 12)]
    assert max(later) <= 2
    assert len(first) + sum(later) == 10
    assert stream.waiting == 0


def test_a_chunk_that_lost_little_waits_before_it_is_sent_again():
    world = SplatWorld(voxel=0.01)
    stream = SplatStream(world, mbps=0, renew_s=5.0)
    world.add(wall_seen_from([0, 0, 0], 0))
    stream.take(0.0, 0, ScaleState.SCENE)
    world.add(wall_seen_from([0, 2.3, 0], 1))
    lost = 1 - len(world.chunks[0]) / PIXELS
    assert 0 < lost < 0.1
    assert [d.chunk for d in stream.take(1.0, 0, ScaleState.SCENE)] == [1]
    assert [d.chunk for d in stream.take(6.0, 0, ScaleState.SCENE)] == [0]


@pytest.fixture
def frames():
    server = FrameServer(SplatsConfig(frames=True, frames_port=0))
    server.start()
    yield server
    server.stop()


def test_a_client_of_frames_gets_each_keyframe_in_the_form_it_knows(frames):
    with connect(f"ws://127.0.0.1:{frames.port}") as client:
        frames.put(wall_seen_from([0, 0, 0], 0))
        message = msgpack.unpackb(client.recv(timeout=10.0))
    count = message["num_gaussians"]
    assert message["type"] == "gaussians"
    assert message["timestamp"].startswith("1970-01-01T00:00:00")
    assert message["sh_degree"] == 0
    assert count == PIXELS
    widths = {"means": 3, "scales": 3, "rotations": 4, "colors": 3, "opacities": 1}
    arrays = {name: np.frombuffer(message[name], "<f4").reshape(count, -1) for name in widths}
    assert {name: array.shape[1] for name, array in arrays.items()} == widths
    assert np.allclose(arrays["means"][:, 1], 3.0, atol=1e-4)
    assert np.allclose(np.linalg.norm(arrays["rotations"], axis=1), 1.0, atol=1e-5)
    assert message["scales_are"] == "linear"
    assert arrays["scales"].min() > 0


def test_a_client_of_frames_that_takes_nothing_loses_its_place(frames, monkeypatch):
    monkeypatch.setattr(frame_server, "_PATIENCE", struct.pack("ll", 0, 300_000))
    with connect(f"ws://127.0.0.1:{frames.port}", max_queue=1) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deadline = time.monotonic() + 20.0
        while not frames._clients and time.monotonic() < deadline:
            time.sleep(0.01)
        assert frames._clients
        for number in range(1000):
            frames.put(wall_seen_from([0, 0, 0], number))
            time.sleep(0.02)
            if not frames._clients:
                break
        assert not frames._clients


def test_clients_that_went_have_no_place_though_no_keyframe_comes(frames, monkeypatch):
    monkeypatch.setattr(frame_server, "_WAIT_S", 0.05)
    frames.put(wall_seen_from([0, 0, 0], 0))
    for _ in range(25):
        with connect(f"ws://127.0.0.1:{frames.port}") as client:
            client.recv(timeout=10.0)
        deadline = time.monotonic() + 10.0
        while frames._clients and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not frames._clients


def test_a_client_that_comes_late_gets_the_newest_frame_only(frames):
    for i in range(5):
        frames.put(wall_seen_from([float(i), 0, 0], i))
    with connect(f"ws://127.0.0.1:{frames.port}") as client:
        first = msgpack.unpackb(client.recv(timeout=10.0))
        means = np.frombuffer(first["means"], "<f4").reshape(-1, 3)
        assert abs(np.median(means[:, 0]) - 4.0) < 0.1
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.2)


@pytest.mark.parametrize("host", ["203.0.113.7", "host..name"])
def test_a_host_of_frames_that_is_none_of_this_machine_is_named(host):
    server = FrameServer(SplatsConfig(frames=True, host=host, frames_port=0))
    with pytest.raises(ConfigError, match=rf"{re.escape(host)}:0.*splats\.host"):
        server.start()
    server.stop()


def test_a_taken_port_of_frames_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = FrameServer(SplatsConfig(frames=True, frames_port=taken.getsockname()[1]))
        with pytest.raises(PortInUse, match="frames_port"):
            server.start()
        server.stop()


def test_a_frame_has_no_more_gaussians_than_are_asked_for():
    assert 0 < len(frame_server.frame_gaussians(wall_seen_from([0, 0, 0], 0), 70)) <= 70


def test_another_sites_page_is_shown_no_frames(frames):
    url = f"ws://127.0.0.1:{frames.port}"
    with pytest.raises(InvalidStatus, match="403"):
        connect(url, origin="https://example.org", proxy=None).__enter__()
    with connect(url, origin="http://127.0.0.1:3000", proxy=None) as client:
        frames.put(wall_seen_from([0, 0, 0], 0))
        assert msgpack.unpackb(client.recv(timeout=10.0))["type"] == "gaussians"


def test_a_page_of_this_machine_is_shown_frames_by_whichever_of_its_names(frames):
    url = f"ws://127.0.0.1:{frames.port}"
    for origin in ("http://localhost:3000", "http://[::1]:3000"):
        with connect(url, origin=origin, proxy=None) as client:
            frames.put(wall_seen_from([0, 0, 0], 0))
            assert msgpack.unpackb(client.recv(timeout=10.0))["type"] == "gaussians"
    with pytest.raises(InvalidStatus, match="403"):
        connect(url, origin="http://localhost.example.org", proxy=None).__enter__()
