# SPDX-License-Identifier: Apache-2.0
"""Every topic into a bag as it comes, and each stream's video as it was received."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage
from worldsystem_msgs.srv import StartRecording, StopRecording

from worldsystem_core.errors import InterfaceMissing
from worldsystem_core.frames import EncodedFrame, Frame
from worldsystem_core.message_definitions import message_definition, type_hash
from worldsystem_core.reconstruction import NewKeyframe
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.messages import CAMERA_FRAME
from worldsystem_core.ros.adapters.slam import KeyframeEvent
from worldsystem_core.ros.cdr import CdrWriter
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.definitions import share_folders, type_name
from worldsystem_core.ros.foreign_topic import ForeignTopic, listen_to_foreign
from worldsystem_core.ros.latched import is_latched, part_of
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_core.ros.topic import Topic
from worldsystem_storage.bag_folder import free_folder
from worldsystem_storage.bag_metadata import qos_yaml
from worldsystem_storage.bag_writer import BagWriter
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.errors import DiskFull, StorageError
from worldsystem_storage.keyframe_files import KeyframeFiles
from worldsystem_storage.latched_messages import LatchedMessages
from worldsystem_storage.picture_format import COLOUR_JPEG
from worldsystem_storage.selection import Selection
from worldsystem_storage.unencoded_pictures import PICTURES, JpegPicture, UnencodedPictures
from worldsystem_storage.video_file import VideoSession
from worldsystem_storage.watchdog import GrowthWatchdog

log = logging.getLogger(__name__)

_LOOK_FOR_STREAMS_S = 1.0
_WATCH_S = 1.0


class RecorderNode(StageNode):
    """Hands CDR bytes to the writer; pictures stay in the video, points in the keyframes.

    Pictures of streams without encoded video become JPEG. Streams beside the first are found by
    their topics while it runs, and recorded likewise.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("recorder", StorageConfig, **kwargs)
        self._bag: BagWriter | None = None
        self._topics: list[Topic[Any]] = []
        self._namespaces: set[str] = set()
        self._foreign: dict[str, ForeignTopic | None] = {}
        self._sessions: dict[str, VideoSession] = {}
        self._pictures: dict[str, UnencodedPictures] = {}
        self._picture_topics: set[str] = set()
        self._latched = LatchedMessages()
        self._keyframe_files: KeyframeFiles | None = None
        self._wanted, self._unwanted = Selection(self.config.topics), Selection(self.config.exclude)
        self._pictures_stand_in = self._stand_in_for_video()
        self._watchdog = self._new_watchdog()
        self._waiting_for_room = self._lacks_files = ""
        self._record(tuple(topic for topic in topics.ALL if self._chosen(topic)))
        self._record_video("")
        self.listen(topics.KEYFRAME, self._on_keyframe, self._on_missed_keyframe)
        if self.config.record_at_start:
            self._start_when_there_is_room()
        self.create_timer(_LOOK_FOR_STREAMS_S, self._look_for_streams)
        self.create_timer(_LOOK_FOR_STREAMS_S, self._look_for_foreign_topics)
        self.create_timer(_WATCH_S, self._watch)
        self.create_service(StartRecording, "recorder/start", self._on_start)
        self.create_service(StopRecording, "recorder/stop", self._on_stop)

    def _chosen(self, topic: Topic[Any]) -> bool:
        """As `topics` and `exclude` say; the bulky ones only when they are asked for by name."""
        name = self.resolve_topic_name(topic.name)
        if name in self._unwanted:
            return False
        return name in self._wanted if self._wanted else topic not in topics.BULKY

    def _stand_in_for_video(self) -> bool:
        """Whether JPEG is recorded where no encoded video comes; not beside raw pictures."""
        name = self.resolve_topic_name(PICTURES)
        if name in self._unwanted or self._chosen(topics.IMAGE):
            return False
        return name in self._wanted or self._chosen(topics.VIDEO)

    def _wants_pictures(self) -> bool:
        return self._pictures_stand_in and self._bag is not None

    def _recording(self) -> bool:
        return self._bag is not None

    def _start_when_there_is_room(self) -> None:
        """A disk that is full at the start must not keep the rest from running."""
        try:
            name = self.config.name  # a bag of that name is another run's, which must not be mixed
            self._start(Path(self.config.folder) / name if name else self._next_folder())
        except DiskFull as error:
            if not self._waiting_for_room:
                log.error("%s", error)
            self._waiting_for_room = str(error)

    def _watch(self) -> None:
        if self._waiting_for_room and self._bag is None:
            try:
                self._start_when_there_is_room()
            except StorageError as error:  # the disk is away, not only full
                self._waiting_for_room = str(error)
        if self._bag is not None:
            self._watchdog.look(self._bag.state())
        if self._keyframe_files is not None:
            self._keyframe_files.settle()

    def _next_folder(self) -> Path:
        """The configured one, beside what this run has recorded there before."""
        name = self.config.name or datetime.now().strftime("%Y%m%d_%H%M%S")
        return free_folder(Path(self.config.folder) / name)

    def _start(self, folder: Path) -> None:
        bag = BagWriter(folder, self.config)
        try:
            self._announce_all(bag)
        except BaseException:
            bag.close()
            raise
        self._picture_topics.clear()
        with self._latched.held() as told_before:
            self._bag, self._waiting_for_room, self._lacks_files = bag, "", ""
            for topic_name, message in told_before:
                _write_now(bag, topic_name, message)
        self._watchdog = self._new_watchdog()
        for namespace in self._namespaces:
            self._open_session(namespace)
        log.info("recording to %s", folder)

    def _new_watchdog(self) -> GrowthWatchdog:
        return GrowthWatchdog(self.config.stall_s, self.config.flush_s)

    def _announce_all(self, bag: BagWriter) -> None:
        for topic in self._topics:
            self._announce(bag, topic.name, topic.adapter.ros_type, topic.qos)
        for foreign in filter(None, self._foreign.values()):
            _announce_foreign(bag, foreign)

    def _announce(self, bag: BagWriter, name: str, ros_type: type, qos: QoSProfile) -> None:
        kind = type_name(ros_type)
        bag.add_topic(
            self.resolve_topic_name(name),
            kind,
            message_definition(kind, share_folders()),
            type_hash(kind, share_folders()),
            _qos_text(qos),
        )

    def _record(self, recorded: tuple[Topic[Any], ...]) -> None:
        for topic in recorded:
            self._topics.append(topic)
            if self._bag is not None:
                self._announce(self._bag, topic.name, topic.adapter.ros_type, topic.qos)
            name = self.resolve_topic_name(topic.name)
            latched = is_latched(topic.qos)
            if latched:
                self._latched.add(name, part_of(topic))
            wanted = (lambda: True) if latched else self._recording
            self.listen_bytes(topic, self._write_to(name), wanted=wanted, direct=True)

    def _record_video(self, namespace: str) -> None:
        if self._bag is not None:
            self._open_session(namespace)
        pictures = self._pictures[namespace] = UnencodedPictures(self._wants_pictures)

        def on_video(unit: EncodedFrame) -> None:
            pictures.encoded(unit)
            if namespace in self._sessions:
                self._sessions[namespace].write(unit)

        def on_image(frame: Frame) -> None:
            self._write_pictures(namespace, pictures.take(frame))
            if namespace in self._sessions:
                self._sessions[namespace].still(frame)

        image = topics.in_namespace(topics.IMAGE, namespace)
        video = topics.in_namespace(topics.VIDEO, namespace)
        self.listen(video, on_video, pictures.encoded)  # one let go here is in the bag all the same
        self.listen(image, on_image, pictures.crowded_out)
        self._namespaces.add(namespace)

    def _write_pictures(self, namespace: str, taken: list[JpegPicture]) -> None:
        if not taken:
            return
        name = self.resolve_topic_name(f"{namespace}/{PICTURES}" if namespace else PICTURES)
        if self._bag is None or name in self._foreign or name in self._unwanted:
            return
        if name not in self._picture_topics:
            log.info("recording %s, since no encoded video comes", name)
            self._announce(self._bag, name, CompressedImage, topics.IMAGE.qos)
            self._picture_topics.add(name)
        for picture in taken:
            message = _compressed_image(picture)
            self._bag.write(name, message, picture.came_ns, picture.came_ns)

    def _open_session(self, namespace: str) -> None:
        """Video, stills and keyframes as files; where they cannot be, the bag goes on alone."""
        if self._bag is None or not self.config.video_files:
            return
        root = self._bag.folder.parent / "video" / namespace
        try:
            session = self._sessions[namespace] = VideoSession(root, self.config)
        except StorageError as error:
            self._lacks_files = f"no video files are written: {error}"
            log.error("%s", self._lacks_files)
            return
        if not namespace and self.config.keyframe_files:
            quality, reserve = self.config.still_quality, self.config.reserve_mib
            self._keyframe_files = KeyframeFiles(session.folder, quality, reserve)

    def _on_keyframe(self, event: KeyframeEvent) -> None:
        """Those that become files are in the account."""
        files = self._keyframe_files
        if files is None:
            return
        if not isinstance(event, NewKeyframe):
            files.take(event)
            return
        frame_id = event.keyframe.frame_id
        self.ledger.take(frame_id)
        if reason := files.take(event):
            self.ledger.drop(frame_id, reason)
        else:
            self.ledger.use(frame_id)

    def _on_missed_keyframe(self, event: KeyframeEvent) -> None:
        files = self._keyframe_files  # any thread calls, and another may stop the recording
        if files is not None and isinstance(event, NewKeyframe):
            self.ledger.drop_untaken(files.crowded_out())

    def _look_for_streams(self) -> None:
        """A stream beside the first shows by its video's topic in a namespace of its own.

        What of it was asked for by name, and came before the video, is recorded already.
        """
        ours = self.resolve_topic_name(topics.VIDEO.name)
        root = ours.removesuffix(topics.VIDEO.name)
        for name, _ in self.get_topic_names_and_types():
            below = name.startswith(root) and name.endswith(f"/{topics.VIDEO.name}")
            namespace = name[len(root) : -len(topics.VIDEO.name) - 1] if below else ""
            if namespace and "/" not in namespace and namespace not in self._namespaces:
                log.info("recording stream %s too", namespace)
                chosen = filter(self._chosen, topics.OF_A_STREAM)
                named = (topics.in_namespace(topic, namespace) for topic in chosen)
                self._record(tuple(topic for topic in named if not self._is_left_out(topic)))
                self._record_video(namespace)

    def _is_left_out(self, topic: Topic[Any]) -> bool:
        """By its own name, in the stream's namespace; or since it is recorded already."""
        name = self.resolve_topic_name(topic.name)
        return name in self._foreign or name in self._unwanted

    def _look_for_foreign_topics(self) -> None:
        """Topics of other nodes that were asked for are recorded as they come."""
        ours = {self.resolve_topic_name(topic.name) for topic in self._topics}
        ours |= self._picture_topics
        for name, kinds in self.get_topic_names_and_types():
            known = name in ours or name in self._foreign or name in self._unwanted
            if known or name not in self._wanted or len(kinds) != 1:
                continue
            if not self.count_publishers(name):  # whoever comes says how it is to be listened to
                continue
            try:
                found = listen_to_foreign(self, name, kinds[0], self._write_to(name))
            except InterfaceMissing as error:
                log.warning("%s is not recorded: %s", name, error)
                self._foreign[name] = None
                continue
            self._foreign[name] = found
            if is_latched(found.qos):
                self._latched.add(name)
            if self._bag is not None:
                _announce_foreign(self._bag, found)
            log.info("recording %s (%s) too", name, kinds[0])

    def _write_to(self, name: str) -> Callable[[bytes], None]:
        def write(message: bytes) -> None:
            bag = self._bag  # any thread calls, and another may stop the recording meanwhile
            if bag is not None:
                _write_now(bag, name, message)

        return lambda message: self._latched.pass_on(name, message, write)

    def _on_start(
        self, request: StartRecording.Request, response: StartRecording.Response
    ) -> StartRecording.Response:
        if self._bag is not None:
            response.message = f"already recording to {self._bag.folder}; stop that first"
            return response
        try:
            given = Path(self.config.folder) / request.folder
            self._start(given if request.folder else self._next_folder())
        except StorageError as error:
            response.message = str(error)
            return response
        response.success, response.folder = True, str(self._bag.folder)
        return response

    def _on_stop(
        self, _: StopRecording.Request, response: StopRecording.Response
    ) -> StopRecording.Response:
        bag, self._waiting_for_room = self._bag, ""  # nor shall it begin by itself later
        if bag is None:
            response.message = "nothing is being recorded"
            return response
        response.folder = str(bag.folder)
        stopped = bag.state().stopped
        try:
            response.messages = self._stop()
            stopped = stopped or bag.state().stopped  # its end may have failed, too
        except StorageError as error:
            stopped = str(error)
        response.success, response.message = not stopped, stopped
        return response

    def _stop(self) -> int:
        for namespace, pictures in self._pictures.items():
            self._write_pictures(namespace, pictures.rest())
        bag, self._bag = self._bag, None
        sessions, self._sessions = self._sessions, {}
        files, self._keyframe_files, self._waiting_for_room = self._keyframe_files, None, ""
        if files is not None:
            files.settle()
        for session in sessions.values():
            session.close()
        return sum(count.written for count in bag.close().values()) if bag else 0

    def facts(self) -> dict[str, object]:
        if self._bag is None:
            return {"recording": "no", "waiting": bool(self._waiting_for_room)}
        state = self._bag.state()
        written = sum(count.written for count in state.topics.values())
        lost = sum(sum(count.dropped.values()) for count in state.topics.values())
        files = [*self._sessions.values(), *self._pictures.values(), self._keyframe_files]
        return {
            "recording": self._bag.folder,
            "messages": written,
            "lost": lost,
            "gaps": state.gaps,
            "not_in_video": sum(each.dropped.total() for each in files if each is not None),
        }

    def problem(self) -> str:
        if self._bag is None:
            return self._waiting_for_room
        return self._bag.state().stopped or self._watchdog.problem or self._lacks_files

    def input_ended(self) -> None:
        try:
            self._stop()
        except StorageError as error:
            log.error("%s", error)


def _announce_foreign(bag: BagWriter, topic: ForeignTopic) -> None:
    text = _qos_text(topic.qos)
    bag.add_topic(topic.name, topic.type_name, topic.definition, topic.type_hash, text)


def _write_now(bag: BagWriter, name: str, message: bytes) -> None:
    now_ns = time.time_ns()
    bag.write(name, message, now_ns, now_ns)


def _compressed_image(picture: JpegPicture) -> bytes:
    writer = CdrWriter()
    writer.header(picture.stamp_ns, CAMERA_FRAME)
    writer.string(COLOUR_JPEG)
    writer.octets(picture.jpeg)
    return writer.finish()


def _qos_text(qos: QoSProfile) -> str:
    reliable = qos.reliability is ReliabilityPolicy.RELIABLE
    return qos_yaml(
        "reliable" if reliable else "best_effort",
        "transient_local" if is_latched(qos) else "volatile",
        qos.depth,
    )


def main() -> None:
    run_node(RecorderNode)
