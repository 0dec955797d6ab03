# SPDX-License-Identifier: Apache-2.0
"""The page's server, seen by clients that are late, slow, too many, or from another site."""

import re
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack

import numpy as np
import pytest
from page_reader import PageReader
from websockets.exceptions import InvalidStatus
from world_for_viewers import (
    camera_pose,
    delta,
    ground_block,
    growing_ground,
    keyframe,
    map_objects,
    picture,
    pose_event,
    track_frame,
)

from worldsystem_core.errors import ConfigError, PortInUse
from worldsystem_core.reconstruction import MovedKeyframes, RemovedKeyframes
from worldsystem_core.surface import MeshAssembly
from worldsystem_viewer import page_line
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.page_server import PageServer
from worldsystem_viewer.protocol import (
    ImageUpdate,
    KeyframesUpdate,
    ObjectsUpdate,
    PointsUpdate,
    PoseUpdate,
    StatusUpdate,
    TracksUpdate,
)


def same_surface(got: MeshAssembly, wanted: MeshAssembly) -> bool:
    if got.blocks.keys() != wanted.blocks.keys():
        return False
    return all(
        np.array_equal(getattr(got.blocks[index], part), getattr(wanted.blocks[index], part))
        for index in wanted.blocks
        for part in ("vertices", "colours", "faces")
    )


def assembled(deltas) -> MeshAssembly:
    assembly = MeshAssembly()
    for step in deltas:
        assert assembly.apply(step)
    return assembly


def test_a_late_page_gets_the_whole_world(page_server):
    deltas = growing_ground()
    deltas.append(delta([ground_block(0, 0, version=2)], 13, removed=((1, 0, 1), (99, 0, 0))))
    for step in deltas:
        page_server.mesh(step)
    for n in range(50):
        page_server.pose(pose_event(n, n / 50))
    page_server.keyframe(keyframe(3, 0.2))
    page_server.objects(map_objects())
    page_server.tracks(track_frame(0.5))
    page_server.status({"fps": 29.5})
    wanted = assembled(deltas)
    page = PageReader(page_server.port, layers=["points", "image"])
    page.read_until(lambda p: same_surface(p.assembly, wanted) and len(p.path) == 50)
    page.read_until(lambda p: {StatusUpdate, ObjectsUpdate, PointsUpdate} <= p.newest.keys())
    np.testing.assert_allclose(page.path[-1], camera_pose(49 / 50)[:3, 3], rtol=1e-6)
    assert page.newest[ObjectsUpdate].label == ["mound", "crate"]
    assert page.newest[StatusUpdate].values["fps"] == 29.5
    assert page.newest[KeyframesUpdate].id.tolist() == [3]
    assert page.newest[TracksUpdate].box_px.shape == (1, 4)
    assert page.newest[PoseUpdate].frame_id == 49
    cloud = page.newest[PointsUpdate]
    seen = keyframe(3, 0.2).pointmap.reshape(-1, 3)
    gaps = np.abs(cloud.low + cloud.step * cloud.points[:50, None] - seen[64:]).max(axis=2)
    assert len(cloud.points) > 500
    assert gaps.min(axis=1).max() < 1e-4  # each is one of the keyframe's own, 16 bits of its extent
    page.close()


def test_a_late_page_gets_what_is_nearest_first(page_server):
    from world_for_viewers import BLOCK

    for step in growing_ground():
        page_server.mesh(step)
    for k in range(60):  # several messages of them
        blocks = [ground_block(i, 20 + k) for i in range(12)]
        page_server.mesh(delta(blocks, 13 + k))
    pose = pose_event(1, 0.0)
    pose.world_from_cam[:3, 3] = (3.0, 0.0, 60 * BLOCK)
    page_server.pose(pose)
    page = PageReader(page_server.port)
    page.read_until(lambda p: len(p.assembly.blocks) > 0)
    rows = {index[2] for index in page.assembly.blocks}
    assert min(rows) > 20
    assert {58, 59, 60, 61} <= rows
    page.read_until(lambda p: len(p.assembly.blocks) == 72 * 12)
    assert page.assembly.sequence == 72 * 12
    page.close()


def test_what_comes_later_follows_as_changes(page_server):
    deltas = growing_ground()
    page_server.mesh(deltas[0])
    page = PageReader(page_server.port)
    page.read_until(lambda p: same_surface(p.assembly, assembled(deltas[:1])))
    for step in deltas[1:]:
        page_server.mesh(step)
    page.read_until(lambda p: same_surface(p.assembly, assembled(deltas)))
    page.close()


def test_a_page_that_comes_back_gets_only_what_it_missed(page_server):
    deltas = growing_ground()
    for step in deltas[:10]:
        page_server.mesh(step)
    page = PageReader(page_server.port)
    page.read_until(lambda p: same_surface(p.assembly, assembled(deltas[:10])))
    page.close()
    for step in deltas[10:]:
        page_server.mesh(step)
    again = PageReader(page_server.port, page.hello.session, page.assembly.sequence)
    again.read_until(lambda p: len(p.assembly.blocks) == 24)
    assert again.hello.resumed
    assert all(index[2] >= 10 for index in again.assembly.blocks)
    again.close()


@pytest.mark.parametrize(
    "wish", [("other", 3), ("", -1), ("same", 10**9), ("same", "x"), ("same", 0)]
)
def test_a_page_with_a_strange_past_starts_afresh(page_server, wish):
    page_server.mesh(growing_ground()[0])
    session = page_server._clients._shown.session + "-raw" if wish[0] == "same" else wish[0]
    page = PageReader(page_server.port, session, wish[1])
    page.read_until(lambda p: len(p.assembly.blocks) == 12)
    assert not page.hello.resumed
    page.close()


def test_a_page_that_stops_reading_does_not_slow_another(page_server):
    stuck = PageReader(page_server.port)
    healthy = PageReader(page_server.port)
    healthy.read_one()
    puts_s, waits_s = 0.0, 0.0
    for n in range(40):
        step = delta([ground_block(i, i % 5, n) for i in range(60)], n + 1)
        begun = time.monotonic()
        page_server.mesh(step)
        puts_s += time.monotonic() - begun
        frame_id = 1000 + n
        page_server.pose(pose_event(frame_id, n / 40))
        healthy.read_until(
            lambda p, f=frame_id: PoseUpdate in p.newest and p.newest[PoseUpdate].frame_id == f
        )
        waits_s += time.monotonic() - begun
    assert page_server.client_count == 2
    # one wait for the page that takes nothing lasts longer than all that was done
    assert puts_s < page_line._TIMEOUT_S
    assert waits_s < page_line._TIMEOUT_S
    healthy.close()
    stuck.close()


def test_a_slow_page_skips_to_the_newest_surface(page_server):
    """600 versions of one block are one block for a page that comes back from being hidden."""
    page = PageReader(page_server.port)
    page.read_one()
    page.hide(page_server)
    for n in range(600):
        page_server.mesh(delta([ground_block(0, n % 3, n)], n + 1))
    page.tell(visible=True)
    page.read_until(lambda p: len(p.assembly.blocks) == 3)
    assert page.assembly.sequence == 600
    page.close()


def test_a_corrected_keyframe_takes_its_path_along(page_server):
    page_server.keyframe(keyframe(1, 0.0))
    for n in range(5):
        page_server.pose(pose_event(n, n / 10, keyframe_id=1))
    page = PageReader(page_server.port)
    page.read_until(lambda p: len(p.path) == 5)
    moved = camera_pose(0.0)
    moved[:3, 3] += [10, 0, 0]
    before = page.path.copy()
    page_server.moved(MovedKeyframes({1: moved}))
    page.read_until(lambda p: p.path[0, 0] > 5)
    np.testing.assert_allclose(page.path, before + np.array([10, 0, 0]), atol=1e-5)
    page_server.removed(RemovedKeyframes((1,)))
    page.read_until(lambda p: p.newest[KeyframesUpdate].removed.tolist() == [1])
    page.close()


def test_pictures_are_encoded_only_when_somebody_watches(forgetful_server, encoded_ns):
    server = forgetful_server
    for n in range(5):
        server.image(picture(n / 5), n)
        assert server._picture._newest.wait_empty(5.0)  # so what becomes of the one before is known
    assert encoded_ns == []
    page = PageReader(server.port)
    page.read_one()
    rgb, labels = picture(0.5), track_frame(0.5).labels
    begun_s = time.monotonic()
    for n in range(100, 140):
        server.image(rgb, n, labels)
    page.read_until(lambda p: ImageUpdate in p.newest and p.newest[ImageUpdate].stamp_ns == 139)
    took_s = time.monotonic() - begun_s
    assert page.newest[ImageUpdate].jpeg[:2].tolist() == [0xFF, 0xD8]
    assert min(encoded_ns) >= 100
    assert len(encoded_ns) + server.facts()["dropped_pictures"] == 40
    assert len(encoded_ns) <= 2 + ViewerConfig().image_fps * took_s
    page.close()


def test_the_facts_tell_what_of_the_past_is_held_and_what_was_let_go():
    server = PageServer(ViewerConfig(web_port=0, surface_mb=1.0, history_mb=1.0))
    assert set(server.facts().values()) == {0}
    blocks = 2 * 2**20 // (40 * len(ground_block(0, 0).vertices))
    for n in range(blocks):
        server.mesh(delta([ground_block(n, 0)], 1 + n))
    facts = server.facts()
    assert 0 < facts["history_bytes"] <= 2**20
    assert facts["history_surface_bytes"] > 0
    assert facts["dropped_blocks"] == blocks - facts["blocks"] > 0
    assert PageServer(ViewerConfig(web_port=0, history_mb=0.0)).facts()["history_bytes"] == 0


def test_an_empty_or_strange_picture_harms_nobody(page_server):
    page = PageReader(page_server.port)
    page.read_one()
    page_server.image(np.zeros((0, 0, 3), np.uint8), 1)
    time.sleep(0.4)
    deadline = time.monotonic() + 5
    while ImageUpdate not in page.newest and time.monotonic() < deadline:
        page_server.image(picture(0.1), 2)
        page.read_one()
    assert page.newest[ImageUpdate].stamp_ns == 2
    page.close()


def test_more_pages_than_allowed_are_told_so(page_server):
    pages = [PageReader(page_server.port) for _ in range(3)]
    for page in pages:
        page.read_one()
    with pytest.raises(InvalidStatus, match="503"):
        PageReader(page_server.port)
    pages.pop().close()
    deadline = time.monotonic() + 5
    while page_server.client_count == 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    PageReader(page_server.port).close()
    for page in pages:
        page.close()


def test_another_sites_page_may_not_connect(page_server):
    with pytest.raises(InvalidStatus, match="403"):
        PageReader(page_server.port, origin="https://example.org")
    PageReader(page_server.port, origin=f"http://127.0.0.1:{page_server.port}").close()


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = PageServer(ViewerConfig(web_port=taken.getsockname()[1]))
        with pytest.raises(PortInUse, match="web_port"):
            server.start()
        server.stop()


@pytest.mark.parametrize("host", ["203.0.113.7", "host..name"])
def test_a_host_that_is_none_of_this_machine_is_named(host):
    server = PageServer(ViewerConfig(host=host, web_port=0))
    with pytest.raises(ConfigError, match=rf"{re.escape(host)}:0.*viewer\.host"):
        server.start()
    server.stop()


def test_the_page_comes_with_a_policy_that_keeps_strangers_out(page_server):
    base = f"http://127.0.0.1:{page_server.port}"
    with urllib.request.urlopen(base, timeout=5) as answer:
        assert b"WorldSystem" in answer.read()
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    for path in ("/web/../page_server.py", "/web/%2e%2e/page_server.py", "/none"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(base + path, timeout=5)


def test_stopping_ends_every_thread():
    before = set(threading.enumerate())
    server = PageServer(ViewerConfig(web_port=0))
    server.start()
    page = PageReader(server.port)
    page.read_one()
    server.mesh(growing_ground()[0])
    page.read_until(lambda p: len(p.assembly.blocks) == 12)
    begun = set(threading.enumerate()) - before
    assert {"page_server", "picture"} <= {thread.name for thread in begun}
    server.stop()
    page.close()
    for thread in begun:
        thread.join(5.0)
    assert [thread.name for thread in begun if thread.is_alive()] == []


def test_connections_that_ask_for_nothing_are_bounded_and_shut_no_page_out(page_server):
    page = PageReader(page_server.port)
    page.read_one()
    place = ("127.0.0.1", page_server.port)
    with ExitStack() as held:
        first = held.enter_context(socket.create_connection(place, timeout=5.0))
        for _ in range(page_server._gate._most):
            held.enter_context(socket.create_connection(place, timeout=5.0))
        assert first.recv(1) == b""
        url = f"http://127.0.0.1:{page_server.port}/"
        assert urllib.request.urlopen(url, timeout=5).status == 200
        page.read_one()
    page.close()


def test_connections_that_all_come_while_the_server_is_busy_are_bounded_too(page_server):
    """Those that come at once cannot be ended yet when the next one of them comes."""
    most, go_on = page_server._gate._most, threading.Event()
    place = ("127.0.0.1", page_server.port)
    page_server._loop.call_soon_threadsafe(go_on.wait, 10.0)
    with ExitStack() as held:
        connections = [
            held.enter_context(socket.create_connection(place, timeout=5.0))
            for _ in range(most + 20)
        ]
        go_on.set()
        for connection in connections[:20]:
            assert connection.recv(1) == b""
        url = f"http://127.0.0.1:{page_server.port}/"
        assert urllib.request.urlopen(url, timeout=5).status == 200
