# SPDX-License-Identifier: Apache-2.0
"""The page in a headless browser: a growing surface, pixels that change, and a restart."""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "mesh"))

from block_lab import blocks_of, sphere
from block_lab import delta as lattice_delta
from world_for_viewers import (
    growing_ground,
    keyframe,
    map_objects,
    picture,
    pose_event,
    track_frame,
)

from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.page_server import PageServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-first-run",
    "--no-proxy-server",
]
WAIT_S = 30.0  # software rendering on a busy machine

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def page(browser, page_server) -> Iterator:
    opened = browser.new_page(viewport={"width": 960, "height": 600})
    opened.complaints = []
    opened.on("console", lambda m: m.type == "error" and opened.complaints.append(m.text))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.goto(f"http://127.0.0.1:{page_server.port}/")
    until(opened, "window.worldsystem?.connected")
    yield opened
    opened.close()


def until(page, expression: str) -> None:
    """Wait until `expression` holds; the page's policy forbids the library's own way to wait."""
    deadline = time.monotonic() + WAIT_S
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {expression}"
        page.wait_for_timeout(50)


def triangles(page) -> int:
    return page.evaluate("window.worldsystem.triangles")


def drawn_pixels(page) -> np.ndarray:
    """What the 3D canvas shows, (h, w, 4)."""
    import cv2

    png = page.locator("#stage canvas").screenshot()
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def test_the_page_shows_a_growing_surface(page, page_server):
    empty = drawn_pixels(page)
    seen = []
    for step in growing_ground():
        page_server.mesh(step)
        if step.sequence % 4 == 0:
            until(page, f"window.worldsystem.triangles === {step.sequence * 12 * 288}")
            seen.append(triangles(page))
    assert seen == sorted(set(seen))
    until(page, "window.worldsystem.drawnObjects === 9")
    page.wait_for_timeout(1500)
    changed = np.abs(drawn_pixels(page).astype(int) - empty).max(axis=2) > 30
    assert changed.mean() > 0.1
    assert page.complaints == []


def test_the_page_shows_everything_else(page, page_server):
    page_server.mesh(growing_ground()[0])
    page_server.keyframe(keyframe(1, 0.1))
    page_server.objects(map_objects())
    for n in range(20):
        page_server.pose(pose_event(n, n / 20, stamp_ns=time.time_ns()))
    page_server.tracks(track_frame(0.5))
    page_server.status({"fps": 29.5, "latency_ms": 41})
    for _ in range(20):
        page_server.image(picture(0.5), 1)
        page.wait_for_timeout(100)
        if page.evaluate("window.worldsystem.pictures") > 0:
            break
    until(
        page,
        "worldsystem.pictures > 0 && worldsystem.objects === 2 && worldsystem.pathLength === 20",
    )
    until(page, "document.getElementById('status').innerText.includes('41 ms')")
    assert page.locator(".object").all_inner_texts() == ["mound", "crate"]
    assert page.locator("#scale").inner_text() == "scale unknown"
    assert page.locator("#seen").inner_text() == "1 tracked"
    page.get_by_role("button", name="Objects").click()
    page.wait_for_timeout(500)
    assert not page.locator(".object").first.is_visible()
    assert page.complaints == []


def test_replaced_and_removed_blocks_leave_nothing_behind(page, page_server):
    from world_for_viewers import delta, ground_block

    for n in range(30):
        page_server.mesh(delta([ground_block(i, 0, n) for i in range(4)], n + 1))
        page.wait_for_timeout(30)
    page_server.mesh(delta([], 31, removed=((0, 0, 0), (1, 0, 0))))
    until(page, "window.worldsystem.triangles === 576")
    page_server.mesh(delta([], 32, removed=((2, 0, 0), (3, 0, 0))))
    until(
        page,
        "['triangles', 'vertices', 'drawnObjects'].every((name) => worldsystem[name] === 0)",
    )


def test_the_page_returns_after_the_server_was_restarted(browser):
    deltas = growing_ground()
    server = PageServer(ViewerConfig(web_port=0))
    server.start()
    port = server.port
    for step in deltas[:3]:
        server.mesh(step)
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{port}/")
    until(page, "window.worldsystem?.triangles === 3 * 12 * 288")
    server.stop()
    until(page, "!window.worldsystem.connected")
    server = PageServer(ViewerConfig(web_port=port))
    server.start()
    for step in deltas[:5]:
        server.mesh(step)
    until(page, "worldsystem.connected && worldsystem.triangles === 5 * 12 * 288")
    page.close()
    server.stop()


def test_a_page_on_a_thin_line_refines_the_surface_until_it_is_the_same(browser, page_server):
    ball = blocks_of(sphere(14.0), 2)
    faces = sum(len(block.faces) for block in ball)
    page_server.mesh(lattice_delta(ball, 1))
    page = browser.new_page()
    complaints = []
    page.on("console", lambda m: m.type == "error" and complaints.append(m.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"http://127.0.0.1:{page_server.port}/?mesh=code&mbps=0.05")
    until(page, "window.worldsystem?.coarseBlocks > 0")
    assert triangles(page) < faces
    until(page, f"worldsystem.coarseBlocks === 0 && worldsystem.triangles === {faces}")
    gone = tuple(block.index for block in ball)
    page_server.mesh(lattice_delta([], 2, removed=gone))
    until(page, "worldsystem.triangles === 0 && worldsystem.drawnObjects === 0")
    assert complaints == []
    page.close()
