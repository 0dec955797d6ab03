# SPDX-License-Identifier: Apache-2.0
"""Pictures, encoded video and intrinsics."""

from __future__ import annotations

import numpy as np
from foxglove_msgs.msg import CompressedVideo
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image

from worldsystem_core.byte_stream import nal_types
from worldsystem_core.distortion import plumb_bob
from worldsystem_core.errors import ProtocolError
from worldsystem_core.frames import Camera, EncodedFrame, Frame, StampedCamera
from worldsystem_core.image_encodings import KNOWN_ENCODINGS, is_known, rgb_from
from worldsystem_core.ros.adapters.messages import (
    CAMERA_FRAME,
    MessageAdapter,
    nanoseconds,
    time_message,
)
from worldsystem_core.ros.cdr import CdrReader, CdrWriter

_H264_KEY_NAL_TYPES = (5, 7)
_H265_KEY_NAL_TYPES = (*range(16, 24), 32, 33)  # IRAP pictures (7.4.2.2), VPS, SPS


class ImageAdapter:
    """`Frame` ↔ `sensor_msgs/Image`: rgb8 out, any encoding of 8 bits in. A loaded frame's id is
    its stamp."""

    ros_type = Image

    def dump(self, item: Frame) -> list[bytes]:
        return [image_cdr(item.rgb, "rgb8", item.stamp_ns)]

    def load(self, cdr: bytes) -> Frame:
        """The picture, of rgb8 as a read-only view of `cdr`: rclpy's message would be two copies
        more."""
        reader = CdrReader(cdr)
        stamp_ns = reader.stamp()
        reader.string()  # the name of the camera's frame
        height, width, encoding = reader.number("I"), reader.number("I"), reader.string()
        if not is_known(encoding):
            known = ", ".join(KNOWN_ENCODINGS)
            raise ProtocolError(f"image encoding '{encoding}' is none of {known}")
        reader.number("B")  # bytes have no order
        step, data = reader.number("I"), reader.octets()
        rgb = None
        if step and len(data) == height * step:
            rgb = rgb_from(data, encoding, height=height, width=width, step=step)
        if rgb is None:
            raise ProtocolError(
                f"an image of {width}×{height} '{encoding}' with {len(data)} bytes, {step} a row"
            )
        return Frame(id=stamp_ns, stamp_ns=stamp_ns, rgb=rgb)


def image_cdr(pixels: np.ndarray, encoding: str, stamp_ns: int) -> bytes:
    """A `sensor_msgs/Image` of a 2-D or 3-D array with unpadded rows; one copy."""
    writer = CdrWriter()
    writer.header(stamp_ns, CAMERA_FRAME)
    writer.number("I", pixels.shape[0])
    writer.number("I", pixels.shape[1])
    writer.string(encoding)
    writer.number("B", 0)
    writer.number("I", pixels[0].nbytes if len(pixels) else 0)
    writer.octets(pixels)
    return writer.finish()


class VideoAdapter:
    """`EncodedFrame` ↔ `foxglove_msgs/CompressedVideo` (H.264 or H.265 Annex-B, byte for byte)."""

    ros_type = CompressedVideo

    def dump(self, item: EncodedFrame) -> list[bytes]:
        writer = CdrWriter()
        writer.stamp(item.stamp_ns)
        writer.string(CAMERA_FRAME)
        writer.octets(item.data)
        writer.string(item.codec)
        return [writer.finish()]

    def load(self, cdr: bytes) -> EncodedFrame:
        message = deserialize_message(cdr, CompressedVideo)
        stamp_ns, data = nanoseconds(message.timestamp), bytes(message.data)
        return EncodedFrame(
            id=stamp_ns,
            stamp_ns=stamp_ns,
            arrival_ns=stamp_ns,
            data=data,
            is_key=_is_key(data, message.format),
            codec=message.format or "h264",
        )


def _is_key(annexb: bytes, codec: str) -> bool:
    """Whether any NAL unit is one that only key frames have: parameter sets or such a picture."""
    key_types = _H265_KEY_NAL_TYPES if codec == "h265" else _H264_KEY_NAL_TYPES
    return any(kind in key_types for kind in nal_types(annexb, codec))


def _camera_info(item: StampedCamera) -> list[CameraInfo]:
    camera, info = item.camera, CameraInfo()
    info.header.stamp = time_message(item.stamp_ns)
    info.header.frame_id = CAMERA_FRAME
    info.width, info.height = camera.width, camera.height
    info.distortion_model = "plumb_bob"
    info.d = list(camera.distortion) or [0.0] * 5
    info.k = camera.K.ravel()
    info.r = np.eye(3).ravel()
    info.p = np.hstack([camera.K, np.zeros((3, 1))]).ravel()
    return [info]


def _stamped_camera(info: CameraInfo) -> StampedCamera:
    camera = Camera(
        width=info.width,
        height=info.height,
        fx=float(info.k[0]),
        fy=float(info.k[4]),
        cx=float(info.k[2]),
        cy=float(info.k[5]),
        distortion=plumb_bob(info.distortion_model, info.d),
    )
    return StampedCamera(stamp_ns=nanoseconds(info.header.stamp), camera=camera)


CAMERA_INFO = MessageAdapter(CameraInfo, _camera_info, _stamped_camera)
