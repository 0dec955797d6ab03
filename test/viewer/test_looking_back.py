# SPDX-License-Identifier: Apache-2.0
"""The past: what was there at a time, within its memory, and a page that goes there and returns."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time

import numpy as np
import pytest
from page_reader import PageReader
from world_for_viewers import (
    delta,
    ground_block,
    keyframe,
    map_objects,
    picture,
    pose_event,
    track_frame,
)

from worldsystem_core.objects import MapObjects
from worldsystem_core.reconstruction import ScaleState
from worldsystem_viewer import page_rewind
from worldsystem_viewer.history import History, differences
from worldsystem_viewer.page_messages import objects_message, pose_message, tracks_message
from worldsystem_viewer.page_rewind import Rewind
from worldsystem_viewer.protocol import (
    FoundUpdate,
    ImageUpdate,
    ObjectDetail,
    ObjectsUpdate,
    PointsUpdate,
    PoseUpdate,
    TimelineUpdate,
    decode,
)
from worldsystem_viewer.world import World

SECOND_NS = 10**9
NOW = TimelineUpdate(first_ns=-1, last_ns=-1, at_ns=-1)


def step(blocks, at_s: float, removed: tuple = ()):
    made = delta(blocks, 1 + int(at_s), removed)
    return dataclasses.replace(made, capture_ns=int(at_s * SECOND_NS))


def there(history: History, at_s: float) -> dict:
    found = history.blocks_at(int(at_s * SECOND_NS))
    return {index: block.version for index, block in found.items() if block is not None}


def test_the_surface_is_as_it_was_at_each_time():
    history = History(2**30)
    history.surface(step([ground_block(0, 0, 1), ground_block(1, 0, 1)], 0))
    history.surface(step([ground_block(0, 0, 2)], 5, removed=((1, 0, 0),)))
    history.surface(step([ground_block(2, 0, 1)], 9))
    assert there(history, 0) == there(history, 4.9) == {(0, 0, 0): 1, (1, 0, 0): 1}
    assert there(history, 5) == {(0, 0, 0): 2}
    assert there(history, 100) == {(0, 0, 0): 2, (2, 0, 0): 1}
    assert set(history.blocks_at(0)) == {
        (0, 0, 0),
        (1, 0, 0),
        (2, 0, 0),
    }  # all that a page may have
    assert history.span_ns == (0, 9 * SECOND_NS)


def test_a_full_history_forgets_its_beginning_and_is_right_about_the_rest():
    block = ground_block(0, 0)
    history = History(10 * 40 * len(block.vertices))
    for n in range(100):
        history.surface(step([ground_block(n % 7, 0, n)], n))
    first_ns, last_ns = history.span_ns
    assert history.bytes <= 10 * 40 * len(block.vertices)
    assert 85 * SECOND_NS < first_ns < last_ns == 99 * SECOND_NS
    assert there(history, 95) == {(n % 7, 0, 0): n for n in range(89, 96)}


def test_a_recording_that_begins_again_begins_the_history_anew():
    history = History(2**30)
    history.surface(step([ground_block(0, 0)], 50))
    history.surface(step([ground_block(1, 0)], 0))
    assert history.span_ns == (0, 0)
    assert list(there(history, 0)) == [(1, 0, 0)]


def test_a_surface_that_is_seconds_behind_the_pictures_takes_nothing_away():
    history = History(2**30)
    history.surface(step([ground_block(0, 0)], 0))
    for n in range(20):
        history.state("pose", n * SECOND_NS, pose_message(pose_event(n, n / 20)))
    history.surface(step([ground_block(1, 0)], 8))
    assert history.span_ns == (0, 19 * SECOND_NS)
    assert set(there(history, 9)) == {(0, 0, 0), (1, 0, 0)}
    assert history.states_at(5 * SECOND_NS)["pose"].frame_id == 5


def poses_until(history: History, end_s: int) -> None:
    for n in range(end_s + 1):
        history.state("pose", n * SECOND_NS, pose_message(pose_event(n, n / 100)))


def test_a_stage_that_begins_anew_takes_nothing_from_the_past():
    """Mesher and segmenter tell keyframes of before, and a loaded map's objects of long before."""
    history, objects = History(2**30), objects_message(map_objects())
    poses_until(history, 60)
    history.surface(step([ground_block(0, 0, 1)], 50))
    history.state("objects", 60 * SECOND_NS, objects)
    history.state("tracks", 60 * SECOND_NS, tracks_message(track_frame(0.5)))
    for at_s in (2, 4):
        history.surface(step([ground_block(0, 0, 2), ground_block(1, 0, at_s)], at_s))
    history.state("objects", 0, objects)
    history.state("tracks", 3 * SECOND_NS, tracks_message(track_frame(0.5)))
    assert history.span_ns == (0, 60 * SECOND_NS)
    assert there(history, 49) == {}
    assert there(history, 60) == {(0, 0, 0): 2, (1, 0, 0): 4}
    assert history.states_at(30 * SECOND_NS)["pose"].frame_id == 30


def test_objects_of_long_ago_are_no_time_to_look_back_to():
    history = History(2**30)
    history.state("objects", 0, objects_message(map_objects()))
    assert history.span_ns == (-1, -1)
    history.state("pose", 100 * SECOND_NS, pose_message(pose_event(1, 0.1)))
    assert history.span_ns == (100 * SECOND_NS, 100 * SECOND_NS)
    assert "objects" in history.states_at(100 * SECOND_NS)


def test_what_comes_late_of_the_recording_before_goes_when_its_kind_begins_again():
    history = History(2**30)
    poses_until(history, 50)
    history.state("pose", 0, pose_message(pose_event(0, 0.0)))
    history.surface(step([ground_block(0, 0)], 49))
    history.state("pose", SECOND_NS, pose_message(pose_event(1, 0.0)))
    history.surface(step([ground_block(1, 0)], 1))
    history.state("pose", 2 * SECOND_NS, pose_message(pose_event(2, 0.0)))
    assert history.span_ns == (SECOND_NS, 2 * SECOND_NS)
    assert list(there(history, 1)) == [(1, 0, 0)]


def test_the_beginning_of_the_history_is_bounded_too():
    block = ground_block(0, 0)
    most = 10 * 40 * len(block.vertices)
    history = History(most, most)
    for n in range(100):
        history.surface(step([ground_block(n, 0, n)], n, removed=((n, 1, 0),)))
    assert 0.7 * most < history.surface_bytes <= most
    assert history.bytes <= most
    first_s = history.span_ns[0] // SECOND_NS
    assert first_s > 85
    found = there(history, first_s)
    assert found == {(n, 0, 0): n for n in range(min(found)[0], first_s + 1)}
    assert len(found) >= 5
    assert len(there(history, 99)) == len(found) + 99 - first_s


def test_states_count_as_what_they_take_and_the_oldest_go():
    thing = map_objects().objects[0]
    many = objects_message(MapObjects(stamp_ns=0, objects=(thing,) * 500))
    history = History(2**20)
    poses_until(history, 100)
    for n in range(100):
        history.state("objects", n * SECOND_NS, many)
    assert 0.9 * 2**20 < history.bytes <= 2**20
    first_ns, last_ns = history.span_ns
    assert 50 * SECOND_NS < first_ns < last_ns == 100 * SECOND_NS
    assert history.states_at(first_ns).keys() == {"pose", "objects"}


def test_a_world_of_another_unit_begins_the_history_anew():
    """Blocks of before lie in another unit, and another way up."""
    history = History(2**30)
    history.surface(step([ground_block(0, 0, 1)], 0))
    metric = dataclasses.replace(step([ground_block(1, 0, 2)], 5), scale=ScaleState.METRIC)
    history.surface(metric)
    assert there(history, 9) == {(1, 0, 0): 2}
    assert history.span_ns == (5 * SECOND_NS, 5 * SECOND_NS)


def rewinding(history: History) -> Rewind:
    return Rewind(World(), history, coded=False, mbps=0.0)


def test_what_there_was_nothing_of_then_is_told_as_empty():
    history = History(2**30)
    poses_until(history, 3)
    history.state("image", SECOND_NS, pose_message(pose_event(1, 0.1)))
    rewind = rewinding(history)
    rewind.at_ns = 2 * SECOND_NS
    objects, tracks, *rest = rewind.states(image=False)
    assert (objects.label, tracks.label) == ([], [])
    assert len(rest) == 2, "a pose and the path, and no picture that nobody looks at"
    assert rewind.states(image=False) == [], "told already"
    assert len(rewind.states()) == 5, "somebody looks at pictures now"
    assert rewind.states() == rewind.states(image=False) == []


def test_who_comes_back_keeps_no_block_that_is_gone():
    """Also not one that it had from before it looked back."""
    history = History(2**30)
    history.surface(step([ground_block(0, 0, 1), ground_block(1, 0, 1)], 0))
    history.surface(step([], 5, removed=((1, 0, 0),)))
    left = decode(rewinding(history).leave())
    assert left.removed.tolist() == [[1, 0, 0]]


def test_a_page_that_has_all_of_the_past_costs_nothing_more(monkeypatch):
    history, compared = History(2**30), []
    history.surface(step([ground_block(0, 0, 1)], 0))
    history.surface(step([ground_block(1, 0, 1)], 5))

    def counted(*given):
        compared.append(1)
        return differences(*given)

    monkeypatch.setattr(page_rewind, "differences", counted)
    rewind = rewinding(history)
    rewind.at_ns = 2 * SECOND_NS
    assert len([data for _ in range(20) for data in asyncio.run(rewind.surface())]) == 1
    assert len(compared) == 2
    rewind.at_ns = 6 * SECOND_NS
    assert len(asyncio.run(rewind.surface())) == 1


def test_an_empty_history_has_nothing():
    history = History(0)
    assert history.blocks_at(5) == {}
    assert history.states_at(5) == {}


@pytest.mark.parametrize("mesh", ["raw", "code"])
def test_a_page_sees_the_past_and_comes_back(page_server, mesh):
    page_server.mesh(step([ground_block(0, 0, 1), ground_block(1, 0, 1)], 0))
    page_server.pose(pose_event(1, 0.1, stamp_ns=0))
    page_server.mesh(step([ground_block(0, 0, 2), ground_block(2, 0, 1)], 8, ((1, 0, 0),)))
    page_server.pose(pose_event(2, 0.9, stamp_ns=8 * SECOND_NS))
    now, then = {(0, 0, 0), (2, 0, 0)}, {(0, 0, 0), (1, 0, 0)}
    page = PageReader(page_server.port, mesh=mesh)
    page.read_until(lambda p: p.assembly.blocks.keys() == now and len(p.path) == 2)
    page.tell(seek=3 * SECOND_NS)
    page.read_until(lambda p: p.assembly.blocks.keys() == then and len(p.path) == 1)
    page.read_until(lambda p: p.newest[TimelineUpdate].at_ns == 3 * SECOND_NS)
    assert page.newest[PoseUpdate].frame_id == 1
    page_server.pose(pose_event(3, 1.0, stamp_ns=9 * SECOND_NS))
    page_server.mesh(step([ground_block(3, 0, 1)], 9))
    page.tell(seek=None)
    page.read_until(lambda p: p.assembly.blocks.keys() == now | {(3, 0, 0)} and len(p.path) == 3)
    assert page.newest[PoseUpdate].frame_id == 3
    page.close()


def test_what_is_switched_on_while_a_page_looks_back_is_sent(page_server):
    for frame_id, stamp_ns in ((1, 0), (2, 8 * SECOND_NS)):
        jpeg = np.zeros(4, np.uint8)
        page_server._put_picture(
            ImageUpdate(stamp_ns=stamp_ns, full_width=2, full_height=2, jpeg=jpeg)
        )
        page_server.pose(pose_event(frame_id, 0.1, stamp_ns=stamp_ns))
    page_server.keyframe(keyframe(3, 0.2))
    page = PageReader(page_server.port, layers=[])
    page.tell(seek=3 * SECOND_NS)
    page.read_until(lambda p: PoseUpdate in p.newest and p.newest[PoseUpdate].frame_id == 1)
    page.read_until(lambda p: p.newest.get(TimelineUpdate, NOW).at_ns == 3 * SECOND_NS)
    assert not {ImageUpdate, PointsUpdate} & page.counts.keys()
    page.tell(layers=["image", "points"])
    page.read_until(lambda p: {ImageUpdate, PointsUpdate} <= p.newest.keys())
    assert page.newest[ImageUpdate].stamp_ns == 0
    assert page.newest[PointsUpdate].keyframe_id == 3
    page.close()


@pytest.mark.parametrize("mesh", ["raw", "code"])
def test_a_block_that_goes_while_a_page_comes_back_leaves_no_ghost(page_server, mesh, monkeypatch):
    page_server.mesh(step([ground_block(0, 0), ground_block(1, 0)], 0))
    page_server.mesh(step([ground_block(2, 0)], 8))
    page = PageReader(page_server.port, mesh=mesh)
    page.read_until(lambda p: len(p.assembly.blocks) == 3)
    page.tell(seek=3 * SECOND_NS)
    page.read_until(lambda p: p.assembly.blocks.keys() == {(0, 0, 0), (1, 0, 0)})
    leave = Rewind.leave

    def leave_and_lose(rewind: Rewind) -> bytes:
        told = leave(rewind)
        page_server.mesh(step([], 9, removed=((0, 0, 0),)))
        return told

    monkeypatch.setattr(Rewind, "leave", leave_and_lose)
    page.tell(seek=None)
    page.read_until(lambda p: p.assembly.blocks.keys() == {(1, 0, 0), (2, 0, 0)})
    page.close()


@pytest.mark.parametrize(
    ("seek", "at_ns"),
    [("x", -1), (True, -1), ([1], -1), (float("1e300"), 8 * SECOND_NS), (-5, 0)],
)
def test_a_strange_time_is_ignored_or_the_nearest_that_there_is(page_server, seek, at_ns):
    page_server.mesh(step([ground_block(0, 0)], 0))
    page_server.mesh(step([ground_block(1, 0)], 8, ((0, 0, 0),)))
    page = PageReader(page_server.port)
    page.tell(seek=seek)
    page.tell(find="crate")
    page.read_until(lambda p: FoundUpdate in p.newest)  # so the time was taken, too
    told = page.counts.get(TimelineUpdate, 0)
    page.read_until(lambda p: p.counts.get(TimelineUpdate, 0) > told)
    assert page.newest[TimelineUpdate].at_ns == at_ns
    shown = {(0, 0, 0)} if at_ns == 0 else {(1, 0, 0)}
    page.read_until(lambda p: p.assembly.blocks.keys() == shown)
    page.tell(seek=3 * SECOND_NS)
    page.read_until(lambda p: p.newest[TimelineUpdate].at_ns == 3 * SECOND_NS)
    page.read_until(lambda p: p.assembly.blocks.keys() == {(0, 0, 0)})
    page.close()


def test_after_the_end_pages_may_go_on_looking_until_they_close(page_server):
    begun = time.monotonic()
    page_server.wait_until_alone(30.0)
    assert time.monotonic() - begun < 30.0  # nobody looks
    page = PageReader(page_server.port)
    page.read_one()
    page_server.wait_until_alone(0.3)
    assert page_server.client_count == 1
    closing = threading.Timer(0.3, page.close)
    closing.start()
    page_server.wait_until_alone(30.0)
    assert 0.5 < time.monotonic() - begun < 10
    closing.join()


def test_after_the_end_a_person_who_wants_to_go_need_not_wait_for_pages(page_server):
    page = PageReader(page_server.port)
    page.read_one()
    begun, hurried = time.monotonic(), threading.Event()
    hurry = threading.Timer(0.3, hurried.set)
    hurry.start()
    page_server.wait_until_alone(30.0, hurried)
    assert 0.2 < time.monotonic() - begun < 10
    assert page_server.client_count == 1
    page.close()
    hurry.join()


def test_an_object_has_its_picture_and_history(page_server):
    rgb = picture(0.5)
    for n in range(3):
        frame = dataclasses.replace(track_frame(0.5), stamp_ns=n * SECOND_NS)
        page_server.image(rgb, frame.stamp_ns)
        page_server.tracks(frame)
    page_server.objects(map_objects())
    page = PageReader(page_server.port)
    page.tell(object=7)
    page.read_until(lambda p: ObjectDetail in p.newest)
    detail = page.newest[ObjectDetail]
    assert (detail.label, detail.sightings, detail.seen_s.tolist()) == ("mound", 3, [0, 1, 2])
    import cv2

    crop = cv2.imdecode(detail.jpeg, cv2.IMREAD_COLOR)
    box = track_frame(0.5).tracks[0].box_px
    assert crop.shape[1] == pytest.approx(1.4 * (box[2] - box[0]), abs=3)
    middle = crop[crop.shape[0] // 2, crop.shape[1] // 2, ::-1].astype(int)
    assert np.abs(middle - [214, 120, 64]).max() < 12  # the disc itself
    page.tell(object=999)
    page.read_until(lambda p: p.newest[ObjectDetail].id == 999)
    assert len(page.newest[ObjectDetail].jpeg) == 0
    page.close()


@pytest.mark.parametrize(
    ("text", "found"), [("crate", [12]), ("MOU", [7]), ("big crate", []), ("", []), ("  ", [])]
)
def test_objects_are_found_by_their_words(page_server, text, found):
    page_server.objects(map_objects())
    page = PageReader(page_server.port)
    page.read_until(lambda p: ObjectsUpdate in p.newest)
    page.tell(find=text)
    page.read_until(lambda p: FoundUpdate in p.newest)
    assert page.newest[FoundUpdate].id.tolist() == found
    page_server.objects(MapObjects(stamp_ns=2, objects=()))
    page.close()


def test_states_of_long_ago_are_thinned_out_evenly():
    history, message = History(2**30), pose_message(pose_event(0, 0.0))
    for n in range(20_000):
        history.state("pose", n * SECOND_NS, dataclasses.replace(message, frame_id=n))
    late = [at - history.states_at(at * SECOND_NS)["pose"].frame_id for at in range(0, 20_000, 250)]
    assert late[0] == 0
    assert max(late) <= 100, "seconds: of the older half about a thousand states stay"
