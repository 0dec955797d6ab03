# SPDX-License-Identifier: Apache-2.0
"""Many pages follow poses and pictures: in common steps, framed once, and each at its own pace."""

from __future__ import annotations

import asyncio
import dataclasses
import struct
import time

import numpy as np
import pytest
from page_reader import PageReader
from world_for_viewers import camera_pose, keyframe, picture, pose_event

from worldsystem_core.reconstruction import MovedKeyframes, RemovedKeyframes
from worldsystem_viewer.keyframe_store import KeyframeCursor, KeyframeStore, cloud_of
from worldsystem_viewer.page_line import PageLine, framed
from worldsystem_viewer.page_messages import pose_message
from worldsystem_viewer.page_steps import StateSteps, follow
from worldsystem_viewer.protocol import ImageUpdate, KeyframesUpdate, PoseUpdate, StatusUpdate
from worldsystem_viewer.world import Cursor, World

HZ = 10.0


class Crowd:
    """A world, its steps, and a clock that a test sets."""

    def __init__(self) -> None:
        self.world = World()
        self.steps = StateSteps(self.world, HZ)
        self.now_s = 100.05  # amid a step

    def fly(self, number: int) -> None:
        pose = pose_event(number, number / 100)
        self.world.put("pose", pose_message(pose))
        self.world.add_pose(pose)
        self.now_s += 1.0 / HZ

    def picture(self, number: int) -> None:
        jpeg = np.full(3, number, np.uint8)
        update = ImageUpdate(stamp_ns=number, full_width=1, full_height=1, jpeg=jpeg)
        self.world.put("image", update)

    def newest(self):
        return self.steps.newest(self.now_s)


def read(frames: bytes) -> list[tuple[int, bytes]]:
    """WebSocket frames from a server (RFC 6455, section 5.2): the first byte and the payload."""
    found, at = [], 0
    while at < len(frames):
        first, size = frames[at], frames[at + 1]
        at += 2
        if size == 126:
            (size,) = struct.unpack_from(">H", frames, at)
            at += 2
        elif size == 127:
            (size,) = struct.unpack_from(">Q", frames, at)
            at += 8
        found.append((first, frames[at : at + size]))
        at += size
    return found


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_a_message_of_any_size_is_framed_as_the_standard_says(size):
    messages = [bytes(size), b"next"]
    assert read(framed(messages)) == [(0x82, message) for message in messages]  # final, binary


def test_no_messages_are_no_frames():
    assert framed([]) == b""


def test_all_who_ask_at_one_time_get_the_very_same_bytes():
    crowd = Crowd()
    crowd.fly(1)
    step = crowd.newest()
    assert step.frames(image=True) is crowd.newest().frames(image=True)
    crowd.world.put("status", StatusUpdate(values={}))
    assert crowd.newest() is step  # what comes between waits for the next
    crowd.now_s += 1.0 / HZ
    assert crowd.newest().number == step.number + 1
    assert [name for name, _ in crowd.newest().messages] == ["status"]


def test_many_pages_are_served_together_and_less_often():
    steps = StateSteps(World(), 20.0)
    assert steps.pause_s(100.01, pages=1) == pytest.approx(0.04)
    assert steps.pause_s(100.01, pages=10) == pytest.approx(0.04)
    assert steps.pause_s(100.01, pages=20) == pytest.approx(0.09)
    assert steps.pause_s(100.07, pages=20) == pytest.approx(0.03)  # whoever asks, for one moment


def test_who_follows_the_steps_lacks_nothing_when_it_falls_behind():
    crowd, page = Crowd(), Cursor()
    crowd.newest()
    for number in range(5):
        crowd.fly(number)
        follow(page, crowd.newest(), image=True)
    assert crowd.world.newer_slots(page) == []
    assert crowd.world.newer_path(page) is None
    for number in range(5, 9):
        crowd.fly(number)
        crowd.newest()
    path = crowd.world.newer_path(page)
    assert path is not None
    assert path.start == 5
    assert len(path.positions) == 4
    assert [slot.message.frame_id for slot in crowd.world.newer_slots(page)] == [8]


def test_who_does_not_show_the_picture_is_not_sent_it_and_gets_the_newest_on_asking():
    crowd, blind, seeing = Crowd(), Cursor(), Cursor()
    crowd.newest()
    for number in range(3):
        crowd.picture(2 * number)
        crowd.picture(2 * number + 1)
        crowd.fly(number)
        step = crowd.newest()
        assert len(read(step.frames(image=True))) == len(read(step.frames(image=False))) + 1
        follow(blind, step, image=False)
        follow(seeing, step, image=True)
    assert (blind.skipped, seeing.skipped) == (0, 2)  # of the first two nobody had seen any
    assert [slot.message.stamp_ns for slot in crowd.world.newer_slots(blind)] == [5]


def test_a_withdrawn_keyframe_takes_its_points_from_those_who_follow():
    crowd, page = Crowd(), Cursor()
    crowd.world.add_keyframe(keyframe(1, 0.0))
    crowd.world.add_keyframe(keyframe(2, 0.1))
    follow(page, crowd.newest(), image=True)
    while crowd.world.next_cloud(page) is not None:
        continue
    crowd.world.remove_keyframes(RemovedKeyframes((1,)))
    crowd.now_s += 1.0 / HZ
    follow(page, crowd.newest(), image=True)
    assert page.keyframes.clouds.keys() == {2}


def test_sizes_told_after_a_keyframe_was_told_again_count_from_there():
    world, page, first = World(), Cursor(), keyframe(1, 0.0)
    world.add_keyframe(first)
    before = world.next_cloud(page)
    assert before is not None
    world.move_keyframes(MovedKeyframes({1: first.world_from_cam}, {1: 2.0}))
    grown = dataclasses.replace(first, pointmap=first.pointmap * np.float32(2.0))
    world.add_keyframe(grown)
    places, after = world.newer_keyframes(page), world.next_cloud(page)
    assert places is not None
    assert after is not None
    assert places.point_scale.tolist() == [1.0]
    assert after.step == pytest.approx(2.0 * before.step)
    world.add_keyframe(grown)
    assert world.next_cloud(page) is None, "it has these points"


def test_a_cursor_is_told_of_a_withdrawn_keyframe_after_10000_others():
    store, cursor, first = KeyframeStore(10**9), KeyframeCursor(), keyframe(0, 0.0)
    cloud = cloud_of(first)
    store.add(first, cloud)
    store.newer(cursor)
    store.next_cloud(cursor, None)
    for number in range(1, 10_002):
        store.add(dataclasses.replace(first, id=number), cloud)
        store.remove((number - 1,))
    update = store.newer(cursor)
    assert update is not None
    assert (update.removed.tolist(), update.id.tolist()) == ([0], [10_001])
    assert cursor.clouds == {}
    late = store.newer(KeyframeCursor())
    assert late is not None
    assert (late.removed.tolist(), late.id.tolist()) == ([], [10_001])


def test_who_followed_the_steps_is_told_of_more_removals_than_are_remembered(monkeypatch):
    monkeypatch.setattr("worldsystem_viewer.keyframe_store._MOST_GONE", 3)
    crowd, page = Crowd(), Cursor()
    for number in range(8):
        crowd.world.add_keyframe(keyframe(number, 0.0))
    follow(page, crowd.newest(), image=True)
    crowd.world.remove_keyframes(RemovedKeyframes(tuple(range(7))))
    alone = crowd.world.newer_keyframes(page)
    assert alone is not None
    assert sorted(alone.removed.tolist()) == list(range(7))
    crowd.now_s += 1.0 / HZ
    assert sorted(crowd.newest().gone_keyframes) == list(range(7))


def test_a_hidden_page_is_told_on_its_return_of_all_keyframes_that_went(page_server, monkeypatch):
    monkeypatch.setattr("worldsystem_viewer.keyframe_store._MOST_GONE", 3)
    for number in range(8):
        page_server.keyframe(keyframe(number, 0.0))
    page = PageReader(page_server.port)
    page.read_until(lambda p: KeyframesUpdate in p.newest)
    page.hide(page_server)
    page_server.removed(RemovedKeyframes(tuple(range(7))))
    page.tell(visible=True)
    page.read_until(lambda p: len(p.newest[KeyframesUpdate].removed) > 0)
    assert sorted(page.newest[KeyframesUpdate].removed.tolist()) == list(range(7))
    page.close()


def test_pages_together_see_all_poses_in_their_order(page_server):
    pages = [PageReader(page_server.port) for _ in range(3)]
    for number in range(40):
        page_server.pose(pose_event(number, number / 40))
        time.sleep(0.01)
    page_server.removed(RemovedKeyframes((7,)))
    for page in pages:
        page.read_until(lambda p: len(p.path) == 40)
        page.read_until(lambda p: p.newest[PoseUpdate].frame_id == 39)
        page.close()


class Recorded:
    """A transport and a socket that keep what is written."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = False
        self.transport = self.writer = self

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, 1 << 30

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.data += data


@pytest.mark.parametrize("size", [0, 5, 262_144, 262_145, 1_000_000])
def test_a_long_message_goes_as_fragments_that_make_it_up(size):
    line, message = Recorded(), np.random.default_rng(1).bytes(size)
    asyncio.run(PageLine(line, line).send(message))
    frames = read(line.data)
    assert b"".join(data for _, data in frames) == message
    assert all(len(data) <= 262_144 for _, data in frames)
    kinds = [first for first, _ in frames]
    # binary first, continued after it, and the last says that it is the last
    assert [kind & 0x0F for kind in kinds] == [2] + [0] * (len(kinds) - 1)
    assert [kind & 0x80 for kind in kinds] == [0] * (len(kinds) - 1) + [0x80]


def test_pictures_are_encoded_only_while_somebody_shows_them(page_server, encoded_ns):
    page = PageReader(page_server.port, layers=[])
    page.read_one()
    rgb, begun_s = picture(0.5), time.monotonic()
    for number in range(20):
        page_server.image(rgb, number)
        assert page_server._picture._newest.wait_empty(5.0)
    # one every other second is kept, for who looks back
    assert 1 <= len(encoded_ns) <= 1 + (time.monotonic() - begun_s) / 2.0
    page_server.status({"mark": 1})
    page.read_until(
        lambda p: (
            p.newest[StatusUpdate].values.get("mark") == 1 if StatusUpdate in p.newest else False
        )
    )
    assert ImageUpdate not in page.newest
    page.tell(layers=["image"])
    deadline = time.monotonic() + 5
    while ImageUpdate not in page.newest and time.monotonic() < deadline:
        page_server.image(rgb, 100)
        page.read_one()
    assert page.newest[ImageUpdate].full_width == rgb.shape[1]
    page.close()


def test_who_looks_back_is_told_keyframes_as_corrected_since(page_server):
    """Also a page that came back hidden, and had no turn before it looked back."""
    page_server.keyframe(keyframe(3, 0.2))
    for number, stamp_ns in ((1, 0), (2, 8 * 10**9)):
        page_server.pose(pose_event(number, 0.1, stamp_ns=stamp_ns))
    page = PageReader(page_server.port, layers=[], visible=False)
    page.tell(seek=3 * 10**9)
    page.tell(visible=True)
    page.read_until(lambda p: KeyframesUpdate in p.newest)
    assert page.newest[KeyframesUpdate].id.tolist() == [3]
    page_server.moved(MovedKeyframes({3: camera_pose(0.9)}))
    page.tell(seek=2 * 10**9)
    page.read_until(lambda p: p.counts[KeyframesUpdate] == 2)
    told = page.newest[KeyframesUpdate].world_from_cam[0]
    np.testing.assert_allclose(told, camera_pose(0.9), atol=1e-6)
    page.close()
