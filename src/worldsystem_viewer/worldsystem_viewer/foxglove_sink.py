# SPDX-License-Identifier: Apache-2.0
"""A Foxglove server: ROS 2 messages as they are (CDR), surface and objects as scenes, the log."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from worldsystem_core.errors import MissingDependency, PortInUse
from worldsystem_core.handoff import Handoff
from worldsystem_core.objects import MapObjects
from worldsystem_core.priority import lower_thread_priority
from worldsystem_core.surface import MeshDelta
from worldsystem_viewer.chunks import ChunkedSurface
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

log = logging.getLogger(__name__)
MESH_TOPIC = "/world/mesh"
OBJECTS_TOPIC = "/world/objects"
LOG_TOPIC = "/world/log"
_WAIT_S = 0.5
_NICENESS = 10
_BACKLOG = 128  # messages that wait for a slow client; then its oldest go


class FoxgloveSink:
    """Serves topics to Foxglove; every input returns at once.

    Advertise each topic once, then serialise and publish only while `wanted(topic)`. One thread
    turns changed chunks of the surface into models, only while somebody looks at them. `remote`
    answers for parameters and, with `control`, services. `start` raises `MissingDependency` or
    `PortInUse`.
    """

    def __init__(
        self,
        config: ViewerConfig,
        remote: Remote | None = None,
        service_texts: dict[str, ServiceText] | None = None,
    ) -> None:
        self._config = config
        self._remote = remote
        self._service_texts = service_texts or {}
        self._objects: Handoff[MapObjects] = Handoff(1)
        self._newest_objects: MapObjects | None = None
        self._surface = ChunkedSurface()
        self._frame_id = "scene"
        self._stamp_ns = 0
        self._channels: dict[str, Any] = {}  # foxglove.Channel, imported only in start
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
            if "in use" not in str(error):
                raise
            raise PortInUse("Foxglove", self._config.foxglove_port, "foxglove_port") from error
        self.port = self._server.port
        channels, context = foxglove.channels, self._context
        self._mesh = channels.SceneUpdateChannel(MESH_TOPIC, context=context)
        self._boxes = channels.SceneUpdateChannel(OBJECTS_TOPIC, context=context)
        self._log_channel = channels.LogChannel(LOG_TOPIC, context=context)
        self._log_handler = LogHandler(foxglove.messages, self._log_channel)
        logging.getLogger().addHandler(self._log_handler)
        self._thread.start()
        log.info("Foxglove server on ws://%s:%d", self._config.host, self.port)

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
        """Disconnect everybody and join the thread; does nothing when not started."""
        if not self._thread.is_alive():
            return
        logging.getLogger().removeHandler(self._log_handler)
        self._stopping.set()
        self._changed.set()
        self._thread.join(timeout=5.0)
        self._server.stop()
        own = (self._mesh, self._boxes, self._log_channel)
        for channel in (*self._channels.values(), *own):
            channel.close()
        self._channels.clear()

    def advertise(self, topic: str, schema_name: str, schema_text: str) -> None:
        """Offer `topic`; `schema_text` is the .msg definition with those that it depends on."""
        if topic in self._channels:
            return
        schema = self._foxglove.Schema(
            name=schema_name, encoding="ros2msg", data=schema_text.encode()
        )
        self._channels[topic] = self._foxglove.Channel(
            topic, message_encoding="cdr", schema=schema, context=self._context
        )

    def wanted(self, topic: str) -> bool:
        """Whether anybody subscribed to `topic`; False for one that was never advertised."""
        channel = self._channels.get(topic)
        return channel is not None and bool(channel.has_sinks())

    def publish(self, topic: str, cdr: bytes, log_time_ns: int) -> None:
        """Send one serialised message on an advertised topic."""
        self._channels[topic].log(cdr, log_time=log_time_ns)

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
        self._changed.set()

    def _run(self) -> None:
        lower_thread_priority(_NICENESS)
        while not self._stopping.is_set():
            self._changed.wait(_WAIT_S)
            self._changed.clear()
            messages = self._foxglove.messages
            objects = self._objects.get(0.0)
            if objects is not None and self._boxes.has_sinks():
                update = objects_update(messages, objects)
                self._boxes.log(update, log_time=objects.stamp_ns)
            while self._mesh.has_sinks() and (part := self._surface.take_changed()):
                update = chunk_update(
                    messages, *part, frame_id=self._frame_id, stamp_ns=self._stamp_ns
                )
                self._mesh.log(update, log_time=self._stamp_ns)
                if self._stopping.is_set():
                    return


def _tls_files(config: ViewerConfig) -> dict[str, bytes]:
    """What the server needs for wss; the page's server has checked both files already."""
    if not config.tls_certificate:
        return {}
    certificate, key = (
        Path(name).expanduser() for name in (config.tls_certificate, config.tls_key)
    )
    return {"tls_cert": certificate.read_bytes(), "tls_key": key.read_bytes()}
