# SPDX-License-Identifier: Apache-2.0
"""The camera page in a headless browser with its fake camera: pressed, sending, lost, back."""

import logging
import re
import time
from collections.abc import Iterator

import numpy as np
import pytest
from headless_browser import WAIT_S, chromium, needs_browser
from ingest_lab import serving, wait_until
from scipy.spatial.transform import Rotation

from worldsystem_core.telemetry import AttitudeSample
from worldsystem_ingest.webrtc.page import FILES, WEB

FAKE_CAMERA = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
)

pytest.importorskip("aiortc", reason="aiortc is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium(*FAKE_CAMERA) as running:
        yield running


def opened(browser, server, query: str = ""):
    """The page in a new tab of a browser or of one of its contexts."""
    page = browser.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.complaints = []
    page.on("console", lambda m: m.type == "error" and page.complaints.append(m.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.port}/camera{query}")
    return page


def press(page, name: str) -> None:
    page.get_by_role("button", name=name).click()


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
        press(page, "Start")
        until(page, "camera.state === 'sending'")
        wait_until(lambda: len(server.sink.frames) >= 60, WAIT_S)
        until(page, "camera.figures?.fps > 0")
        press(page, "Stop")
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
def test_the_page_comes_back_after_the_server_was_restarted(browser):
    with serving() as server:
        page = opened(browser, server, "?resolution=640x480")
        press(page, "Start")
        wait_until(lambda: len(server.sink.frames) >= 5, WAIT_S)
        port = server.port
    until(page, "camera.state === 'waiting'")
    assert page.locator("#problem-what").inner_text() in (
        "The connection was lost",
        "The server cannot be reached",
    )
    with serving(port=port) as server:
        wait_until(lambda: len(server.sink.frames) >= 5, WAIT_S)
        until(page, "camera.state === 'sending'")
        assert not page.locator("#problem").is_visible()
        page.close()


@needs_browser
def test_the_page_tries_again_though_the_server_does_not_answer(browser):
    with serving() as server:
        page = opened(browser, server, "?resolution=640x480")
        page.route("**/camera/session/*", lambda route: None)
        press(page, "Start")
        wait_until(lambda: len(server.sink.frames) >= 5, WAIT_S)
        until(page, "camera.state === 'sending'")
    until(page, "camera.state === 'waiting'")
    page.close()


@needs_browser
def test_a_page_that_was_replaced_stops_and_says_so(browser):
    with serving() as server:
        first, second = (opened(browser, server, "?resolution=640x480") for _ in range(2))
        press(first, "Start")
        wait_until(lambda: len(server.sink.frames) >= 3, WAIT_S)
        press(second, "Start")
        until(second, "camera.state === 'sending'")
        until(first, "camera.state === 'stopped'")
        assert "Another device" in first.locator("#problem-what").inner_text()
        before = len(server.sink.frames)
        wait_until(lambda: len(server.sink.frames) > before + 10, WAIT_S)
        assert second.evaluate("camera.state") == "sending"
        first.close()
        second.close()


@needs_browser
def test_the_page_asks_for_the_token_that_the_server_wants(browser, tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"camera": "let me in"}')
    with serving(token_file=str(tokens)) as server:
        page = opened(browser, server, "?resolution=640x480")
        press(page, "Start")
        until(page, "camera.state === 'stopped'")
        page.get_by_label("Token").fill("let me in")
        press(page, "Use")
        wait_until(lambda: len(server.sink.frames) >= 3, WAIT_S)
        page.close()


@needs_browser
def test_the_other_camera_goes_on_in_the_same_session(browser):
    with serving() as server:
        page = opened(browser, server, "?resolution=640x480")
        press(page, "Start")
        wait_until(lambda: len(server.sink.frames) >= 3, WAIT_S)
        page.locator("summary").click()
        page.locator("#resolution").select_option("1280x720")
        wait_until(lambda: server.sink.frames[-1].width == 1280, WAIT_S)
        before = len(server.sink.frames)
        page.locator("#camera").select_option("user")
        wait_until(lambda: len(server.sink.frames) > before + 10, WAIT_S)
        assert page.evaluate("camera.state") == "sending"
        assert server.source.status().restarts == 0
        assert page.complaints == []
        page.close()


@needs_browser
def test_what_the_phone_measures_arrives_beside_the_video(browser):
    with serving() as server:
        context = browser.new_context(
            permissions=["camera", "geolocation", "accelerometer", "gyroscope", "magnetometer"],
            geolocation={"latitude": 48.25, "longitude": 11.5, "accuracy": 4.0},
        )
        page = opened(context, server, "?resolution=640x480")
        press(page, "Start")
        wait_until(lambda: bool(server.sink.fixes), WAIT_S)
        page.evaluate(HELD_UPRIGHT_AND_TILTING)
        wait_until(lambda: len(server.sink.samples) >= 50, WAIT_S)
        until(page, "document.getElementById('sensors').innerText.includes('motion')")
        context.close()
    (fix, *_) = server.sink.fixes
    assert (fix.latitude_deg, fix.longitude_deg) == (48.25, 11.5)
    assert fix.horizontal_error_m == 4.0
    attitude = samples_of(server, AttitudeSample)[-1]
    axes = Rotation.from_quat(attitude.map_from_body).as_matrix().T
    assert axes.tolist() == near([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    imu = server.sink.samples[-1]
    assert list(imu.acceleration) == near([0, 0, 9.81]), "the sign was downwards, as iOS has it"
    assert list(imu.angular_velocity) == near([0, -np.pi / 2, 0])
    for sample in (fix, attitude, imu):
        assert abs(sample.stamp_ns - time.time_ns()) < 60e9


# To the north, seen by a system whose force of gravity points down; turning about its x axis.
HELD_UPRIGHT_AND_TILTING = """() => {
    const orientation = { alpha: 0, beta: 90, gamma: 0, absolute: true };
    const motion = {
        accelerationIncludingGravity: { x: 0, y: -9.81, z: 0 },
        rotationRate: { alpha: 90, beta: 0, gamma: 0 },
        interval: 16,
    };
    setInterval(() => {
        window.dispatchEvent(new DeviceOrientationEvent("deviceorientationabsolute", orientation));
        window.dispatchEvent(new DeviceOrientationEvent("deviceorientation", orientation));
        window.dispatchEvent(new DeviceMotionEvent("devicemotion", motion));
    }, 16);
}"""


def samples_of(server, kind: type) -> list:
    return [sample for sample, _ in server.sink.telemetry if isinstance(sample, kind)]


@needs_browser
def test_without_a_camera_the_page_says_what_to_do(browser):
    with serving() as server:
        context = browser.new_context()
        context.add_init_script(
            "Object.defineProperty(navigator, 'mediaDevices', { value: undefined })"
        )
        page = opened(context, server)
        assert "https" in page.locator("#problem-do").inner_text()
        assert "tls_certificate" in page.locator("#problem-do").inner_text()
        context.close()


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
