# SPDX-License-Identifier: Apache-2.0
"""What tests of several folders share: a ROS context of its own per test, on a domain that no other
folder or run of tests uses, and a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from zlib import crc32

import pytest


@pytest.fixture
def context(request):
    rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
    context = rclpy.Context()
    domain_id = 10 + crc32(f"{os.getpid()} {request.path.parent}".encode()) % 90
    rclpy.init(context=context, domain_id=domain_id)
    yield context
    rclpy.try_shutdown(context=context)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless one that draws."""
    from headless_browser import DRAWING, chromium

    with chromium(*DRAWING) as running:
        yield running
