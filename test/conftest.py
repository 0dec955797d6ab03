# SPDX-License-Identifier: Apache-2.0
"""What tests of several folders share: a ROS context of its own per test, on a domain that no other
folder or run of tests uses, and a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dds_domain import own_domain


@pytest.fixture
def context(request):
    rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=own_domain(request.path.parent))
    yield context
    rclpy.try_shutdown(context=context)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless one that draws."""
    from headless_browser import DRAWING, chromium

    with chromium(*DRAWING) as running:
        yield running
