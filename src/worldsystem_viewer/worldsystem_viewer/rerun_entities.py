# SPDX-License-Identifier: Apache-2.0
"""Which Rerun entity shows what: `world/mesh/*`, `world/camera`, `world/path`, `world/objects`.

Time lines: `capture` is the time of capture, `frame` the number of the picture. The surface is
static data: a viewer holds its newest state alone, and its memory follows the map, not the hours.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from worldsystem_core.frames import Camera, EncodedFrame
from worldsystem_core.geometry.rotation import quaternion_xyzw_from_matrix
from worldsystem_core.mesh_normals import vertex_normals
from worldsystem_core.objects import MapObjects, TrackFrame, TrackState
from worldsystem_core.reconstruction import Keyframe, Pose, ScaleState, TrackingState
from worldsystem_core.surface import Mesh, fault_of
from worldsystem_viewer.chunks import ChunkIndex
from worldsystem_viewer.rerun_statics import Name, Statics
from worldsystem_viewer.whole_picture import whole_camera, whole_tracks

log = logging.getLogger(__name__)
_PATH_PERIOD_S = 0.5
_PATH_CENTRES_PER_S = 5_000  # it is logged whole
_WORLD, _PICTURE = "world", "world/camera/picture"
_TRACKS = f"{_PICTURE}/tracks"
_CODECS = {"h264": "H264", "h265": "H265"}
_MESSAGE_BYTES = 1_000  # of one that holds next to nothing


class RerunEntities:
    """Writes core types to a recording, of which a server holds `server_bytes`; used by one thread
    only."""

    def __init__(self, rerun: Any, stream: Any, jpeg_quality: int, server_bytes: int) -> None:
        # `rerun` is the module: it is optional, so nothing here imports it
        self._rr = rerun
        self._stream = stream
        self._jpeg_quality = jpeg_quality
        self._camera: Camera | None = None
        self._picture_size = (0, 0)
        self._scale: ScaleState | None = None
        self._path_due_s = 0.0
        self._shows_path = False
        self._codec = ""
        self._statics = Statics(server_bytes)

    def pose(self, pose: Pose) -> None:
        """The camera, unless it is lost."""
        self._at(pose.stamp_ns, pose.frame_id)
        self.turn_upright(pose.scale)
        if pose.state is not TrackingState.TRACKED:
            return
        self._log(
            "world/camera",
            self._rr.Transform3D(
                translation=pose.world_from_cam[:3, 3], mat3x3=pose.world_from_cam[:3, :3]
            ),
        )

    def path(
        self,
        length: int,
        positions: Callable[[], Float32[np.ndarray, "n 3"]],
        *,
        at_once: bool = False,
    ) -> bool:
        """Where the camera was, at the time of what was logged last: twice a second, where it is
        long more seldom, or `at_once`; then `positions` tells it [world units]. One that began anew
        goes at once. False where it is not time yet.
        """
        if length < 2 and self._shows_path:
            self._shows_path = False
            self._log("world/path", self._rr.Clear(recursive=False))
        if length < 2:
            return True
        if not at_once and time.monotonic() < self._path_due_s:
            return False
        self._shows_path = True
        period_s = max(_PATH_PERIOD_S, length / _PATH_CENTRES_PER_S)
        self._path_due_s = time.monotonic() + period_s
        strip = self._rr.LineStrips3D([positions()], colors=[[255, 122, 26]])
        self._log("world/path", strip)
        return True

    def keyframe(self, keyframe: Keyframe) -> None:
        """Its camera gives the frustum its shape."""
        self._at(keyframe.stamp_ns, keyframe.frame_id)
        self._camera = keyframe.camera
        self._log_pinhole(self._picture_size)

    def picture(self, rgb: UInt8[np.ndarray, "h w 3"], stamp_ns: int) -> None:
        """The newest picture, in the frustum."""
        if rgb.size == 0:
            return
        self._at(stamp_ns)
        quality = [cv2.IMWRITE_JPEG_QUALITY, self._jpeg_quality]
        _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), quality)
        size = (int(rgb.shape[1]), int(rgb.shape[0]))
        if size != self._picture_size:
            self._picture_size = size
            self._log_pinhole(size)
        self._log(_PICTURE, self._rr.EncodedImage(contents=jpeg.tobytes(), media_type="image/jpeg"))

    def video(self, frame: EncodedFrame) -> None:
        """One picture as received, without decoding it."""
        self._at(frame.stamp_ns, frame.id)
        video = self._rr.VideoStream
        if frame.codec != self._codec:
            if not self._codec:  # pictures from before the first key frame must not lie beneath
                self._log(_PICTURE, self._rr.EncodedImage.from_fields(clear_unset=True))
            self._codec = frame.codec
            self._log_codec()
        self._log(_PICTURE, video.from_fields(sample=frame.data, is_keyframe=frame.is_key))

    def size_of_video(self, size: tuple[int, int]) -> None:
        """The video's pictures are so wide and high [px], which the camera's shape must fit."""
        if size != self._picture_size:
            self._picture_size = size
            self._log_pinhole(size)

    def tracks(self, frame: TrackFrame) -> None:
        """Boxes around what is seen, over the picture."""
        self._at(frame.stamp_ns, frame.frame_id)
        size = self._picture_size
        if size != (0, 0):
            frame = whole_tracks(frame, size[::-1])
        height, width = frame.labels.shape
        shown = size if size != (0, 0) else (width, height)
        scale = np.array([shown[0] / width, shown[1] / height] * 2)
        seen = [track for track in frame.tracks if track.state is not TrackState.LOST]
        if not seen:
            self._log(_TRACKS, self._rr.Clear(recursive=False))
            return
        boxes = np.array([track.box_px for track in seen]) * scale
        self._log(
            _TRACKS,
            self._rr.Boxes2D(
                array=boxes,
                array_format=self._rr.Box2DFormat.XYXY,
                labels=[track.label for track in seen],
                class_ids=[track.id % 2**16 for track in seen],
            ),
        )

    def chunk(self, chunk: ChunkIndex, mesh: Mesh) -> None:
        """One chunk of the surface, replacing what was there; cleared where it is empty, or no
        mesh: its normals are made without a check of what the faces name."""
        path, mesh_type = "world/mesh/" + "_".join(map(str, chunk)), self._rr.Mesh3D
        fault = fault_of(mesh.vertices, mesh.faces)
        if fault is not None:
            log.warning("%s is not shown: %s", path, fault)
        if fault is not None or len(mesh.faces) == 0:
            self._statics.gone(chunk, _MESSAGE_BYTES)
            self._stream.log(path, mesh_type.from_fields(clear_unset=True), static=True)
            return
        size = mesh.faces.nbytes + 2 * mesh.vertices.nbytes + mesh.colours.nbytes
        self._statics.note(chunk, _MESSAGE_BYTES + size)
        shown = mesh_type(
            vertex_positions=mesh.vertices,
            triangle_indices=mesh.faces,
            vertex_normals=vertex_normals(mesh.vertices, mesh.faces),
            vertex_colors=mesh.colours,
        )
        self._stream.log(path, shown, static=True)

    def renew(self, mesh_of: Callable[[ChunkIndex], Mesh]) -> None:
        """Log again what the server would soon hold no more; `mesh_of` tells a part's surface."""
        while (name := self._statics.due()) is not None:
            self._renew(name, mesh_of)

    def objects(self, objects: MapObjects) -> None:
        """All objects as labelled boxes."""
        self._at(objects.stamp_ns)
        found = objects.objects
        if not found:
            self._log("world/objects", self._rr.Clear(recursive=False))
            return
        self._log(
            "world/objects",
            self._rr.Boxes3D(
                centers=[item.world_from_box[:3, 3] for item in found],
                sizes=[item.size for item in found],
                quaternions=[
                    quaternion_xyzw_from_matrix(item.world_from_box[:3, :3]) for item in found
                ],
                labels=[item.label for item in found],
            ),
        )

    def _log_pinhole(self, size: tuple[int, int]) -> None:
        if self._camera is None:
            return
        camera = self._camera if size == (0, 0) else whole_camera(self._camera, size)
        resolution = [camera.width, camera.height]
        self._log(_PICTURE, self._rr.Pinhole(image_from_camera=camera.K, resolution=resolution))

    def turn_upright(self, scale: ScaleState) -> None:
        """`scene` is the first camera's frame (y down), `map` is z up."""
        if scale is self._scale:
            return
        self._scale = scale
        self._log_upright()

    def _log_upright(self) -> None:
        axes = self._rr.ViewCoordinates
        upright = axes.RIGHT_HAND_Z_UP if self._scale is ScaleState.METRIC else axes.RDF
        self._stream.log(_WORLD, upright, static=True)
        self._statics.note(_WORLD, _MESSAGE_BYTES)

    def _log_codec(self) -> None:
        codec = getattr(self._rr.VideoCodec, _CODECS[self._codec])
        self._stream.log(_PICTURE, self._rr.VideoStream(codec=codec), static=True)
        self._statics.note(_PICTURE, _MESSAGE_BYTES)

    def _renew(self, name: Name, mesh_of: Callable[[ChunkIndex], Mesh]) -> None:
        if name == _WORLD:
            self._log_upright()
        elif name == _PICTURE:
            self._log_codec()
        elif not isinstance(name, str):
            self.chunk(name, mesh_of(name))

    def _at(self, stamp_ns: int, frame: int | None = None) -> None:
        self._stream.set_time("capture", timestamp=np.datetime64(stamp_ns, "ns"))
        if frame is None:
            self._stream.disable_timeline("frame")
        else:
            self._stream.set_time("frame", sequence=frame)

    def _log(self, path: str, archetype: Any) -> None:  # any Rerun archetype
        self._stream.log(path, archetype)
