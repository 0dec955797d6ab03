# SPDX-License-Identifier: Apache-2.0
"""A ROS context of its own per test, on a domain that no other run of the tests uses."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def context():
    rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=10 + os.getpid() % 20)
    yield context
    rclpy.try_shutdown(context=context)
