# SPDX-License-Identifier: Apache-2.0
"""Decoding beside the network: nobody waits, nothing grows, and key frames are asked for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from coding_lab import AccessUnit, Coding, coded, cut, moving_scene
from ingest_lab import MemorySink

from worldsystem_core.frames import Camera, EncodedFrame
from worldsystem_ingest.codec.live_decoding import LiveDecoding
from worldsystem_ingest.config import IngestConfig


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
