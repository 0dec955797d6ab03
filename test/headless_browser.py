# SPDX-License-Identifier: Apache-2.0
"""Chromium without a window, which tests of pages drive; without it or playwright they are skipped.

The fixture `browser` is one that draws, in software.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ALONE = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-first-run",
    "--no-proxy-server",
)
DRAWING = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
WAIT_S = 30.0  # software rendering on a busy machine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@contextmanager
def chromium(*arguments: str) -> Iterator:
    """A browser of its own that talks to nobody by itself."""
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ALONE, *arguments])
        yield running
        running.close()


def until(page, expression: str) -> None:
    """Wait until `expression` holds; the page's policy forbids the library's own way to wait."""
    deadline = time.monotonic() + WAIT_S
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {expression}"
        page.wait_for_timeout(50)
