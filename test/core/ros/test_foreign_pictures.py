# SPDX-License-Identifier: Apache-2.0
"""Pictures and intrinsics of other programs: any encoding of 8 bits, lenses that are known."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from message_lab import STAMP
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image

from worldsystem_core.errors import ProtocolError
from worldsystem_core.frames import Frame
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.messages import time_message


@pytest.mark.parametrize("frame_id", ["", "a", "camera", "optical"])
def test_a_picture_of_another_program_is_read_whatever_its_name_order_and_padding(frame_id):
    rgb = np.random.default_rng(1).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    rows = np.zeros((3, 19), np.uint8)
    rows[:, :15] = rgb[..., ::-1].reshape(3, 15)
    message = Image(height=3, width=5, encoding="bgr8", step=19, data=rows.tobytes())
    message.header.frame_id = frame_id
    message.header.stamp = time_message(STAMP)
    back = topics.IMAGE.adapter.load(serialize_message(message))
    assert back.stamp_ns == STAMP
    np.testing.assert_array_equal(back.rgb, rgb)


@pytest.mark.parametrize(
    ("encoding", "pixel", "rgb"),
    [
        ("mono8", (70,), (70, 70, 70)),
        ("bgra8", (10, 20, 30, 0), (30, 20, 10)),
        ("8UC3", (10, 20, 30), (30, 20, 10)),
        ("yuv422_yuy2", (128, 128), (130, 130, 130)),
    ],
)
def test_a_picture_in_another_encoding_of_eight_bits_is_read(encoding, pixel, rgb):
    message = Image(height=3, width=4, encoding=encoding, step=4 * len(pixel))
    message.data = np.tile(np.array(pixel, np.uint8), 12).tobytes()
    back = topics.IMAGE.adapter.load(serialize_message(message))
    np.testing.assert_allclose(back.rgb, np.broadcast_to(rgb, (3, 4, 3)), atol=1)


@pytest.mark.parametrize(
    ("model", "told", "taken"),
    [
        ("plumb_bob", (0.1, 0.2, 0.01, 0.02, 0.3), (0.1, 0.2, 0.01, 0.02, 0.3)),
        ("", (0.1, 0.2, 0.0, 0.0), (0.1, 0.2, 0.0, 0.0)),
        ("rational_polynomial", (0.1, 0.2, 0, 0, 0.3, 0, 0, 0), (0.1, 0.2, 0, 0, 0.3)),
        ("rational_polynomial", (0.1, 0.2, 0, 0, 0.3, 0.5, 0, 0), ()),
        ("equidistant", (0.1, 0.2, 0.3, 0.4), ()),
        ("plumb_bob", (0.0,) * 5, ()),
    ],
)
def test_a_lens_that_is_no_plumb_bob_is_none(model, told, taken):
    info = CameraInfo(width=4, height=3, distortion_model=model, d=told, k=np.eye(3).ravel())
    back = topics.CAMERA_INFO.adapter.load(serialize_message(info))
    assert back.camera.distortion == taken


def test_a_picture_cut_off_or_of_another_kind_is_refused_with_words():
    (cdr,) = topics.IMAGE.adapter.dump(
        Frame(id=1, stamp_ns=STAMP, rgb=np.zeros((4, 6, 3), np.uint8))
    )
    for end in (2, 10, 30, len(cdr) - 1):
        with pytest.raises(ProtocolError, match=r"ends|encoding"):
            topics.IMAGE.adapter.load(cdr[:end])
    with pytest.raises(ProtocolError, match="0000"):
        topics.IMAGE.adapter.load(b"\x00\x00" + cdr[2:])
    wrong = Image(height=4, width=6, encoding="rgb8", step=18, data=bytes(5))
    with pytest.raises(ProtocolError, match="5 bytes"):
        topics.IMAGE.adapter.load(serialize_message(wrong))
