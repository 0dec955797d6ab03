# SPDX-License-Identifier: Apache-2.0
"""Logging to Rerun: to a file, and to a server that this process starts and ends."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from worldsystem_core.errors import ConfigError, MissingDependency
from worldsystem_core.frames import EncodedFrame
from worldsystem_core.handoff import Handoff
from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_core.priority import give_way, lower_thread_priority, patience_s
from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    Pose,
    RemovedKeyframes,
    ScaleState,
)
from worldsystem_core.sparing import Sparing
from worldsystem_core.surface import MeshDelta
from worldsystem_core.trajectory import StampedPoses
from worldsystem_viewer.camera_path import CameraPath
from worldsystem_viewer.chunks import ChunkedSurface
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.rerun_blueprint import blueprint
from worldsystem_viewer.rerun_entities import RerunEntities
from worldsystem_viewer.rerun_server import MISSING, RerunServer

log = logging.getLogger(__name__)
_QUEUE = 128
_WAIT_S = 0.2
_NICENESS = 10
_FLUSH_S = 5.0
_SECOND_NS = 10**9
_SURFACE_PERIOD_S, _SURFACE_AT_LEAST_S = 1.0, 4.0
_SURFACE_SHARE = 0.04
"""The surface is logged so often that it takes this share of a processor, whether somebody looks or
not. A part that changes several times in between is logged once."""


class RerunSink:
    """Logs the world to Rerun from a thread of its own; every input returns at once, and those that
    make the path come from one thread.

    When the thread falls behind, the oldest inputs are dropped and counted; the surface and what
    makes the path never are. What of the surface changed longest ago goes above `surface_mb`, from
    the log, too.
    `start` raises `MissingDependency`, `PortInUse`, or `ConfigError` for a host or file that cannot
    be used. A server that went away is not waited for.
    """

    def __init__(self, config: ViewerConfig) -> None:
        self._config = config
        self._inbox: Handoff[Callable[[RerunEntities], None]] = Handoff(_QUEUE)
        self._pictures: Handoff[tuple[np.ndarray, int]] = Handoff(1)
        self._surface = ChunkedSurface(int(config.surface_mb * 2**20))
        self._logging = Sparing(
            _SURFACE_SHARE,
            least_s=_SURFACE_PERIOD_S,
            most_s=_SURFACE_AT_LEAST_S,
            clock=time.monotonic,
            spent=time.thread_time,
        )
        self._video_size: tuple[int, int] | None = None
        self._has_video = False
        self._units = 0
        self._logged_unit = 0  # the newest one whose picture can be made; the log's thread's own
        self._picture_ns = -_SECOND_NS * 3600
        self._path = CameraPath()
        self._path_lock = threading.Lock()
        self._is_corrected = False  # and perhaps no pose comes that would show it
        self._turned_to: ScaleState | None = None
        self._server: RerunServer | None = None
        self._thread = threading.Thread(target=self._run, name="rerun", daemon=True)

    @property
    def dropped(self) -> int:
        return self._inbox.dropped + self._pictures.dropped

    def start(self) -> None:
        """Open the log's destinations."""
        try:
            import rerun
        except ImportError as error:
            raise MissingDependency(*MISSING) from error
        server = RerunServer(self._config) if self._config.rerun_serve else None
        self._stream = rerun.RecordingStream("worldsystem")
        if server is not None:
            server.start()  # first: who comes to a server that is not there yet gives up
        try:
            self._open(rerun, server)
        except BaseException:
            if server is not None:
                server.end()
            raise
        self._server = server
        server_bytes = self._config.rerun_mb * 2**20
        quality = self._config.jpeg_quality
        self._entities = RerunEntities(rerun, self._stream, quality, server_bytes)
        self._thread.start()

    def _open(self, rerun: Any, server: RerunServer | None) -> None:
        sinks: list[Any] = []
        if self._config.rerun_file:
            sinks.append(rerun.FileSink(self._config.rerun_file))
        if server is not None:
            sinks.append(rerun.GrpcSink(server.url))
        if not sinks:
            return
        try:
            self._stream.set_sinks(*sinks)
        except (RuntimeError, OSError) as error:
            if not self._config.rerun_file:
                raise
            raise ConfigError(
                f"`viewer.rerun_file` {self._config.rerun_file} cannot be written: {error}; name "
                f"one in a folder that is there"
            ) from error
        self._stream.send_blueprint(blueprint(rerun))

    def stop(self) -> None:
        """Write what is queued, close the file, end the server; nothing when not started.

        The thread may have ended before, by an error.
        """
        if self._thread.ident is None:
            return
        self._inbox.close()
        self._thread.join(timeout=_FLUSH_S)
        # the server may be gone, and what it misses is lost with it
        with contextlib.suppress(RuntimeError, ValueError, OSError):
            self._stream.flush(timeout_sec=_FLUSH_S)
        self._stream.disconnect()
        if self._server is not None:
            self._server.end()

    def pose(self, pose: Pose) -> None:
        """The newest camera pose; a tracked one extends the path."""
        with self._path_lock:
            self._path.add(pose)
        self._inbox.put(lambda entities: self._log_pose(entities, pose))

    def path_before(self, poses: StampedPoses) -> None:
        """The whole path: what lies before the first pose told here is shown with the next one."""
        with self._path_lock:
            self._path.put_before(poses)

    def keyframe(self, keyframe: Keyframe) -> None:
        """A new keyframe: the camera's shape, and what the path hangs on."""
        with self._path_lock:
            self._path.add_keyframe(keyframe.id, keyframe.world_from_cam)
        self._inbox.put(lambda entities: entities.keyframe(keyframe))

    def moved(self, moved: MovedKeyframes) -> None:
        """Keyframes were corrected; the path follows, also where no pose comes any more."""
        with self._path_lock:
            self._path.move(moved.world_from_cam, moved.point_scale)
            self._turned_to = moved.scale or self._turned_to
        self._is_corrected = True

    def removed(self, removed: RemovedKeyframes) -> None:
        """Keyframes were withdrawn; the path goes on with those that stand in for them, and goes
        with the last one."""
        with self._path_lock:
            had_one = len(self._path) > 0
            self._path.remove(removed)
            has_gone = had_one and not len(self._path)
        if has_gone:  # once: removals come by the hundred, and would crowd out what is shown
            self._is_corrected, self._turned_to = False, None
            self._inbox.put(self._log_path)

    def mesh(self, delta: MeshDelta) -> None:
        """What changed on the surface."""
        self._surface.apply(delta)
        self._logging.wanted = True

    def image(self, rgb: UInt8[np.ndarray, "h w 3"], stamp_ns: int) -> None:
        """A picture, logged as JPEG `image_fps` times a second at most, by its capture time.

        One that waited is dropped and counted. Where the video itself is logged, only its size
        is taken.
        """
        if self._has_video:
            size = (int(rgb.shape[1]), int(rgb.shape[0]))
            if size != self._video_size:
                self._video_size = size
                self._inbox.put(lambda entities: entities.size_of_video(size))
            return
        if abs(stamp_ns - self._picture_ns) * self._config.image_fps >= _SECOND_NS:
            self._picture_ns = stamp_ns
            self._pictures.put((rgb, stamp_ns))

    def video(self, frame: EncodedFrame) -> None:
        """One access unit as received; after a loss nothing until the next key frame."""
        if not (self._has_video or frame.is_key):
            return
        self._has_video = True
        self._units = number = self._units + 1
        self._inbox.put(lambda entities: self._log_video(entities, frame, number))

    def tracks(self, frame: TrackFrame) -> None:
        """What is seen in the newest segmented frame."""
        self._inbox.put(lambda entities: entities.tracks(frame))

    def objects(self, objects: MapObjects) -> None:
        """The objects of the map, replacing those before."""
        self._inbox.put(lambda entities: entities.objects(objects))

    def _log_pose(self, entities: RerunEntities, pose: Pose) -> None:
        entities.pose(pose)
        self._log_path(entities)

    def _log_path(self, entities: RerunEntities) -> None:
        entities.path(len(self._path), self._positions)

    def _log_correction(self) -> None:
        """What moved since the last pose, which may be the run's last."""
        self._is_corrected = False  # first: what moves meanwhile is logged the next time
        with self._path_lock:
            scale, self._turned_to = self._turned_to, None
        if scale is not None:
            self._entities.turn_upright(scale)
        if not self._entities.path(len(self._path), self._positions):
            self._is_corrected = True

    def _positions(self) -> Float32[np.ndarray, "n 3"]:
        with self._path_lock:
            return self._path.positions()

    def _log_video(self, entities: RerunEntities, frame: EncodedFrame, number: int) -> None:
        """Behind what was dropped, a gap in the numbers, only a key frame begins anew."""
        if frame.is_key or number == self._logged_unit + 1:
            self._logged_unit = number
            entities.video(frame)

    def _run(self) -> None:
        lower_thread_priority(_NICENESS)
        try:
            while not self._inbox.closed:
                self._log_queued(_WAIT_S)
            self._log_queued(0.0)
            while len(self._inbox):
                self._log_queued(0.0)
            self._entities.path(len(self._path), self._positions, at_once=True)
            self._log_surface()
        except Exception:  # the edge of a thread: the pipeline goes on without Rerun
            self._inbox.close()
            log.exception("logging to Rerun stopped")

    def _log_queued(self, timeout_s: float) -> None:
        give_way(patience_s(_NICENESS))
        if (step := self._inbox.get(timeout_s)) is not None:
            step(self._entities)
        if (picture := self._pictures.get(0.0)) is not None:
            self._entities.picture(*picture)
        if self._is_corrected and not len(self._inbox):  # behind the poses from before it
            self._log_correction()
        if self._logging.is_due:
            with self._logging.work():
                self._log_surface()

    def _log_surface(self) -> None:
        for _ in range(self._surface.changed):  # one that changes meanwhile waits for the next time
            if (part := self._surface.take_changed()) is not None:
                self._entities.chunk(*part)
        self._entities.renew(self._surface.mesh_of)
