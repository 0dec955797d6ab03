# SPDX-License-Identifier: Apache-2.0
"""The page in a headless browser: a growing surface, pixels that change, and all its buttons."""

import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "mesh"))

from block_lab import blocks_of, sphere
from block_lab import delta as lattice_delta
from headless_browser import needs_browser, until
from page_reader import PageReader
from world_for_viewers import (
    delta,
    ground_block,
    growing_ground,
    keyframe,
    map_objects,
    picture,
    pose_event,
    track_frame,
)

from worldsystem_core.reconstruction import RemovedKeyframes, ScaleState

pytestmark = needs_browser


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
    until(page, "document.getElementById('status').innerText.includes('41ms')")
    until(page, "document.querySelectorAll('.label:not([hidden])').length === 2")
    assert sorted(page.locator(".label").all_inner_texts()) == ["crate", "mound"]
    assert page.locator("#scale").inner_text() == "scale unknown"
    assert page.locator("#seen").inner_text() == "1 seen"
    page.get_by_role("button", name="Objects").click()
    until(page, "!document.querySelector('.label')")
    assert page.complaints == []


def test_replaced_and_removed_blocks_leave_nothing_behind(page, page_server):
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


def test_a_word_highlights_what_it_names_and_a_click_tells_about_it(page, page_server):
    for step in growing_ground():  # all of it: the view then is one in which the mound is seen
        page_server.mesh(step)
    page_server.image(picture(0.5), 1)
    page_server.tracks(track_frame(0.5))
    page_server.objects(map_objects())
    until(page, "worldsystem.objects === 2 && worldsystem.triangles === 144 * 288")
    until(page, "worldsystem.stage.gliding === null && worldsystem.drawnObjects > 0")
    page.keyboard.press("/")
    page.keyboard.type("moun")
    until(page, "worldsystem.matches === 1")
    assert page.locator("#matches").inner_text() == "1 found"
    until(page, "document.querySelector('.label.match')?.innerText === 'mound'")
    assert page.locator(".label.match").count() == 1
    page.keyboard.press("Enter")
    until(page, "worldsystem.chosen === 7 && !document.getElementById('card').hidden")
    until(page, "document.getElementById('card-facts').innerText.includes('once')")
    until(page, "document.getElementById('card-crop').naturalWidth > 50")
    assert page.locator("#card-label").inner_text() == "mound"
    assert "1.60 × 1.00 × 1.60 u" in page.locator("#card-facts").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    until(page, "worldsystem.chosen === null && worldsystem.matches === null")
    assert page.complaints == []


def test_two_clicks_measure_a_distance(page, page_server):
    for step in growing_ground():
        page_server.mesh(step)
    until(page, "worldsystem.triangles === 144 * 288 && worldsystem.mesh.dirty.size === 0")
    page.wait_for_timeout(1500)
    page.keyboard.press("m")
    page.mouse.click(440, 330)
    page.mouse.click(520, 330)
    until(page, "worldsystem.distances.length === 1")
    picked = page.evaluate("worldsystem.distances[0]")
    label = page.locator(".label.distance").inner_text()
    assert label == f"{picked:.2f} u"
    assert 0.2 < picked < 6.0  # the ground is 6 wide
    page.keyboard.press("Escape")
    until(page, "worldsystem.distances.length === 0")


def test_the_slider_shows_the_past_and_live_returns(page, page_server):
    for number, step in enumerate(growing_ground()[:4]):
        page_server.mesh(dataclasses.replace(step, capture_ns=3 * number * 10**9))
    until(page, "worldsystem.triangles === 4 * 12 * 288")
    until(page, "!document.getElementById('timeline').hidden")
    page.evaluate(
        "(slider) => { slider.value = 500; slider.dispatchEvent(new Event('input')); }",
        page.query_selector("#slider"),
    )
    until(page, "worldsystem.triangles === 2 * 12 * 288")
    assert page.locator("#connection").inner_text() == "looking back"
    page.locator("#live").click()
    until(page, "worldsystem.triangles === 4 * 12 * 288")
    assert page.locator("#connection").inner_text() == "live"


def test_everything_that_is_shown_can_be_switched(page, page_server):
    page_server.mesh(growing_ground()[0])
    page_server.keyframe(keyframe(1, 0.1))
    until(page, "worldsystem.triangles > 0")
    page.get_by_role("button", name="Points").click()
    until(page, "worldsystem.points > 500 && !worldsystem.mesh.group.visible")
    for key in "12345678fgt":
        page.keyboard.press(key)
    page.keyboard.down("w")
    until(page, "worldsystem.frames > 5")
    page.keyboard.up("w")
    for key in ("r", "1"):
        page.keyboard.press(key)
    until(page, "worldsystem.mesh.group.visible")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    with page.expect_download() as download:
        page.keyboard.press("p")
    assert Path(download.value.path()).read_bytes()[:4] == b"\x89PNG"
    assert page.complaints == []


def test_no_bar_lies_over_another_at_any_width(page):
    page.evaluate("document.querySelector('#scale').textContent = 'scale unknown'")
    for width in (390, 700, 960, 1241, 1280, 1440, 1500, 1501, 1920):
        page.set_viewport_size({"width": width, "height": 700})
        boxes = [page.locator(name).bounding_box() for name in ("#title", "#search", "#layers")]
        shown = [box for box in boxes if box is not None]
        for i, one in enumerate(shown):
            for other in shown[i + 1 :]:
                beside = (
                    one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
                )
                above = one["y"] + one["height"] <= other["y"]
                above |= other["y"] + other["height"] <= one["y"]
                assert beside or above, (width, one, other)


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((1366, 768), (480, 640)),
        ((1920, 1080), (640, 360)),
        ((1024, 600), (360, 640)),
        ((844, 390), (360, 640)),
    ],
    ids=lambda pair: f"{pair[0]}x{pair[1]}",
)
def test_every_tool_can_be_pressed_beside_the_picture(page, page_server, size, shape):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    for number in range(200):
        page_server.image(np.full((*shape, 3), 90, np.uint8), number)
        page.wait_for_timeout(100)
        if page.evaluate("window.worldsystem.pictures") > 0:
            break
    assert page.evaluate("window.worldsystem.pictures") > 0, "there is no picture beside them"
    assert page.locator("#tools button").count() > 0
    covered = page.evaluate(
        """[...document.querySelectorAll("#tools button")].filter((button) => {
            const { x, y, width, height } = button.getBoundingClientRect();
            const top = document.elementFromPoint(x + width / 2, y + height / 2);
            return !button.contains(top) && getComputedStyle(button).display !== "none";
        }).map((button) => button.title)"""
    )
    assert covered == []


def test_space_presses_the_button_that_has_the_focus(page, page_server):
    page_server.mesh(growing_ground()[0])
    page_server.pose(pose_event(1, 0.1, stamp_ns=time.time_ns()))
    points = page.locator("#surface [data-surface=points]")
    points.focus()
    page.keyboard.press(" ")
    assert points.get_attribute("aria-pressed") == "true"
    assert page.evaluate("window.worldsystem.timeline.at") is None


def test_a_single_pose_leaves_a_view_in_which_places_can_be_picked(page, page_server):
    page_server.pose(pose_event(1, 0.1, stamp_ns=time.time_ns()))
    until(page, "worldsystem.pathLength > 0")
    page.wait_for_timeout(1200)  # the view is fitted once a second
    page.keyboard.press("r")
    page.wait_for_timeout(1200)
    ray = page.evaluate("worldsystem.stage.ray(400, 330).ray")
    numbers = [*ray["origin"].values(), *ray["direction"].values()]
    assert None not in numbers, "NaN is told as nothing"
    assert np.linalg.norm(numbers[3:]) == pytest.approx(1.0)
    assert page.complaints == []


def test_lengths_of_another_unit_are_cleared_and_the_card_of_a_thing_that_is_gone_closes(
    page, page_server
):
    for step in growing_ground():
        page_server.mesh(step)
    until(page, "worldsystem.triangles === 144 * 288 && worldsystem.mesh.dirty.size === 0")
    page.wait_for_timeout(1500)  # the view is fitted once a second
    page.keyboard.press("m")
    for x in (440, 520):
        page.mouse.click(x, 330)
    until(page, "worldsystem.distances.length === 1")
    page_server.objects(map_objects())
    page_server.pose(pose_event(1, 0.1, stamp_ns=time.time_ns()))
    until(page, "worldsystem.objects === 2 && worldsystem.pathLength > 0")
    assert len(page.evaluate("window.worldsystem.distances")) == 1, "in this unit it still holds"
    metric = dataclasses.replace(
        pose_event(2, 0.2, stamp_ns=time.time_ns()), scale=ScaleState.METRIC
    )
    page_server.pose(metric)
    until(page, "document.getElementById('scale').innerText === 'metres'")
    assert page.evaluate("window.worldsystem.distances") == []
    page.keyboard.press("Escape")
    page.locator("#query").fill("crate")
    until(page, "worldsystem.matches === 1")
    page.keyboard.press("Enter")
    until(page, "!document.getElementById('card').hidden")
    page_server.objects(dataclasses.replace(map_objects(), objects=()))
    until(page, "document.getElementById('card').hidden")
    assert page.complaints == []


def test_a_page_that_is_let_in_late_no_longer_says_that_it_is_not(browser, page_server):
    others = [PageReader(page_server.port) for _ in range(3)]  # as many as may look
    for other in others:
        other.read_one()
    late = browser.new_page()
    late.goto(f"http://127.0.0.1:{page_server.port}/")
    hint = "document.getElementById('hint-text').textContent"
    until(late, f"window.worldsystem && {hint}.startsWith('As many people')")
    others.pop().close()
    until(late, "worldsystem.connected")
    assert late.evaluate(hint) == "Waiting for the first pictures …"
    late.close()
    for other in others:
        other.close()


def test_the_first_point_of_each_length_asks_for_its_second(page, page_server):
    for step in growing_ground():
        page_server.mesh(step)
    until(page, "worldsystem.triangles === 144 * 288 && worldsystem.mesh.dirty.size === 0")
    page.wait_for_timeout(1500)  # the view is fitted once a second
    page.keyboard.press("m")
    told = []
    for x in (440, 520, 480):
        page.mouse.click(x, 330)
        page.wait_for_timeout(200)
        told.append(page.evaluate("document.getElementById('toast').textContent"))
    length = page.evaluate("worldsystem.distances[0]")
    assert told == ["Now the second point", f"{length:.2f} u", "Now the second point"]
    assert page.complaints == []


def test_lengths_of_a_map_that_was_reset_are_cleared_and_its_size_is_not_said_to_be_known(
    page, page_server
):
    for step in growing_ground():
        page_server.mesh(step)
    page_server.keyframe(keyframe(1, 0.1))
    before = pose_event(1, 0.1, stamp_ns=time.time_ns())
    page_server.pose(dataclasses.replace(before, scale=ScaleState.METRIC))
    until(page, "worldsystem.triangles === 144 * 288 && worldsystem.mesh.dirty.size === 0")
    until(page, "worldsystem.keyframes === 1 && worldsystem.stage.gliding === null")
    until(page, "document.getElementById('scale').innerText === 'metres'")
    page.keyboard.press("m")
    for x in (440, 520):
        page.mouse.click(x, 330)
    until(page, "worldsystem.distances.length === 1")
    page_server.removed(RemovedKeyframes((1,)))
    until(page, "worldsystem.distances.length === 0")
    page_server.pose(pose_event(2, 0.2, stamp_ns=time.time_ns()))
    until(page, "document.getElementById('scale').innerText === 'scale unknown'")
    toast = page.evaluate("document.getElementById('toast').textContent")
    assert toast == "The map begins anew: measure again"
    assert page.complaints == []


def test_lengths_of_a_map_that_was_reset_behind_a_hidden_page_are_cleared(page, page_server):
    for step in growing_ground():
        page_server.mesh(step)
    page_server.keyframe(keyframe(1, 0.1))
    until(page, "worldsystem.triangles === 144 * 288 && worldsystem.mesh.dirty.size === 0")
    until(page, "worldsystem.keyframes === 1 && worldsystem.stage.gliding === null")
    page.keyboard.press("m")
    for x in (440, 520):
        page.mouse.click(x, 330)
    until(page, "worldsystem.distances.length === 1")
    page.evaluate("worldsystem.connection.tell({ visible: false })")
    (talk,) = page_server._clients._talks
    deadline = time.monotonic() + 10.0
    while talk._visible.is_set():
        assert time.monotonic() < deadline, "the server was not told"
        page.wait_for_timeout(10)
    page_server.removed(RemovedKeyframes((1,)))
    page_server.keyframe(keyframe(2, 0.9))  # news of both come in one message
    page.evaluate("worldsystem.connection.tell({ visible: true })")
    until(page, "worldsystem.distances.length === 0")
    assert page.evaluate("worldsystem.keyframes") == 1
    assert page.complaints == []
