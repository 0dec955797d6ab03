# SPDX-License-Identifier: Apache-2.0
"""Inertial messages are packed by hand: every byte must be what rclpy makes of the object."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from message_lab import STAMP
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Imu

from worldsystem_core.errors import ProtocolError
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.messages import time_message
from worldsystem_core.telemetry import AttitudeSample, ImuSample

_IMU = ImuSample(stamp_ns=STAMP, acceleration=(0.1, -0.2, 9.8), angular_velocity=(1.0, 2.0, -3.0))
_ATTITUDE = AttitudeSample(stamp_ns=STAMP, map_from_body=(0.5, -0.5, 0.1, 0.7))


def _message(stamp_ns: int, frame: str = "base_link") -> Imu:
    message = Imu()
    message.header.stamp = time_message(stamp_ns)
    message.header.frame_id = frame
    return message


def _by_rclpy(message: Imu) -> bytes:
    """What rclpy makes of it; between frame and numbers it leaves what its memory held before."""
    cdr = bytearray(serialize_message(message))
    end = cdr.index(b"base_link") + len(b"base_link\x00")
    cdr[end : len(cdr) - 37 * 8] = bytes(len(cdr) - 37 * 8 - end)
    return bytes(cdr)


@pytest.mark.parametrize("stamp_ns", [0, 1, 999_999_999, STAMP])
def test_rates_and_accelerations_are_written_byte_for_byte_as_rclpy_does(stamp_ns):
    message = _message(stamp_ns)
    message.orientation_covariance[0] = -1.0
    linear, angular = message.linear_acceleration, message.angular_velocity
    linear.x, linear.y, linear.z = 0.1, -0.2, math.inf
    angular.x, angular.y, angular.z = 1.0, 2.0, -3.0
    sample = ImuSample(
        stamp_ns=stamp_ns, acceleration=(0.1, -0.2, math.inf), angular_velocity=(1.0, 2.0, -3.0)
    )
    assert topics.IMU.adapter.dump(sample) == [_by_rclpy(message)]


def test_an_attitude_is_written_byte_for_byte_as_rclpy_does():
    message = _message(STAMP)
    to = message.orientation
    to.x, to.y, to.z, to.w = _ATTITUDE.map_from_body
    message.linear_acceleration_covariance[0] = message.angular_velocity_covariance[0] = -1.0
    assert topics.ATTITUDE.adapter.dump(_ATTITUDE) == [_by_rclpy(message)]


@pytest.mark.parametrize("frame", ["", "a", "imu_link", "a_frame/with_a_long_name_of_its_own"])
def test_measurements_of_another_program_are_read_whatever_its_frame_is_called(frame):
    message = _message(STAMP, frame)
    linear, angular, to = message.linear_acceleration, message.angular_velocity, message.orientation
    linear.x, linear.y, linear.z = _IMU.acceleration
    angular.x, angular.y, angular.z = _IMU.angular_velocity
    to.x, to.y, to.z, to.w = _ATTITUDE.map_from_body
    cdr = serialize_message(message)
    assert topics.IMU.load(cdr) == _IMU
    assert topics.ATTITUDE.load(cdr) == _ATTITUDE


@pytest.mark.parametrize("topic", [topics.IMU, topics.ATTITUDE])
def test_a_measurement_cut_off_anywhere_is_refused_with_words(topic):
    cdr = serialize_message(_message(STAMP))
    for size in range(0, len(cdr), 7):
        with pytest.raises(ProtocolError):
            topic.load(cdr[:size])
