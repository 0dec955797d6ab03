# SPDX-License-Identifier: Apache-2.0
"""A Foxglove server: ROS 2 messages as they are (CDR), and the surface as embedded models."""

from __future__ import annotations

import logging
import threading
from typing import Any

from worldsystem_core.errors import MissingDependency, PortInUse
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.surface import Mesh, MeshDelta
from worldsystem_viewer.chunks import ChunkedSurface, ChunkIndex
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.glb import glb_from_mesh

log = logging.getLogger(__name__)
MESH_TOPIC = "/world/mesh"
_WAIT_S = 0.5


class FoxgloveSink:
    """Serves topics to Foxglove; every input returns at once.

    Advertise each topic once, then serialise and publish only while `wanted(topic)`. One thread
    turns changed chunks of the surface into models, only while somebody looks at them. `start`
    raises `MissingDependency` or `PortInUse`.
    """

    def __init__(self, config: ViewerConfig) -> None:
        self._config = config
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
            self._server = foxglove.start_server(
                name="WorldSystem",
                host=self._config.host,
                port=self._config.foxglove_port,
                server_listener=_Listener(self._on_subscribe),
                context=self._context,
            )
        except RuntimeError as error:
            if "in use" not in str(error):
                raise
            raise PortInUse("Foxglove", self._config.foxglove_port, "foxglove_port") from error
        self.port = self._server.port
        self._mesh = foxglove.channels.SceneUpdateChannel(MESH_TOPIC, context=self._context)
        self._thread.start()
        log.info("Foxglove server on ws://%s:%d", self._config.host, self.port)

    def stop(self) -> None:
        """Disconnect everybody and join the thread; does nothing when not started."""
        if not self._thread.is_alive():
            return
        self._stopping.set()
        self._changed.set()
        self._thread.join(timeout=5.0)
        self._server.stop()
        for channel in (*self._channels.values(), self._mesh):
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
        self._frame_id = "map" if delta.scale is ScaleState.METRIC else "scene"
        self._stamp_ns = delta.stamp_ns
        self._surface.apply(delta)
        self._changed.set()

    def _on_subscribe(self, topic: str) -> None:
        if topic == MESH_TOPIC:
            self._surface.mark_all_changed()
            self._changed.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._changed.wait(_WAIT_S)
            self._changed.clear()
            while self._mesh.has_sinks() and (part := self._surface.take_changed()):
                self._send(*part)
                if self._stopping.is_set():
                    return

    def _send(self, chunk: ChunkIndex, mesh: Mesh) -> None:
        messages = self._foxglove.messages
        stamp = messages.Timestamp(*divmod(self._stamp_ns, 10**9))
        name = "_".join(map(str, chunk))
        if len(mesh.faces) == 0:
            deletion = messages.SceneEntityDeletion(
                timestamp=stamp, type=messages.SceneEntityDeletionType.MatchingId, id=name
            )
            self._mesh.log(messages.SceneUpdate(deletions=[deletion]), log_time=self._stamp_ns)
            return
        model = messages.ModelPrimitive(
            pose=messages.Pose(
                position=messages.Vector3(), orientation=messages.Quaternion(x=0, y=0, z=0, w=1)
            ),
            scale=messages.Vector3(x=1, y=1, z=1),
            media_type="model/gltf-binary",
            data=glb_from_mesh(mesh),
        )
        entity = messages.SceneEntity(
            timestamp=stamp, frame_id=self._frame_id, id=name, models=[model]
        )
        self._mesh.log(messages.SceneUpdate(entities=[entity]), log_time=self._stamp_ns)


class _Listener:
    """Tells which topic somebody subscribed to; called from the server's own threads."""

    def __init__(self, on_subscribe: Any) -> None:  # a callable that takes the topic
        self._on_subscribe = on_subscribe

    def on_subscribe(self, _client: Any, channel: Any) -> None:
        self._on_subscribe(channel.topic)
