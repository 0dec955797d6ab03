# SPDX-License-Identifier: Apache-2.0
"""The web page in headless Chromium, given one chunk of splats again and again."""

from __future__ import annotations

import shutil
import time

import numpy as np

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.delta import SplatDelta, SplatOperation
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.packed import pack
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.page_server import PageServer

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--no-proxy-server",
]
_WAIT_S = 60.0


def update_ms(splats: Gaussians, runs: int) -> list[float]:
    """Main-thread time of each message that replaces the chunk; empty without Chromium."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("chromium is not installed: the page is not measured")
        return []
    server = PageServer(ViewerConfig(web_port=0))
    server.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            tab = browser.new_page(viewport={"width": 320, "height": 240})
            tab.goto(f"http://127.0.0.1:{server.port}/")
            tab.wait_for_timeout(1000)
            tab.evaluate("document.querySelector('[data-surface=splats]').click()")
            # drawing takes a second a frame in software: only what arrives is measured
            tab.evaluate("worldsystem.splats.pool.mesh.visible = false")
            for number in range(1, runs + 1):
                server.splats(_put(splats, number))
                _until(tab, f"worldsystem.splats.messages >= {number}")
            times = tab.evaluate("worldsystem.splats.busyMs")
            browser.close()
    finally:
        server.stop()
    return [float(t) for t in times[2:]]


def _put(splats: Gaussians, number: int) -> SplatDelta:
    return SplatDelta(
        stamp_ns=number,
        sequence=number,
        chunk=1,
        operation=SplatOperation.PUT,
        world_from_chunk=Sim3(1.0, np.eye(3), np.zeros(3)),
        words=pack(splats),
        total=len(splats),
    )


def _until(tab: object, expression: str) -> None:
    """Wait until `expression` holds; the page's policy forbids the library's own way to wait."""
    deadline = time.monotonic() + _WAIT_S
    while not tab.evaluate(expression):  # type: ignore[attr-defined]
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_WAIT_S} s: {expression}")
        tab.wait_for_timeout(20)  # type: ignore[attr-defined]
