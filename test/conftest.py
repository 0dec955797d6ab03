# SPDX-License-Identifier: Apache-2.0
"""What tests of several folders share: a ROS context of its own per test, on a domain that no other
folder or run of tests uses, a browser, a disk that is full, and Ctrl-C as in a terminal."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from dds_domain import own_domain


def pytest_configure() -> None:
    """Heed interrupts also where tests run unattended: a script's shell has them ignored there.

    And ask no proxy of the machine for what is on it.
    """
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = "*"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Commands and runs that end in this process leave handlers, which would swallow the next
    test's Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture
def context(request):
    rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=own_domain(request.path.parent))
    yield context
    rclpy.try_shutdown(context=context)


@pytest.fixture
def full_disk(monkeypatch):
    """Called, lets what is written to files with `name` in theirs end after its first bytes."""
    write_bytes = Path.write_bytes

    def fill(name: str = "") -> None:
        def full(path: Path, content: bytes) -> int:
            if name not in path.name:
                return write_bytes(path, content)
            write_bytes(path, content[:50])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)

    return fill


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless one that draws."""
    from headless_browser import DRAWING, chromium

    with chromium(*DRAWING) as running:
        yield running
