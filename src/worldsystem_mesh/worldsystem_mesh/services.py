# SPDX-License-Identifier: Apache-2.0
"""What is done with the surface beside making it: quality, the stream, files, figures."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from worldsystem_core.errors import WorldSystemError
from worldsystem_core.mesh_stream.streamed import StreamedDelta
from worldsystem_core.reconstruction import Pose, ScaleState, TrackingState
from worldsystem_core.surface import MeshDelta
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.export.files import FORMATS, TEXTURED_FORMATS, ExportError, save_mesh
from worldsystem_mesh.export.textured import Photo, spread
from worldsystem_mesh.mesher import Mesher
from worldsystem_mesh.methods.quality import QualityPass
from worldsystem_mesh.metrics import metrics_server
from worldsystem_mesh.snapshot import SurfaceSnapshot
from worldsystem_mesh.stream import MeshStreamer
from worldsystem_mesh.view import StoredView

log = logging.getLogger(__name__)
_MAX_PHOTOS = 300
_JOIN_S = 60.0


class MeshServices:
    """Everything around a `Mesher`; one thread, that of the mesher."""

    def __init__(self, config: MeshConfig, mesher: Mesher) -> None:
        self._mesher = mesher
        self._quality = QualityPass(config, mesher)
        self._stream = MeshStreamer(config, lambda: mesher.all_blocks(0, time.time_ns()))
        self._facts: Mapping[str, object] = {}
        self._refused = 0
        self.problem = ""
        self._saving: threading.Thread | None = None
        self._sent = (time.monotonic(), 0)
        self._metrics = metrics_server(config, lambda: self._facts, lambda: self.problem)

    @property
    def metrics_port(self) -> int:
        """Where `/metrics` and `/health` are; 0: nowhere."""
        return self._metrics.port

    @property
    def quality(self) -> QualityPass:
        """The quality methods."""
        return self._quality

    def camera(self, pose: Pose) -> None:
        """Where the camera is; frames that are not located say nothing."""
        if pose.state is TrackingState.TRACKED:
            metric = pose.scale is ScaleState.METRIC
            self._quality.camera(pose.stamp_ns, pose.world_from_cam[:3, 3], metric=metric)

    def fused(self, delta: MeshDelta) -> None:
        """What fusion changed on the surface."""
        self._quality.take(delta)
        self._stream.take(delta)

    def idle(self, stamp_ns: int) -> MeshDelta | None:
        """Use the time: what a quality method changed on the surface, if anything."""
        if not self._mesher.is_settled:
            return None
        delta = self._quality.step(stamp_ns)
        if delta is not None:
            self._stream.take(delta)
        return delta

    def stream(self, listeners: int, joins: int, now_s: float) -> Iterator[StreamedDelta]:
        """What goes out on the stream now, to so many, of as many as `joins` that ever came."""
        self._stream.listeners(listeners, joins)
        return self._stream.next(now_s)

    def figures(self) -> dict[str, object]:
        """Figures of the last second, for people, Prometheus and the statistics topic."""
        now_s, sent = time.monotonic(), self._stream.bytes
        span_s = max(now_s - self._sent[0], 1e-3)
        mbps = 8e-6 * (sent - self._sent[1]) / span_s
        self._sent = (now_s, sent)
        stats = dict(self._mesher.stats())
        self._note_refused(int(str(stats["refused_blocks"])))
        self._facts = stats | {
            "stream_bytes": sent,
            "stream_messages": self._stream.messages,
            "stream_mbps": round(mbps, 3),
            "stream_missing_blocks": self._stream.missing_blocks,
            "method": self._quality.method,
            "camera_speed": round(float(np.nan_to_num(self._quality.camera_speed)), 3),
            "quality_regions": len(self._quality.methods()),
            "quality_failures": self._quality.failures,
            "quality_seconds": round(self._quality.seconds, 2),
            "metrics_port": self.metrics_port,
        }
        return dict(self._facts)

    def _note_refused(self, refused: int) -> None:
        """`problem` says so for as long as new surface finds no room."""
        lost, self._refused = refused - self._refused, refused
        self.problem = ""
        if lost > 0:
            self.problem = (
                f"no room for {lost} blocks of new surface in the last second: set "
                "mesher.memory_mb higher, or free the disk of mesher.page_dir"
            )

    def save(self, path: Path, *, max_faces: int = 0, texture: bool = False) -> SurfaceSnapshot:
        """Begin to write the surface as it is now; return what is being written.

        The surface is drawn and written by a thread of its own, so that fusion goes on. The file
        appears when it is whole; what goes wrong later is logged. Raises `ExportError` for what is
        known to be wrong at once, and while another file is being written.
        """
        if self._saving is not None and self._saving.is_alive():
            raise ExportError(f"{path} not written: another file is still being written")
        _check_place(path, texture=texture)
        surface = self._mesher.snapshot()
        if not surface.face_count:
            raise ExportError(f"{path} not written: there is no surface yet")
        views, scale = self._views_of_photos() if texture else None, self._mesher.scale

        def write() -> None:
            photos = None if views is None else [_photo(view) for view in views]
            save_mesh(path, surface.mesh(), max_faces=max_faces, photos=photos, scale=scale)

        self._saving = threading.Thread(target=_logged, args=(write, path), name="mesh_saving")
        self._saving.start()
        return surface

    def close(self) -> None:
        """End processes and threads; a file that is being written is waited for."""
        if self._saving is not None:
            self._saving.join(_JOIN_S)
        self._metrics.close()
        self._quality.close()

    def _views_of_photos(self) -> list[StoredView]:
        """Keyframes evenly spread over the run, as sources of texture."""
        ids = sorted(self._mesher.views.ids)
        chosen = spread(len(ids), _MAX_PHOTOS)
        views = (self._mesher.views.get(ids[at]) for at in chosen)
        return [view for view in views if view is not None]


def _check_place(path: Path, *, texture: bool) -> None:
    """Whether a surface can be written to `path`, as far as that is known beforehand."""
    try:
        there = path.parent.is_dir()
    except OSError as error:  # a name that is too long, or a folder that is closed to us
        raise ExportError(
            f"{path}: {error.strerror}; name a folder that the mesher can reach"
        ) from error
    if path.suffix not in FORMATS or not there:
        raise ExportError(f"{path}: needs a folder that exists, and one of {', '.join(FORMATS)}")
    if texture and path.suffix not in TEXTURED_FORMATS:
        raise ExportError(f"{path}: only {' and '.join(TEXTURED_FORMATS)} can have a texture")


def _photo(view: StoredView) -> Photo:
    return Photo(
        rgb=view.rgb,
        depth=view.depth.astype(np.float32) * np.float32(view.depth_step),
        camera=view.camera,
        world_from_cam=view.world_from_cam,
    )


def _logged(write: Callable[[], object], path: Path) -> None:
    try:
        write()
        log.info("the surface is in %s", path)
    except WorldSystemError as error:
        log.error("%s", error)
    except Exception:  # the edge of a thread
        log.exception("%s was not written", path)
