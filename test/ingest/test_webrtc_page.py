# SPDX-License-Identifier: Apache-2.0
"""The camera page in a headless browser with its fake camera: pressed, sending, lost, back."""

import logging
import re
import shutil
import time
from collections.abc import Iterator

import numpy as np
import pytest
from ingest_lab import serving, wait_until
from scipy.spatial.transform import Rotation

from worldsystem_ingest.webrtc.page import FILES, WEB

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
]
WAIT_S = 30.0  # software encoding on a busy machine

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


def opened(browser, server, query: str = ""):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.complaints = []
    page.on("console", lambda m: m.type == "error" and page.complaints.append(m.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.port}/camera{query}")
    return page


def until(page, expression: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < deadline, (
            f"not within {WAIT_S} s: {expression}; {page.evaluate('camera')}"
        )
        page.wait_for_timeout(50)


@needs_browser
def test_a_press_of_the_button_brings_pictures(browser, caplog):
    caplog.set_level(logging.INFO, logger="worldsystem_ingest")
    with serving() as server:
        page = opened(browser, server, "?resolution=640x480")
        page.get_by_role("button", name="Start").click()
        until(page, "camera.state === 'sending'")
        wait_until(lambda: len(server.sink.frames) >= 60, WAIT_S)
        until(page, "camera.figures?.fps > 0")
        page.get_by_role("button", name="Stop").click()
        assert page.evaluate("camera.state") == "idle"
        assert page.complaints == []
        page.close()
        status = server.source.status()
    frames = server.sink.frames
    assert (frames[-1].width, frames[-1].height) == (640, 480)
    assert server.sink.ids == sorted(set(server.sink.ids))
    assert "camera: WebRTC video is h264" in caplog.messages
    assert len(server.sink.units) == len(server.sink.settled) - status.drops.get("lost_on_link", 0)
    gaps_ms = np.diff([frame.stamp_ns for frame in frames[20:]]) / 1e6
    assert 25 < np.median(gaps_ms) < 120, "Chromium's fake camera gives 20 pictures a second"


@needs_browser
def test_what_the_sensors_say_is_turned_into_the_body_frame(browser):
    """By geometry: poses of a phone whose axes are known without any formula."""
    with serving() as server:
        page = opened(browser, server)
        upright = sensed(page, angles=(0, 90, 0), screen=0, front=False)
        turned = sensed(page, angles=(0, 0, -90), screen=90, front=False)
        flat = sensed(page, angles=(90, 0, 0), screen=0, front=False)
        selfie = sensed(page, angles=(0, 90, 0), screen=0, front=True)
        text = page.evaluate(
            """import("/camera/sensors.js").then(
                (m) => m.stamped({ type: "imu" }, 1780000000123.4567))"""
        )
        page.close()
    # held upright with the back to the north, the camera looks north
    assert upright["axes_in_earth"] == near([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    assert upright["up_in_body"] == near([0, 0, 1])
    # the same view with the phone turned to the left, and the picture with it
    assert turned["up_in_body"] == near([0, 0, 1])
    assert turned["axes_in_earth"][2] == near([0, 0, 1])
    # flat on a table it looks down; its top points west after a quarter turn to the left
    assert flat["axes_in_earth"] == near([[0, 0, -1], [0, -1, 0], [-1, 0, 0]])
    # the front camera looks the other way
    assert selfie["axes_in_earth"] == near([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert text == '{"type":"imu","timestamp_ns":1780000000123457000}'


def near(values):
    return [pytest.approx(v, abs=1e-6) if np.isscalar(v) else near(v) for v in values]


def sensed(page, *, angles, screen: int, front: bool) -> dict:
    """The body's axes in the earth frame by the page's quaternion, and the upward force in it."""
    found = page.evaluate(
        """([angles, screen, front]) => import("/camera/sensors.js").then((m) => {
            const axes = m.bodyAxes(screen, front);
            const earth = m.earthFromDevice(...angles);
            return { quaternion: m.earthFromBody(earth, axes), up: m.toBody(axes, earth[2]) };
        })""",
        [list(angles), screen, front],
    )
    rotation = Rotation.from_quat(found["quaternion"]).as_matrix()
    return {"axes_in_earth": rotation.T.tolist(), "up_in_body": found["up"]}


def test_the_page_needs_nothing_from_outside():
    for path in sorted(WEB.iterdir()):
        text = path.read_text(encoding="utf-8")
        outside = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"'<>]*", text))
        assert outside <= {"http://www.w3.org/2000/svg"}, path.name
    assert {path.name for path in WEB.iterdir()} == {"camera.html", *FILES}
