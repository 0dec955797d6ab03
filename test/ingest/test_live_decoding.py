# SPDX-License-Identifier: Apache-2.0
"""Decoding beside the network: nobody waits, nothing grows, and key frames are asked for."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from coding_lab import (
    AccessUnit,
    Coding,
    coded,
    cut,
    decode,
    encode,
    moving_scene,
    pictures_in,
)
from ingest_lab import MemorySink, number_in, wait_until

from worldsystem_core.frames import Camera, EncodedFrame
from worldsystem_ingest.codec.entry import Entry
from worldsystem_ingest.codec.h264 import entry_of
from worldsystem_ingest.codec.live_decoding import LiveDecoding
from worldsystem_ingest.codec.unit_intake import UnitIntake
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sender.session import SenderSession

T0_NS, PICTURE_NS = 1_780_000_000 * 10**9, 40_000_000


def encoded(units: list[AccessUnit]) -> list[EncodedFrame]:
    return [
        EncodedFrame(id=n, stamp_ns=n, arrival_ns=0, data=unit.data, is_key=unit.is_key)
        for n, unit in enumerate(units)
    ]


class Decoding:
    """A `LiveDecoding`, what it gave, and what it asked for."""

    def __init__(self, camera: Camera | None = None, **settings: object) -> None:
        self.sink, self.reasons, self.camera = MemorySink(), [], camera
        self.live = LiveDecoding(
            self.sink, IngestConfig(**settings), lambda: self.camera, self.reasons.append
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self.live.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(10.0)
            self.live.close()

    def decode(self, frames: list[EncodedFrame]) -> None:
        with self.running():
            for frame in frames:
                self.live.put(frame, False)
            self.sink.wait_settled(len(frames))


def test_a_key_frame_is_asked_for_while_pictures_are_lost_and_not_otherwise():
    units = coded(moving_scene(30), Coding())
    decoding = Decoding()
    decoding.decode(encoded(units))
    assert decoding.reasons == []
    units[4] = cut(units[4])
    decoding = Decoding()
    decoding.decode(encoded(units))
    assert decoding.reasons == ["corrupt"] + ["no_key_frame"] * 5
    assert decoding.live.broken_frames == 0


def test_broken_pictures_that_are_shown_are_counted_and_a_key_frame_is_asked_for():
    units = coded(moving_scene(30), Coding())
    units[4] = cut(units[4])
    decoding = Decoding(broken_pictures="show", decode_threads=1)
    decoding.decode(encoded(units))
    assert decoding.sink.ids == list(range(30))
    assert decoding.live.broken_frames == 6
    assert decoding.reasons == ["corrupt"] * 6


def test_the_camera_follows_a_change_of_size():
    camera = Camera(width=160, height=96, fx=100.0, fy=100.0, cx=79.5, cy=47.5)
    units = coded(moving_scene(5), Coding()) + coded(moving_scene(5, 320, 192), Coding())
    decoding = Decoding(camera)
    decoding.decode(encoded(units))
    assert [frame.camera.width for frame in decoding.sink.frames] == [160] * 5 + [320] * 5
    assert decoding.sink.frames[-1].camera.fx == pytest.approx(200.0)


def test_the_camera_of_a_phone_that_is_turned_keeps_its_focal_lengths():
    camera = Camera(width=160, height=96, fx=100.0, fy=100.0, cx=79.5, cy=47.5)
    units = coded(moving_scene(3), Coding()) + coded(moving_scene(3, 96, 160), Coding())
    decoding = Decoding(camera)
    decoding.decode(encoded(units))
    cameras = [frame.camera for frame in decoding.sink.frames]
    assert cameras[0] == camera
    turned = cameras[-1]
    assert (turned.width, turned.height) == (96, 160)
    assert (turned.fx, turned.fy) == pytest.approx((100.0, 100.0))
    assert (turned.cx, turned.cy) == pytest.approx((47.5, 79.5))


def test_a_picture_has_the_camera_of_when_it_came_though_it_is_decoded_later():
    cameras = [
        Camera(width=160, height=96, fx=focal_px, fy=focal_px, cx=79.5, cy=47.5)
        for focal_px in (100.0, 200.0)
    ]
    decoding = Decoding()
    for frame in encoded(coded(moving_scene(6), Coding())):
        decoding.camera = cameras[frame.id // 3]
        decoding.live.put(frame, False)
    with decoding.running():
        decoding.sink.wait_settled(6)
    assert [frame.camera.fx for frame in decoding.sink.frames] == [100.0] * 3 + [200.0] * 3


def test_the_queue_is_bounded_in_bytes_as_well():
    decoding = Decoding(decode_queue_frames=1000)
    large = bytes(8 * 2**20)
    for number in range(100):
        frame = EncodedFrame(id=number, stamp_ns=0, arrival_ns=0, data=large, is_key=False)
        decoding.live.put(frame, False)
    assert len(decoding.live) == 8
    assert decoding.sink.drops == [(number, "decoder_busy") for number in range(92)]
    with decoding.running():
        decoding.sink.wait_settled(100)
    assert decoding.sink.settled == list(range(100))


def test_nothing_is_asked_for_after_the_end():
    decoding = Decoding()
    for frame in encoded(coded(moving_scene(10), Coding())):
        decoding.live.put(frame, False)
    decoding.live.close()
    assert decoding.sink.settled == list(range(10))
    assert {reason for _, reason in decoding.sink.drops} == {"stopped"}
    assert decoding.reasons == []


def strictly_grow(numbers: list[int]) -> bool:
    return all(b > a for a, b in itertools.pairwise(numbers))


@pytest.mark.parametrize("b_frames", [1, 2, 3])
def test_pictures_coded_out_of_order_leave_with_their_times_of_capture_and_growing_ids(b_frames):
    units = encode(60, b_frames=b_frames)
    decoding = Decoding(decode_queue_frames=100)
    session = SenderSession(
        decoding.sink, decoding.live.put, "camera", IngestConfig(), lambda message: None
    )
    with decoding.running():
        for n, unit in enumerate(units):
            session.take_access_unit(
                data=unit.data,
                is_key=unit.is_key,
                sender_ns=T0_NS + unit.shows * PICTURE_NS,
                number=n,
                arrival_ns=T0_NS + (n + b_frames) * PICTURE_NS,
            )
        wait_until(lambda: not len(decoding.live))
    frames = decoding.sink.frames[10:]  # the clock is known by then
    first = number_in(frames[0].rgb)
    shown = [number_in(frame.rgb) - first for frame in frames]
    assert [f.stamp_ns - frames[0].stamp_ns for f in frames] == [n * PICTURE_NS for n in shown]
    assert strictly_grow(shown)
    assert strictly_grow(decoding.sink.ids)
    assert decoding.sink.settled == list(range(60))


def test_arrivals_go_to_pictures_in_the_order_in_which_they_are_shown():
    units = encode(60, b_frames=2)
    decoding = Decoding(decode_queue_frames=100)
    intake = UnitIntake(decoding.sink, decoding.live.put, "camera")
    arrivals_ns = [T0_NS + n * PICTURE_NS for n in range(len(units))]
    with decoding.running():
        for unit, arrival_ns in zip(units, arrivals_ns, strict=True):
            intake.take(unit.data, "h264", arrival_ns)
        wait_until(lambda: not len(decoding.live))
    assert [unit.stamp_ns for unit in decoding.sink.units] == arrivals_ns
    frames = [f for f in decoding.sink.frames if number_in(f.rgb) >= 10]  # after the first B slice
    assert len(frames) == 50
    assert {b.stamp_ns - a.stamp_ns for a, b in itertools.pairwise(frames)} == {PICTURE_NS}
    assert strictly_grow([number_in(frame.rgb) for frame in frames])
    assert strictly_grow(decoding.sink.ids)
    assert decoding.sink.settled == list(range(60))


def test_each_id_ends_once_when_a_picture_is_broken_that_others_are_shown_before():
    units = encode(60, b_frames=2)
    broken = next(n for n, unit in enumerate(units) if n > 30 and unit.shows > n)
    units[broken] = cut(units[broken], 0.2)
    decoding = Decoding(decode_queue_frames=100)
    with decoding.running():
        for unit in encoded(units):
            decoding.live.put(unit, False)
        wait_until(lambda: not len(decoding.live))
    assert decoding.sink.settled == list(range(60))
    assert "corrupt" in {reason for _, reason in decoding.sink.drops}
    assert strictly_grow(decoding.sink.ids)
    assert strictly_grow([frame.stamp_ns for frame in decoding.sink.frames])


def test_a_new_connection_at_a_recovery_point_does_not_refer_to_the_old():
    units = coded(moving_scene(80), Coding(gop=12, params="intra-refresh=1"))
    clean = pictures_in(decode(units))
    entry = next(n for n in range(30, 80) if entry_of(units[n].data) is Entry.RECOVERY)
    came = [*range(10), *range(entry, 80)]
    decoding = Decoding(decode_queue_frames=100)
    intake = UnitIntake(decoding.sink, decoding.live.put, "camera")
    with decoding.running():
        for at, n in enumerate(came):
            if at == 10:
                intake.connected()
            intake.take(units[n].data, "h264", T0_NS + at * PICTURE_NS)
        decoding.sink.wait_settled(len(came))
    assert (10, "no_key_frame") in decoding.sink.drops
    assert {reason for _, reason in decoding.sink.drops} == {"no_key_frame"}
    assert decoding.sink.settled == list(range(len(came)))
    last = decoding.sink.frames[-1]
    np.testing.assert_array_equal(last.rgb, clean[came[last.id]])


def test_a_session_that_begins_again_at_a_recovery_point_does_not_refer_to_the_one_before():
    units = coded(moving_scene(80), Coding(gop=12, params="intra-refresh=1"))
    clean = pictures_in(decode(units))
    entry = next(n for n in range(30, 80) if entry_of(units[n].data) is Entry.RECOVERY)
    came = [*range(10), *range(entry, 80)]
    decoding = Decoding(decode_queue_frames=100)
    session = SenderSession(
        decoding.sink, decoding.live.put, "camera", IngestConfig(), lambda message: None
    )
    with decoding.running():
        for at, n in enumerate(came):
            if at == 10:
                session.take_control('{"type": "restart"}')
            session.take_access_unit(
                data=units[n].data,
                is_key=units[n].is_key,
                sender_ns=T0_NS + at * PICTURE_NS,
                number=at if at < 10 else at - 10,
                arrival_ns=T0_NS + at * PICTURE_NS,
            )
        decoding.sink.wait_settled(len(came))
    assert (10, "no_key_frame") in decoding.sink.drops
    assert {reason for _, reason in decoding.sink.drops} == {"no_key_frame"}
    last = decoding.sink.frames[-1]
    np.testing.assert_array_equal(last.rgb, clean[came[last.id]])
