# SPDX-License-Identifier: Apache-2.0
"""What other programs publish is read as rclpy reads it, or refused."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from message_lab import STAMP, some_pose
from rclpy.serialization import deserialize_message, serialize_message

from worldsystem_core.errors import ProtocolError
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.ros import topics
from worldsystem_core.telemetry import GpsFix, PressureSample
from worldsystem_core.trajectory import StampedPoses


def test_fixes_of_a_receiver_without_satellites_are_refused():
    """Drivers publish them all the same, with zeros or NaN."""
    fix = GpsFix(stamp_ns=STAMP, latitude_deg=46.0, longitude_deg=7.0, altitude_m=400.0)
    message = deserialize_message(topics.GPS.adapter.dump(fix)[0], topics.GPS.adapter.ros_type)
    assert topics.GPS.load(serialize_message(message)) == fix
    message.status.status = message.status.STATUS_NO_FIX
    with pytest.raises(ProtocolError, match="no fix"):
        topics.GPS.load(serialize_message(message))
    message.status.status, message.latitude = message.status.STATUS_FIX, float("nan")
    with pytest.raises(ProtocolError, match="no fix"):
        topics.GPS.load(serialize_message(message))
    (unknown,) = topics.PRESSURE.adapter.dump(
        PressureSample(stamp_ns=STAMP, pressure_pa=float("nan"))
    )
    with pytest.raises(ProtocolError, match="not known"):
        topics.PRESSURE.load(unknown)


def long_path(count: int) -> StampedPoses:
    turns = np.linspace(0.0, 3.0, count)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 0] = poses[:, 1, 1] = np.cos(turns)
    poses[:, 0, 1], poses[:, 1, 0] = -np.sin(turns), np.sin(turns)
    poses[:, 0, 3] = turns
    return StampedPoses(STAMP + np.arange(count) * 10**8, poses)


def test_a_long_path_is_read_as_rclpy_reads_it():
    poses = long_path(2000)
    (cdr,) = topics.PATH.adapter.dump(poses)
    back = topics.PATH.load(cdr)
    np.testing.assert_allclose(back.world_from_cam, poses.world_from_cam, atol=1e-12)
    message = deserialize_message(cdr, topics.PATH.adapter.ros_type)
    stamps = [pose.header.stamp for pose in message.poses]
    assert [stamp.sec * 10**9 + stamp.nanosec for stamp in stamps] == back.stamps_ns.tolist()
    assert [pose.pose.position.x for pose in message.poses] == back.positions[:, 0].tolist()


def test_a_path_of_hours_is_read_within_a_second():
    poses = long_path(200_000)
    (cdr,) = topics.PATH.adapter.dump(poses)
    began_s = time.process_time()
    back = topics.PATH.load(cdr)
    assert time.process_time() - began_s < 1.0
    np.testing.assert_allclose(back.world_from_cam[-1], poses.world_from_cam[-1], atol=1e-12)


@pytest.mark.parametrize("frame", ["map", "odom", ""])
def test_a_path_of_others_is_read_whatever_frames_its_poses_name(frame):
    poses = StampedPoses(
        STAMP + np.arange(4), np.stack([some_pose(seed) for seed in range(4)]), ScaleState.METRIC
    )
    message = deserialize_message(topics.PATH.adapter.dump(poses)[0], topics.PATH.adapter.ros_type)
    message.poses[2].header.frame_id = frame
    back = topics.PATH.load(serialize_message(message))
    np.testing.assert_array_equal(back.stamps_ns, poses.stamps_ns)
    np.testing.assert_allclose(back.world_from_cam, poses.world_from_cam, atol=1e-12)
    message.poses[1].pose.orientation.w = message.poses[1].pose.orientation.x = 0.0
    message.poses[1].pose.orientation.y = message.poses[1].pose.orientation.z = 0.0
    with pytest.raises(ProtocolError, match="quaternion"):
        topics.PATH.load(serialize_message(message))


@pytest.mark.parametrize("status", [-2, -1])
def test_a_fix_of_a_receiver_that_does_not_say_it_has_one_is_refused(status):
    """A fix is valid from STATUS_FIX on (`NavSatStatus`); -2 says that the status is not set."""
    fix = GpsFix(stamp_ns=STAMP, latitude_deg=46.0, longitude_deg=7.0, altitude_m=400.0)
    message = deserialize_message(topics.GPS.adapter.dump(fix)[0], topics.GPS.adapter.ros_type)
    message.status.status = status
    with pytest.raises(ProtocolError, match="no fix"):
        topics.GPS.load(serialize_message(message))
