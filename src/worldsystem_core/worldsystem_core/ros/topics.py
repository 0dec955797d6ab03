# SPDX-License-Identifier: Apache-2.0
"""Every topic of the system in one table: name, native type, message, quality of service."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from diagnostic_msgs.msg import DiagnosticArray
from rosgraph_msgs.msg import Clock
from tf2_msgs.msg import TFMessage
from worldsystem_msgs.msg import MeshStatistics

from worldsystem_core.cloud import PointCloud
from worldsystem_core.frames import EncodedFrame, Frame, StampedCamera
from worldsystem_core.keyframe_inbox import KeyframeInbox
from worldsystem_core.ledger import StageReport
from worldsystem_core.mesh_stream.streamed import StreamedDelta
from worldsystem_core.objects import (
    MapObjects,
    ObjectCrop,
    ObjectIdentity,
    ShownTracks,
    TrackFrame,
)
from worldsystem_core.reconstruction import Keyframe, Pose
from worldsystem_core.ros import qos
from worldsystem_core.ros.adapters import (
    camera,
    inertial,
    object_pictures,
    objects,
    path,
    slam,
    splats,
    status,
    surface,
    telemetry,
)
from worldsystem_core.ros.adapters.messages import PlainAdapter
from worldsystem_core.ros.topic import Topic
from worldsystem_core.splats.delta import SplatDelta
from worldsystem_core.surface import MeshDelta
from worldsystem_core.telemetry import (
    AttitudeSample,
    BatterySample,
    GpsFix,
    ImuSample,
    OdometrySample,
    PressureSample,
)
from worldsystem_core.trajectory import StampedPoses

T = TypeVar("T")

IMAGE: Topic[Frame] = Topic("camera/image_raw", camera.ImageAdapter(), qos.IMAGE)
CAMERA_INFO: Topic[StampedCamera] = Topic("camera/camera_info", camera.CAMERA_INFO, qos.POSE)
VIDEO: Topic[EncodedFrame] = Topic("camera/video", camera.VideoAdapter(), qos.VIDEO)
IMU: Topic[ImuSample] = Topic("imu/data", inertial.ImuAdapter(), qos.TELEMETRY, shared=True)
ATTITUDE: Topic[AttitudeSample] = Topic(
    "imu/attitude", inertial.AttitudeAdapter(), qos.TELEMETRY, shared=True
)
GPS: Topic[GpsFix] = Topic("gps/fix", telemetry.GPS, qos.TELEMETRY, shared=True)
PRESSURE: Topic[PressureSample] = Topic(
    "baro/pressure", telemetry.PRESSURE, qos.TELEMETRY, shared=True
)
BATTERY: Topic[BatterySample] = Topic(
    "battery/state", telemetry.BATTERY, qos.TELEMETRY, shared=True
)
ODOMETRY: Topic[OdometrySample] = Topic(
    "odometry/level", telemetry.ODOMETRY, qos.TELEMETRY, shared=True
)
POSE: Topic[Pose] = Topic("slam/pose", slam.POSE, qos.POSE)
PATH: Topic[StampedPoses] = Topic("slam/path", path.PathAdapter(), qos.LATCHED, latched=True)
KEYFRAME: Topic[slam.KeyframeEvent] = Topic(
    "slam/keyframe", slam.KeyframeAdapter(), qos.KEYFRAMES, inbox=KeyframeInbox, waiting=50
)
POINTS: Topic[Keyframe] = Topic("slam/points", slam.PointsAdapter(), qos.IMAGE)
CLOUD: Topic[PointCloud] = Topic("slam/cloud", slam.CloudAdapter(), qos.LATCHED)
MESH: Topic[MeshDelta] = Topic("mesh/delta", surface.MeshDeltaAdapter(), qos.MESH)
MESH_STREAM: Topic[StreamedDelta] = Topic("mesh/stream", surface.MeshStreamAdapter(), qos.MESH)
MESH_STATISTICS: Topic[MeshStatistics] = Topic(
    "mesh/statistics", PlainAdapter(MeshStatistics), qos.STATUS
)
SPLATS: Topic[SplatDelta] = Topic("splats/delta", splats.SplatDeltaAdapter(), qos.KEYFRAMES)
TRACKS: Topic[TrackFrame] = Topic("segment/tracks", objects.TRACKS, qos.KEYFRAME)
LABELS: Topic[TrackFrame] = Topic("segment/labels", objects.LabelImageAdapter(), qos.IMAGE)
OBJECTS: Topic[MapObjects] = Topic("segment/objects", objects.OBJECTS, qos.LATCHED, latched=True)
OVERLAY: Topic[ShownTracks] = Topic("segment/overlay", object_pictures.OverlayAdapter(), qos.IMAGE)
MARKERS: Topic[MapObjects] = Topic(
    "segment/markers", object_pictures.MARKERS, qos.LATCHED, latched=True
)
CROPS: Topic[ObjectCrop] = Topic("segment/crops", object_pictures.CROPS, qos.KEYFRAME)
IDENTITIES: Topic[ObjectIdentity] = Topic(
    "segment/identities", object_pictures.IDENTITIES, qos.STATUS
)
TF: Topic[TFMessage] = Topic("/tf", PlainAdapter(TFMessage), qos.TF, shared=True)
TF_STATIC: Topic[TFMessage] = Topic(
    "/tf_static",
    PlainAdapter(TFMessage),
    qos.LATCHED,
    latched=True,
    shared=True,
    waiting=100,  # each publisher's last one comes at once, as to tf2's own listeners
)
CLOCK: Topic[Clock] = Topic("/clock", PlainAdapter(Clock), qos.STATUS)
LEDGER: Topic[StageReport] = Topic("worldsystem/ledger", status.LEDGER, qos.VIDEO, shared=True)
DIAGNOSTICS: Topic[DiagnosticArray] = Topic(
    "/diagnostics", PlainAdapter(DiagnosticArray), qos.STATUS, shared=True
)

ALL: tuple[Topic, ...] = (
    IMAGE,
    CAMERA_INFO,
    VIDEO,
    IMU,
    ATTITUDE,
    GPS,
    PRESSURE,
    BATTERY,
    ODOMETRY,
    POSE,
    PATH,
    KEYFRAME,
    POINTS,
    CLOUD,
    MESH,
    MESH_STREAM,
    MESH_STATISTICS,
    SPLATS,
    TRACKS,
    LABELS,
    OBJECTS,
    OVERLAY,
    MARKERS,
    CROPS,
    IDENTITIES,
    TF,
    TF_STATIC,
    CLOCK,
    LEDGER,
    DIAGNOSTICS,
)

# What each video stream has of its own; those of a further stream lie in its namespace.
OF_A_STREAM = (IMAGE, CAMERA_INFO, VIDEO, IMU, ATTITUDE, GPS, PRESSURE, BATTERY, ODOMETRY)

# What the recorder leaves out unless asked: pictures are in the video, points in the keyframes, and
# what the stream tells is in the deltas; splats are made of keyframes.
BULKY = (IMAGE, POINTS, CLOUD, LABELS, OVERLAY, MARKERS, MESH_STREAM, SPLATS)


def in_namespace(topic: Topic[T], namespace: str) -> Topic[T]:
    """`topic` below `namespace`; the same topic where that is empty."""
    return replace(topic, name=f"{namespace}/{topic.name}") if namespace else topic
