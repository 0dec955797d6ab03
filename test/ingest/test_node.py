# SPDX-License-Identifier: Apache-2.0
"""What other processes are offered: small pictures, never raw full-HD ones."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")


@pytest.mark.parametrize(("width", "height", "offered"), [(640, 360, 1), (1920, 1080, 0)])
def test_raw_pictures_are_offered_outside_only_while_they_are_small(
    width, height, offered, tmp_path
):
    from rclpy.parameter import Parameter

    from worldsystem_ingest.node import IngestNode

    for number in range(2):
        picture = np.zeros((height, width, 3), np.uint8)
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=10 + os.getpid() % 20)
    node = IngestNode(
        context=context, parameter_overrides=[Parameter("source", value=str(tmp_path))]
    )
    try:
        assert node.ended.wait(30.0)
        assert node.frames_published == 2
        assert node.count_publishers("camera/image_raw") == offered
        assert node.count_publishers("camera/video") == 1
    finally:
        node.input_ended()
        node.close()
        rclpy.try_shutdown(context=context)
