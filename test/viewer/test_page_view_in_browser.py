# SPDX-License-Identifier: Apache-2.0
"""The page's view in a headless browser: its pixels, its keys, and the picture in its frustum."""

from __future__ import annotations

import dataclasses
import time

import pytest
from headless_browser import needs_browser, until
from test_page_in_browser import page  # noqa: F401  (a fixture)
from world_for_viewers import growing_ground, picture, pose_event

pytestmark = needs_browser


def test_a_zoomed_page_has_as_many_pixels_as_the_window(page):  # noqa: F811
    page.evaluate("worldsystem.stage.software = false")  # where it is, it draws fewer of them
    window = page.context.new_cdp_session(page)
    for zoom in (2, 1, 1.5):
        size = {"width": int(960 / zoom), "height": int(600 / zoom), "mobile": False}
        window.send("Emulation.setDeviceMetricsOverride", {**size, "deviceScaleFactor": zoom})
        until(page, f"devicePixelRatio === {zoom}")
        until(page, f"document.querySelector('#stage canvas').clientWidth === {size['width']}")
        until(page, "document.querySelector('#stage canvas').width === 960")
    assert page.complaints == []


def test_keys_keep_their_meaning_after_the_slider_was_dragged(page, page_server):  # noqa: F811
    for number, step in enumerate(growing_ground()[:4]):
        page_server.mesh(dataclasses.replace(step, capture_ns=3 * number * 10**9))
    until(page, "!document.getElementById('timeline').hidden")
    page.locator("#slider").click()  # amid it, where it keeps the focus
    until(page, "document.activeElement.id === 'slider' && worldsystem.timeline.at !== null")
    page.keyboard.press(" ")
    until(page, "worldsystem.timeline.playing")
    page.keyboard.press("l")
    until(page, "worldsystem.timeline.at === null")
    page.keyboard.down("w")
    assert page.evaluate("worldsystem.stage.flight.keys.has('KeyW')")
    page.keyboard.up("w")
    page.keyboard.press("f")
    assert page.locator("[data-mode=follow]").get_attribute("aria-pressed") == "true"
    page.keyboard.press("/")
    page.keyboard.type("wall f")  # is text
    assert page.locator("#query").input_value() == "wall f"
    assert page.locator("[data-mode=follow]").get_attribute("aria-pressed") == "true"
    assert page.complaints == []


# The mesh with the live picture, which hangs in the frustum of the camera now.
PICTURES_SEEN = """(() => {
  const seen = [];
  worldsystem.stage.world.traverseVisible((each) => {
    if (each.material?.map?.image instanceof ImageBitmap) seen.push(each);
  });
  return seen.length;
})()"""


def test_no_picture_stays_in_the_frustum_when_video_is_off(page, page_server):  # noqa: F811
    page_server.pose(pose_event(1, 0.1, stamp_ns=time.time_ns()))
    for number in range(20):
        page_server.image(picture(0.5), number)
        page.wait_for_timeout(100)
        if page.evaluate("worldsystem.pictures") > 0:
            break
    until(page, f"{PICTURES_SEEN} === 1")
    video = page.locator("[data-toggle=video]")
    video.click()
    assert page.evaluate(PICTURES_SEEN) == 0
    page_server.pose(pose_event(2, 0.2, stamp_ns=time.time_ns()))
    until(page, "worldsystem.pathLength === 2")
    assert page.evaluate(PICTURES_SEEN) == 0
    video.click()
    until(page, f"{PICTURES_SEEN} === 1")
    assert page.complaints == []


# Refuses the page, and counts the seconds after it: each ends with a look at what is nearest.
REFUSED = """(reason) => {
  const { mesh, connection } = worldsystem;
  const keep = mesh.keepNearest;
  window.seconds = 0;
  mesh.keepNearest = () => {
    window.seconds += 1;
    keep.call(mesh);
  };
  connection.onRefused(reason);
}"""


@pytest.mark.parametrize(
    ("reason", "said"), [(503, "As many people"), ("version", "The server was")]
)
def test_why_a_page_with_a_map_is_not_let_in_stays_in_sight(page, page_server, reason, said):  # noqa: F811
    page_server.mesh(growing_ground()[0])
    until(page, "worldsystem.triangles > 0")
    page.evaluate(REFUSED, reason)
    until(page, "window.seconds > 1")
    assert page.locator("#hint").is_visible()
    assert page.locator("#hint-text").inner_text().startswith(said)
