# SPDX-License-Identifier: Apache-2.0
"""A Foxglove server: ROS 2 messages as they are (CDR), surface and objects as scenes, the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worldsystem_core.access import tls_context
from worldsystem_core.errors import MissingDependency, PortInUse
from worldsystem_core.handoff import Handoff
from worldsystem_core.objects import MapObjects
from worldsystem_core.priority import lower_thread_priority
from worldsystem_core.surface import Mesh, MeshDelta
from worldsystem_viewer.addresses import cannot_listen
from worldsystem_viewer.chunks import ChunkedSurface, ChunkIndex
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.foxglove_control import (
    Listener,
    LogHandler,
    Remote,
    ServiceText,
    listener,
    services,
)
from worldsystem_viewer.foxglove_scene import chunk_update, frame_of, objects_update
from worldsystem_viewer.foxglove_second_sending import SecondSending
from worldsystem_viewer.foxglove_topic import OfferedTopic

log = logging.getLogger(__name__)
MESH_TOPIC = "/world/mesh"
OBJECTS_TOPIC = "/world/objects"
LOG_TOPIC = "/world/log"
_WAIT_S = 0.5
_NICENESS = 10
_BACKLOG = 128  # messages that wait for a slow client; then its oldest go
_CHUNKS_AT_ONCE = 32
_PAUSE_S = 0.25
_AGAIN_AFTER_S = 10.0
_AGAIN_PERIOD_S = 0.4  # a chunk has some 100 kB


class FoxgloveSink:
    """Serves topics to Foxglove; every input returns at once.

    Advertise each topic once, then serialise and publish only while `wanted(topic)`, latched ones
    always. One thread turns changed chunks of the surface into models, only while somebody looks at
    them: in bursts, and each once more when it has been quiet, for whoever's line was full. What
    changed longest ago goes above `surface_mb`. `remote` answers for parameters and, with
    `control`, services. Raises `ConfigError` for certificates that cannot be used; `start` raises
    `MissingDependency`, `PortInUse`, or `ConfigError` for a host that is none of this machine.
    """

    def __init__(
        self,
        config: ViewerConfig,
        remote: Remote | None = None,
        service_texts: dict[str, ServiceText] | None = None,
    ) -> None:
        tls_context(config)  # with its complaints; the server itself takes the files
        self._config = config
        self._remote = remote
        self._service_texts = service_texts or {}
        self._objects: Handoff[MapObjects] = Handoff(1)
        self._newest_objects: MapObjects | None = None
        self._surface = ChunkedSurface(int(config.surface_mb * 2**20))
        self._again = SecondSending(_AGAIN_AFTER_S, _AGAIN_PERIOD_S)
        self._frame_id = "scene"
        self._stamp_ns = 0
        self._topics: dict[str, OfferedTopic] = {}
        self._subscribed: set[str] = set()  # since latched messages were told again
        self._changed = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="foxglove", daemon=True)
        self.port = config.foxglove_port

    def start(self) -> None:
        """Listen on `host`:`foxglove_port`."""
        try:
            import foxglove
        except ImportError as error:
            raise MissingDependency(
                "foxglove-sdk", "the Foxglove server", "pip install foxglove-sdk"
            ) from error
        self._foxglove = foxglove
        self._context = foxglove.Context()
        try:
            self._server = self._serve(foxglove)
        except RuntimeError as error:
            host, port = self._config.host, self._config.foxglove_port
            if "in use" in str(error):
                raise PortInUse("Foxglove", port, "foxglove_port") from error
            raise cannot_listen(host, port, "foxglove_port", error) from error
        self.port = self._server.port
        channels, context = foxglove.channels, self._context
        self._mesh = channels.SceneUpdateChannel(MESH_TOPIC, context=context)
        self._boxes = channels.SceneUpdateChannel(OBJECTS_TOPIC, context=context)
        self._log_channel = channels.LogChannel(LOG_TOPIC, context=context)
        self._log_handler = LogHandler(foxglove.messages, self._log_channel)
        logging.getLogger().addHandler(self._log_handler)
        self._thread.start()
        scheme = "wss" if self._config.tls_certificate else "ws"
        log.info("Foxglove server on %s://%s:%d", scheme, self._config.host, self.port)

    def _serve(self, foxglove: Any) -> Any:
        controlled = self._config.control and self._remote is not None
        capability = foxglove.websocket.Capability
        capabilities = [capability.Parameters] if self._remote is not None else []
        offered: list[Any] = []
        if controlled and self._remote is not None:
            offered = services(foxglove, self._remote, self._service_texts)
            capabilities.append(capability.Services)
        tls = _tls_files(self._config)
        listening = Listener(
            foxglove, self._remote, may_set=controlled, on_subscribe=self._on_subscribe
        )
        return foxglove.start_server(
            name="WorldSystem",
            host=self._config.host,
            port=self._config.foxglove_port,
            capabilities=capabilities,
            supported_encodings=["cdr"],
            services=offered or None,
            server_listener=listener(foxglove, listening),
            context=self._context,
            message_backlog_size=_BACKLOG,
            **tls,
        )

    def stop(self) -> None:
        """Disconnect everybody and join the thread; does nothing when not started, or twice.

        The thread may have ended before, by an error.
        """
        if self._thread.ident is None or self._stopping.is_set():
            return
        logging.getLogger().removeHandler(self._log_handler)
        self._stopping.set()
        self._changed.set()
        self._thread.join(timeout=5.0)
        self._server.stop()
        topics, self._topics = self._topics, {}  # other stages still publish
        own = (self._mesh, self._boxes, self._log_channel)
        for channel in (*topics.values(), *own):
            channel.close()

    def advertise(
        self,
        topic: str,
        schema_name: str,
        schema_text: str,
        *,
        part_of: Callable[[bytes], str] | None = None,
    ) -> None:
        """Offer `topic`; `schema_text` is the .msg definition with those that it depends on.

        With `part_of` it is latched: whoever subscribes later gets the newest message of each part,
        as `part_of` names that of a message.
        """
        if topic in self._topics:
            return
        schema = self._foxglove.Schema(
            name=schema_name, encoding="ros2msg", data=schema_text.encode()
        )
        channel = self._foxglove.Channel(
            topic, message_encoding="cdr", schema=schema, context=self._context
        )
        self._topics[topic] = OfferedTopic(channel, part_of)

    def wanted(self, topic: str) -> bool:
        """Whether anybody subscribed to `topic`; False for one that was never advertised."""
        offered = self._topics.get(topic)
        return offered is not None and offered.is_wanted

    def publish(self, topic: str, cdr: bytes, log_time_ns: int) -> None:
        """Send one serialised message on an advertised topic; after `stop` nobody gets it."""
        offered = self._topics.get(topic)
        if offered is not None:
            offered.log(cdr, log_time_ns)

    def mesh(self, delta: MeshDelta) -> None:
        """What changed on the surface."""
        self._frame_id = frame_of(delta.scale)
        self._stamp_ns = delta.stamp_ns
        self._surface.apply(delta)
        self._changed.set()

    def objects(self, objects: MapObjects) -> None:
        """The objects of the map, replacing those before."""
        self._newest_objects = objects
        self._objects.put(objects)
        self._changed.set()

    def _on_subscribe(self, topic: str) -> None:
        if topic == MESH_TOPIC:
            self._surface.mark_all_changed()
        elif topic == OBJECTS_TOPIC and self._newest_objects is not None:
            self._objects.put(self._newest_objects)
        else:
            self._subscribed.add(topic)
        self._changed.set()

    def _run(self) -> None:
        lower_thread_priority(_NICENESS)
        try:
            while not self._stopping.is_set():
                self._changed.wait(_WAIT_S)
                self._changed.clear()
                self._log_latched()
                self._log_objects()
                self._log_surface()
        except Exception:  # the edge of a thread: the pipeline goes on without it
            log.exception("surface and objects come to Foxglove no more")

    def _log_latched(self) -> None:
        """What latched topics told before somebody subscribed to them."""
        while self._subscribed:
            offered = self._topics.get(self._subscribed.pop())
            if offered is not None:
                offered.log_again(time.time_ns())

    def _log_objects(self) -> None:
        objects = self._objects.get(0.0)
        if objects is not None and self._boxes.has_sinks():
            update = objects_update(self._foxglove.messages, objects)
            self._boxes.log(update, log_time=max(0, objects.stamp_ns))

    def _log_surface(self) -> None:
        """A burst of what changed, and a pause behind a whole one; then one chunk once more."""
        if not self._mesh.has_sinks():
            self._again.clear()
            return
        for _ in range(_CHUNKS_AT_ONCE):
            part = self._surface.take_changed()
            if part is None:
                self._log_again()
                return
            self._log_chunk(*part)
            self._again.sent(part[0], time.monotonic())
        self._stopping.wait(_PAUSE_S)
        self._changed.set()

    def _log_again(self) -> None:
        chunk = self._again.take(time.monotonic())
        if chunk is not None:
            self._log_chunk(chunk, self._surface.mesh_of(chunk))

    def _log_chunk(self, chunk: ChunkIndex, mesh: Mesh) -> None:
        update = chunk_update(
            self._foxglove.messages, chunk, mesh, frame_id=self._frame_id, stamp_ns=self._stamp_ns
        )
        self._mesh.log(update, log_time=max(0, self._stamp_ns))


def _tls_files(config: ViewerConfig) -> dict[str, bytes]:
    """What the server needs for wss, of files that `tls_context` could use."""
    if not config.tls_certificate:
        return {}
    certificate, key = (
        Path(name).expanduser() for name in (config.tls_certificate, config.tls_key)
    )
    return {"tls_cert": certificate.read_bytes(), "tls_key": key.read_bytes()}
