# SPDX-License-Identifier: Apache-2.0
"""Which Rerun entity shows what: `world/mesh/*`, `world/camera`, `world/path`, `world/objects`."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.rotation import quaternion_xyzw_from_matrix
from worldsystem_core.mesh_normals import vertex_normals
from worldsystem_core.objects import MapObjects
from worldsystem_core.reconstruction import Keyframe, Pose, ScaleState, TrackingState
from worldsystem_core.surface import Mesh
from worldsystem_viewer.camera_path import CameraPath
from worldsystem_viewer.chunks import ChunkIndex

_PATH_PERIOD_S = 0.5
_PICTURE = "world/camera/picture"


class RerunEntities:
    """Writes core types to a recording; used by one thread only."""

    def __init__(self, rerun: Any, stream: Any, jpeg_quality: int) -> None:
        # `rerun` is the module: it is optional, so nothing here imports it
        self._rr = rerun
        self._stream = stream
        self._jpeg_quality = jpeg_quality
        self._camera: Camera | None = None
        self._picture_size = (0, 0)
        self._scale: ScaleState | None = None
        self._path_due_s = 0.0

    def pose(self, pose: Pose, path: CameraPath) -> None:
        """The camera, unless it is lost, and twice a second its path."""
        self._at(pose.stamp_ns)
        self._turn_upright(pose.scale)
        if pose.state is not TrackingState.TRACKED:
            return
        self._log(
            "world/camera",
            self._rr.Transform3D(
                translation=pose.world_from_cam[:3, 3], mat3x3=pose.world_from_cam[:3, :3]
            ),
        )
        if len(path) > 1 and time.monotonic() >= self._path_due_s:
            self._path_due_s = time.monotonic() + _PATH_PERIOD_S
            strip = self._rr.LineStrips3D([path.positions()], colors=[[255, 122, 26]])
            self._log("world/path", strip)

    def keyframe(self, keyframe: Keyframe) -> None:
        """Its camera gives the frustum its shape."""
        self._at(keyframe.stamp_ns)
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

    def chunk(self, chunk: ChunkIndex, mesh: Mesh, stamp_ns: int) -> None:
        """One chunk of the surface, replacing what was there."""
        self._at(stamp_ns)
        path = "world/mesh/" + "_".join(map(str, chunk))
        if len(mesh.faces) == 0:
            self._log(path, self._rr.Clear(recursive=False))
            return
        self._log(
            path,
            self._rr.Mesh3D(
                vertex_positions=mesh.vertices,
                triangle_indices=mesh.faces,
                vertex_normals=vertex_normals(mesh.vertices, mesh.faces),
                vertex_colors=mesh.colours,
            ),
        )

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
        camera = self._camera if size == (0, 0) else self._camera.resized(*size)
        resolution = [camera.width, camera.height]
        self._log(_PICTURE, self._rr.Pinhole(image_from_camera=camera.K, resolution=resolution))

    def _turn_upright(self, scale: ScaleState) -> None:
        """`scene` is the first camera's frame (y down), `map` is z up."""
        if scale is self._scale:
            return
        self._scale = scale
        axes = self._rr.ViewCoordinates
        upright = axes.RIGHT_HAND_Z_UP if scale is ScaleState.METRIC else axes.RDF
        self._stream.log("world", upright, static=True)

    def _at(self, stamp_ns: int) -> None:
        self._stream.set_time("capture", timestamp=np.datetime64(stamp_ns, "ns"))

    def _log(self, path: str, archetype: Any) -> None:  # any Rerun archetype
        self._stream.log(path, archetype)
