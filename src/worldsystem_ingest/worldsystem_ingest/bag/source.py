# SPDX-License-Identifier: Apache-2.0
"""A recording of ROS as a source: one topic of pictures, its camera, and what was measured."""

from __future__ import annotations

import itertools
import logging
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from worldsystem_core.errors import SourceError
from worldsystem_core.frames import Camera
from worldsystem_core.telemetry import Telemetry
from worldsystem_ingest.bag import measurements
from worldsystem_ingest.bag.measurements import CAMERA_INFO, camera_of
from worldsystem_ingest.bag.messages import (
    BagBroken,
    Channel,
    MessageDecoder,
    Recorded,
    stamp_ns_of,
)
from worldsystem_ingest.bag.pictures import (
    COMPRESSED_IMAGE,
    IMAGE,
    PICTURE_TYPES,
    CompressedImageReader,
    ImageReader,
    MessageReader,
    why_no_picture,
)
from worldsystem_ingest.bag.recording import Recording
from worldsystem_ingest.bag.video import VideoReader
from worldsystem_ingest.codec.pictures import camera_of_size
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.delivery import Delivery, camera_with_focal
from worldsystem_ingest.files.video_file import pace_of
from worldsystem_ingest.sink import Sink, Summary

_log = logging.getLogger(__name__)
_READABLE = ("cdr", "ros1")
_LONGEST_RECORDING_NS = 10**9 * 3600 * 24 * 365


class BagSource:
    """MCAP, rosbag2 (also SQLite) and rosbag1: a file, or the folder of a split bag.

    `topic` names the topic of pictures; without it the only one is taken. Stamps are those of the
    messages' headers, or the time of recording where a header has none; with `realtime` pictures
    come at that pace and all stamps are shifted so that the first picture's is now, but those of a
    clock that is years off the pictures', whose telemetry is left out. The intrinsics come from the
    nearest `CameraInfo` above the topic, telemetry of each kind from the first topic that has it,
    other streams' left out. A bag that broke off is delivered up to the break, which the summary
    tells.
    """

    live = False

    def __init__(self, path: Path, config: IngestConfig) -> None:
        self._config = config
        self._recording = Recording(path)
        self._messages = MessageDecoder()
        self._wanted = _expression(config.topics)
        self._channel = self._chosen(config.topic)
        self._info_topic = measurements.camera_info_topic(
            self._channel.topic, self._topics_of((CAMERA_INFO,))
        )
        self._camera: Camera | None = None
        self._camera_with_focal = camera_with_focal(config.focal_px)
        self._telemetry_from: dict[type, str] = {}
        self._began_ns = self._shift_ns = 0
        self._position_ns = 0
        self._counts_from_zero = False

    def facts(self) -> dict[str, object]:
        """Which topics play, and how far."""
        recording = self._recording
        duration_s = (recording.end_ns - recording.start_ns) * 1e-9
        position_s = max(0, self._position_ns - recording.start_ns) * 1e-9
        return {
            "bag": recording.path.name,
            "topic": self._channel.topic,
            "type": self._channel.type_name,
            "camera_info": self._info_topic or "none",
            "telemetry": ", ".join(sorted({*self._telemetry_from.values()})) or "none",
            "position": f"{position_s:.1f} of {duration_s:.1f} s",
        }

    def problem(self) -> str:
        """Where the bag is broken, once that is known."""
        return self._recording.broken or ""

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Deliver the whole bag."""
        config = self._config
        pace = pace_of(stop) if config.realtime else None
        delivery = Delivery(sink, config.stream, self._camera_for, pace)
        reader = _reader(self._channel, delivery, config)
        self._take_first_camera()
        self._counts_from_zero = self._stamps_count_from_zero()
        self._began_ns = time.time_ns()
        self._shift_ns = self._shift_to(self._began_ns) if config.realtime else 0
        topics = {self._channel.topic, self._info_topic, *self._telemetry_topics()} - {""}
        for message in self._recording.messages(topics):
            if stop.is_set():
                break
            self._position_ns = message.log_ns
            self._take(message, reader, sink)
        reader.flush()
        broken = None if stop.is_set() else self._recording.broken
        if broken:
            broken = f"the bag is not whole, {delivery.next_id} pictures are there: {broken}"
        return Summary(frames=delivery.frames, broken=broken)

    def _take(self, message: Recorded, reader: MessageReader, sink: Sink) -> None:
        is_picture = message.channel.topic == self._channel.topic
        try:
            decoded = self._messages.decode(message)
        except BagBroken as error:
            _log.debug("%s", error)
            if is_picture:
                reader.lost()
            return
        stamp_ns = self._shift_ns + self._stamp_ns(decoded, message)
        if is_picture:
            reader.feed(decoded, stamp_ns)
        elif message.channel.type_name == CAMERA_INFO:
            self._take_camera(decoded)
        elif not self._config.realtime or abs(stamp_ns - self._began_ns) < _LONGEST_RECORDING_NS:
            self._take_telemetry(message.channel, decoded, stamp_ns, sink)

    def _take_telemetry(self, channel: Channel, message: Any, stamp_ns: int, sink: Sink) -> None:
        samples: list[Telemetry] = measurements.samples_of(channel.type_name, message, stamp_ns)
        for sample in samples:
            if self._telemetry_from.setdefault(type(sample), channel.topic) == channel.topic:
                sink.measured(sample, self._config.stream)

    def _stamp_ns(self, decoded: Any, message: Recorded) -> int:
        return stamp_ns_of(decoded, message.log_ns, zero_is_a_time=self._counts_from_zero)

    def _shift_to(self, host_ns: int) -> int:
        """From the first picture's stamp to `host_ns`; other topics may have other clocks."""
        for message in self._recording.messages({self._channel.topic}):
            with suppress(BagBroken):  # it is counted when its turn comes
                return host_ns - self._stamp_ns(self._messages.decode(message), message)
        return 0

    def _stamps_count_from_zero(self) -> bool:
        """Whether a first stamp of zero is a time: the second picture's then follows it."""
        first = itertools.islice(self._recording.messages({self._channel.topic}), 2)
        try:
            stamps_ns = [stamp_ns_of(self._messages.decode(m), -1) for m in first]
        except BagBroken:
            return False
        return len(stamps_ns) == 2 and stamps_ns[0] < 0 < stamps_ns[1] < _LONGEST_RECORDING_NS

    def _take_first_camera(self) -> None:
        """Intrinsics are often recorded just after the picture that they belong to."""
        channel = self._recording.channels.get(self._info_topic)
        first = self._recording.first(channel) if channel else None
        if first:
            try:
                self._take_camera(self._messages.decode(first))
            except BagBroken as error:
                _log.warning("%s", error)

    def _take_camera(self, info: Any) -> None:
        """One of zeros says that no camera is known any more."""
        rectified = measurements.is_rectified(self._channel.topic)
        self._camera = camera_of(info, rectified=rectified)

    def _camera_for(self, width: int, height: int) -> Camera | None:
        camera = self._camera
        if camera is None:
            return self._camera_with_focal(width, height)
        return camera_of_size(camera, width, height)

    def _chosen(self, topic: str) -> Channel:
        """The topic to play; raises `SourceError` that lists those that can be played."""
        recording = self._recording
        candidates = {name: self._why_not(name) for name in self._topics_of(PICTURE_TYPES)}
        playable = [name for name, why_not in candidates.items() if not why_not]
        if topic in playable or (not topic and len(playable) == 1):
            return recording.channels[topic or playable[0]]
        listed = "; ".join(
            f"{name} ({recording.channels[name].type_name}, {recording.counts.get(name, 0)})"
            + (f" not playable: {why_not}" if why_not else "")
            for name, why_not in candidates.items()
        )
        found = f"topics of pictures: {listed}" if listed else self._no_pictures()
        if topic in candidates:
            raise SourceError(f"{recording.path}: {topic} cannot be played; {found}")
        if topic:
            raise SourceError(f"{recording.path} has no topic {topic} of pictures; {found}")
        if self._config.topics and not candidates:
            raise SourceError(
                f"{recording.path}: no topic of pictures is among `topics` {self._config.topics!r}"
            )
        if playable:
            raise SourceError(f"{recording.path}: choose one with `topic`; {found}")
        raise SourceError(f"{recording.path} cannot be played; {found}")

    def _topics_of(self, types: tuple[str, ...]) -> list[str]:
        """Those of these types, among the topics that are to be played."""
        found = [c.topic for c in self._recording.channels.values() if c.type_name in types]
        return sorted(topic for topic in found if self._wanted.search(topic))

    def _telemetry_topics(self) -> list[str]:
        types = {topic: channel.type_name for topic, channel in self._recording.channels.items()}
        found = measurements.telemetry_topics(self._channel.topic, types)
        return [topic for topic in found if self._wanted.search(topic)]

    def _why_not(self, topic: str) -> str:
        channel = self._recording.channels[topic]
        if channel.encoding not in _READABLE:
            return f"its messages are written as {channel.encoding}, only ROS messages can be read"
        first = self._recording.first(channel)
        if first is None:
            return "it holds no message that can be read"
        try:
            return why_no_picture(channel.type_name, self._messages.decode(first))
        except BagBroken as error:
            return str(error)

    def _no_pictures(self) -> str:
        types = {channel.type_name for channel in self._recording.channels.values()}
        known = ", ".join(PICTURE_TYPES)
        return (
            f"it holds no topic of pictures ({known}), only {', '.join(sorted(types)) or 'nothing'}"
        )


def _expression(topics: str) -> re.Pattern[str]:
    try:
        return re.compile(topics)
    except re.error as error:
        raise SourceError(f"`topics` {topics!r} is no regular expression: {error}") from error


def _reader(channel: Channel, delivery: Delivery, config: IngestConfig) -> MessageReader:
    if channel.type_name == IMAGE:
        return ImageReader(delivery)
    if channel.type_name == COMPRESSED_IMAGE:
        return CompressedImageReader(delivery)
    return VideoReader(delivery, config)
