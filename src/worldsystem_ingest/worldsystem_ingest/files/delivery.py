# SPDX-License-Identifier: Apache-2.0
"""Numbers a container's pictures in display order and hands them to the sink."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_ingest.codec.decoder import Decoded, Outcome
from worldsystem_ingest.codec.pictures import camera_of_size
from worldsystem_ingest.sink import OUTSIDE, Sink

Pace = Callable[[int], None]
CameraOf = Callable[[int, int], Camera | None]


@dataclass(eq=False)
class _Unit:
    data: bytes
    is_key: bool
    stamp_ns: int | None
    arrival_ns: int
    hidden: bool = False
    id: int = -1
    outcome: Outcome | None = None
    passed_on: bool = False


class Delivery:
    """Ids count pictures as they are shown; a unit is passed on just before its picture.

    Units are coded in another order when a stream has B-frames, so a unit waits until the decoder
    has put its picture in its place. `pace` is called with each stamp before its picture goes out.
    Stamps [ns] grow strictly; a missing one follows from the id, `rate_hz` and `start_ns`. `codec`
    is that of the units.
    """

    def __init__(self, sink: Sink, stream: str, camera: CameraOf, pace: Pace | None = None) -> None:
        self._sink = sink
        self._stream = stream
        self._camera_of = camera
        self._camera: Camera | None = None
        self.pace = pace
        self._units: dict[int, _Unit] = {}
        self._coded: deque[_Unit] = deque()
        self._shown: deque[_Unit] = deque()
        self._next_id = 0
        self._next_index = 0
        self._last_stamp_ns = -1
        self.codec = "h264"
        self.rate_hz = 30.0
        self.start_ns = 0
        self.frames = 0

    @property
    def next_id(self) -> int:
        """The id of the next picture."""
        return self._next_id

    def coded(
        self, data: bytes, is_key: bool, stamp_ns: int | None, *, hidden: bool = False
    ) -> int:
        """Take one access unit in coding order; gives the index to decode it under.

        Empty `data` stands for a unit that could not be read. One that is `hidden` was cut away:
        others are decoded from it, its picture is dropped as outside.
        """
        index = self._next_index
        self._next_index += 1
        unit = _Unit(data, is_key, stamp_ns, time.time_ns(), hidden)
        self._units[index] = unit
        self._coded.append(unit)
        return index

    def settle(self, outcomes: list[Outcome]) -> None:
        """Take what became of access units, in display order, and pass on what is ready."""
        for outcome in self._as_shown(outcomes):
            unit = self._units.pop(outcome.index)
            unit.id, unit.stamp_ns = self._number(unit.stamp_ns)
            unit.outcome = outcome
            self._shown.append(unit)
        self._pass_on()

    def picture(self, rgb: UInt8[np.ndarray, "h w 3"], stamp_ns: int | None) -> None:
        """Deliver a picture that comes without its access unit."""
        frame_id, stamp = self._number(stamp_ns)
        self._show(frame_id, stamp, rgb)

    def lost(self, reason: str) -> None:
        """The next picture in display order cannot be had; it has an id, and no stamp."""
        frame_id = self._next_id
        self._next_id += 1
        self._sink.dropped(frame_id, reason, self._stream)

    def _number(self, stamp_ns: int | None) -> tuple[int, int]:
        frame_id = self._next_id
        self._next_id += 1
        if stamp_ns is None:
            stamp_ns = self.start_ns + round(frame_id * 1e9 / self.rate_hz)
        self._last_stamp_ns = max(stamp_ns, self._last_stamp_ns + 1)
        return frame_id, self._last_stamp_ns

    def _as_shown(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Losses come when they are noticed; the stamps, when known, say where they belong."""
        stamps_ns = {o.index: self._units[o.index].stamp_ns for o in outcomes}
        return sorted(outcomes, key=lambda outcome: stamps_ns[outcome.index] or 0)

    def _pass_on(self) -> None:
        """Units in coding order as far as they are numbered, then the pictures they hold."""
        while self._coded and self._coded[0].id >= 0:
            unit = self._coded.popleft()
            unit.passed_on = True
            self._encoded(unit)
        while self._shown and self._shown[0].passed_on:
            self._settle_unit(self._shown.popleft())

    def _encoded(self, unit: _Unit) -> None:
        if unit.data:
            assert unit.stamp_ns is not None
            self._sink.encoded(
                EncodedFrame(
                    id=unit.id,
                    stamp_ns=unit.stamp_ns,
                    arrival_ns=unit.arrival_ns,
                    data=unit.data,
                    is_key=unit.is_key,
                    stream=self._stream,
                    codec=self.codec,
                )
            )

    def _settle_unit(self, unit: _Unit) -> None:
        assert unit.stamp_ns is not None
        if unit.hidden:
            self._sink.dropped(unit.id, OUTSIDE, self._stream)
        elif isinstance(unit.outcome, Decoded):
            self._show(unit.id, unit.stamp_ns, unit.outcome.rgb)
        elif unit.outcome is not None:
            self._sink.dropped(unit.id, unit.outcome.reason, self._stream)

    def _show(self, frame_id: int, stamp_ns: int, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        if self.pace:
            self.pace(stamp_ns)
        camera = self._camera_of(int(rgb.shape[1]), int(rgb.shape[0]))
        if camera and camera != self._camera:
            self._sink.camera(camera, self._stream)
        self._camera = camera
        self.frames += 1
        self._sink.frame(
            Frame(id=frame_id, stamp_ns=stamp_ns, rgb=rgb, camera=camera, stream=self._stream)
        )


def camera_with_focal(focal_px: float) -> CameraOf:
    """For a picture's width and height: a camera with its axis through the centre; 0 = unknown.

    The focal length is that of the first size asked for.
    """
    if not focal_px:
        return lambda width, height: None
    return camera_of_first_size(
        lambda width, height: Camera(
            width=width,
            height=height,
            fx=focal_px,
            fy=focal_px,
            cx=0.5 * (width - 1),
            cy=0.5 * (height - 1),
        )
    )


def camera_of_first_size(camera_of: Callable[[int, int], Camera]) -> CameraOf:
    """What `camera_of` says of the first size asked for; other sizes are of the same camera."""
    first: Camera | None = None

    def camera(width: int, height: int) -> Camera:
        nonlocal first
        first = first or camera_of(width, height)
        return camera_of_size(first, width, height)

    return camera
