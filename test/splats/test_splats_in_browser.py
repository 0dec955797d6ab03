# SPDX-License-Identifier: Apache-2.0
"""Splats in a headless browser: they come when they are wanted, and look as the reference says."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from headless_browser import WAIT_S, needs_browser, until
from splat_scenes import plane_pointmap

sys.path.insert(0, str(Path(__file__).parents[1] / "viewer"))

from test_page_in_browser import drawn_pixels
from world_for_viewers import growing_ground

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.delta import SplatDelta, SplatOperation
from worldsystem_core.splats.discs import discs_from_pointmap
from worldsystem_core.splats.packed import pack, unpack
from worldsystem_core.splats.raster import draw
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.page_server import PageServer

pytestmark = needs_browser

CAMERA = Camera.from_horizontal_fov(40, 30, np.radians(50.0))
FAR_AWAY = Sim3(1.0, np.eye(3), np.array([500.0, 0.0, 0.0]))
SIZE = {"width": 400, "height": 300}
LOOK_FROM_THE_CAMERA = """() => {
  const { stage } = window.worldsystem.splats;
  stage.controls.minDistance = 0;
  stage.camera.position.set(0, 0, 0.001);
  stage.controls.target.set(0, 0, -3);
  stage.camera.near = 0.01;
  stage.camera.far = 100;
  stage.camera.updateProjectionMatrix();
  stage.redraw();
}"""


@pytest.fixture
def page_server() -> Iterator[PageServer]:
    server = PageServer(ViewerConfig(web_port=0))
    server.start()
    yield server
    server.stop()


def opened(browser, page_server, query: str = ""):
    page = browser.new_page(viewport=SIZE)
    page.complaints = []
    page.on("console", lambda m: m.type == "error" and page.complaints.append(m.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(f"http://127.0.0.1:{page_server.port}/{query}")
    until(page, "window.worldsystem?.connected")
    return page


def coloured_wall():
    """Discs of a slanted wall with stripes, before a camera at the origin of a y-down world."""
    points = plane_pointmap(np.array([0.5, -0.2, -0.8426]), 3.0, CAMERA)
    stripes = np.zeros((*points.shape[:2], 3), np.uint8)
    stripes[..., 0] = np.where(np.floor(3 * points[..., 0]) % 2, 230, 40)
    stripes[..., 1] = np.where(np.floor(3 * points[..., 1]) % 2, 200, 60)
    stripes[..., 2] = 90
    discs = discs_from_pointmap(points, stripes)
    # the page magnifies them tenfold: wider ones still close the wall
    return replace(discs, scales=discs.scales * np.array([1.6, 1.6, 1], np.float32))


def put(gaussians, chunk=1, sequence=1, place=None) -> SplatDelta:
    return SplatDelta(
        stamp_ns=sequence,
        sequence=sequence,
        chunk=chunk,
        operation=SplatOperation.PUT,
        world_from_chunk=place or Sim3.identity(),
        words=pack(gaussians),
        total=len(gaussians),
    )


def hide_panels(page) -> None:
    page.evaluate(
        "document.querySelectorAll('.panel, #hint')"
        ".forEach((e) => { e.style.visibility = 'hidden'; })"
    )


def show(page, surface: str) -> None:
    page.locator(f"[data-surface={surface}]").evaluate("(button) => button.click()")


def settled(page) -> np.ndarray:
    """The picture once two in a row are alike and the order is made."""
    until(page, "worldsystem.splats.pool.sorts > 0 && !worldsystem.splats.pool.sorting")
    last = drawn_pixels(page)
    for _ in range(40):
        page.wait_for_timeout(150)
        now = drawn_pixels(page)
        if np.array_equal(now, last):
            return now[..., ::-1].astype(float)
        last = now
    raise AssertionError("the picture does not come to rest")


def reference(gaussians, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    f = 0.5 * height / np.tan(np.radians(25.0))
    camera = Camera(
        width=width, height=height, fx=f, fy=f, cx=0.5 * (width - 1), cy=0.5 * (height - 1)
    )
    drawn = draw(gaussians, np.eye(4), camera)
    return drawn.over(np.zeros(3, np.float32)).astype(float), drawn.alpha


def test_splats_look_in_the_page_as_the_reference_draws_them(browser, page_server):
    discs = coloured_wall()
    page_server.splats(put(discs))
    page = opened(browser, page_server)
    page.evaluate(LOOK_FROM_THE_CAMERA)
    hide_panels(page)
    empty = drawn_pixels(page)
    assert page.evaluate("worldsystem.splats.bytes") == 0  # nothing is fetched unasked
    show(page, "splats")
    until(page, f"worldsystem.splats.count === {len(discs)}")
    page.evaluate(LOOK_FROM_THE_CAMERA)
    seen = settled(page)
    wanted, alpha = reference(unpack(pack(discs)), *seen.shape[:2])
    solid = alpha > 0.98  # elsewhere the page's background shines through
    assert solid.mean() > 0.5
    assert np.abs(seen - empty[..., ::-1])[solid].mean() > 20
    error = np.abs(seen - wanted)[solid]
    assert np.median(error) <= 2  # 8 bits, blended one after the other
    assert np.percentile(error, 95) <= 8
    page.evaluate("worldsystem.splats.pool.grow(2 * worldsystem.splats.pool.pages)")
    page_server.splats(put(discs[np.arange(5)], chunk=2, sequence=2, place=FAR_AWAY))
    until(page, "worldsystem.splats.chunks === 2")
    assert np.abs(settled(page) - seen).mean() < 0.5  # larger textures keep what was there
    assert page.complaints == []
    page.close()


def assert_the_wall_is_seen(seen, discs) -> None:
    wanted, alpha = reference(unpack(pack(discs)), *seen.shape[:2])
    error = np.abs(seen - wanted)[alpha > 0.98]
    assert np.median(error) <= 2  # 8 bits, blended one after the other
    assert np.percentile(error, 95) <= 8


def test_splats_of_any_page_are_drawn_where_their_chunk_is(browser, page_server):
    """A row of the texture of places holds those of 64 pages."""
    discs = coloured_wall()
    page = opened(browser, page_server)
    hide_panels(page)
    show(page, "splats")
    for number in range(1, 71):
        far = put(discs[np.arange(3)], chunk=number, sequence=number, place=FAR_AWAY)
        page_server.splats(far)
    until(page, "worldsystem.splats.chunks === 70")
    page_server.splats(put(discs, chunk=100, sequence=71))
    until(page, "worldsystem.splats.chunks === 71")
    assert page.evaluate("Math.min(...worldsystem.splats.pool.chunks.get(100).pages)") >= 70
    page.evaluate(LOOK_FROM_THE_CAMERA)
    assert_the_wall_is_seen(settled(page), discs)
    assert page.complaints == []
    page.close()


def test_splats_are_there_again_after_the_graphics_card_lost_them(browser, page_server):
    """Those that came before, and one that came before anything was drawn again."""
    discs = coloured_wall()
    page = opened(browser, page_server)
    hide_panels(page)
    show(page, "splats")
    page_server.splats(put(discs))
    until(page, f"worldsystem.splats.count === {len(discs)}")
    page.evaluate(LOOK_FROM_THE_CAMERA)
    before = settled(page)
    assert_the_wall_is_seen(before, discs)
    page.evaluate("worldsystem.stage.renderer.forceContextLoss()")
    until(page, "worldsystem.stage.renderer.getContext().isContextLost()")
    far = put(discs[np.arange(3)], chunk=2, sequence=2, place=FAR_AWAY)
    page_server.splats(far)
    until(page, "worldsystem.splats.chunks === 2")
    page.evaluate("worldsystem.stage.renderer.forceContextRestore()")
    until(page, "!worldsystem.stage.renderer.getContext().isContextLost()")
    assert_the_wall_is_seen(settled(page), discs)
    page.close()


HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_hidden_page_fetches_no_splats_until_it_is_seen_again(browser, page_server):
    discs = coloured_wall()
    page = opened(browser, page_server)
    show(page, "splats")
    page_server.splats(put(discs))
    until(page, f"worldsystem.splats.count === {len(discs)}")
    page.evaluate("worldsystem.splats.hiddenMs = 50")
    page.evaluate(HIDE, True)
    until(page, "worldsystem.splats.socket === null")
    page_server.splats(put(discs[np.arange(10)], chunk=2, sequence=2))
    page.wait_for_timeout(300)
    assert page.evaluate("worldsystem.splats.chunks") == 1
    page.evaluate(HIDE, False)
    until(page, "worldsystem.splats.chunks === 2")
    assert page.complaints == []
    page.close()


def test_splats_are_there_again_when_the_other_line_broke_and_could_not_be_resumed(
    browser, page_server
):
    """Their own line stayed, over which the page has all of them already."""
    discs = coloured_wall()
    page = opened(browser, page_server)
    show(page, "splats")
    page_server.splats(put(discs))
    until(page, f"worldsystem.splats.count === {len(discs)}")
    page.evaluate("worldsystem.first = worldsystem.connection.socket; worldsystem.first.close()")
    until(page, "worldsystem.connected && worldsystem.connection.socket !== worldsystem.first")
    page.wait_for_timeout(300)
    until(page, f"worldsystem.splats.count === {len(discs)}")
    assert page.complaints == []
    page.close()


def test_chunks_move_are_replaced_and_go(browser, page_server):
    discs = coloured_wall()
    page = opened(browser, page_server, "?splats=deflated")
    show(page, "splats")
    page_server.splats(put(discs))
    page_server.splats(put(discs[np.arange(len(discs) // 2)], chunk=2, sequence=2))
    until(page, f"worldsystem.splats.count === {len(discs) + len(discs) // 2}")
    before = page.evaluate("worldsystem.splats.bytes")
    aside = Sim3(1.0, np.eye(3), np.array([5.0, 0, 0]))
    moved = SplatDelta(
        stamp_ns=3,
        sequence=3,
        chunk=2,
        operation=SplatOperation.POSE,
        world_from_chunk=aside,
        words=np.zeros((0, 4), np.uint32),
        total=len(discs),
    )
    page_server.splats(moved)
    pool = "worldsystem.splats.pool"
    page_number = f"{pool}.chunks.get(2).pages[0]"
    until(page, f"{pool}.places.image.data[12 * {page_number} + 3] === 5")
    assert page.evaluate("worldsystem.splats.bytes") - before < 300
    page_server.splats(put(discs[np.arange(10)], chunk=1, sequence=4))
    gone = SplatDelta(
        stamp_ns=5,
        sequence=5,
        chunk=2,
        operation=SplatOperation.REMOVE,
        world_from_chunk=aside,
        words=np.zeros((0, 4), np.uint32),
        total=10,
    )
    page_server.splats(gone)
    until(page, "worldsystem.splats.count === 10 && worldsystem.splats.chunks === 1")
    show(page, "mesh")  # instead of splats: no byte more comes
    until(page, "worldsystem.splats.socket === null")
    assert page.complaints == []
    page.close()


STREAM_KBITS = r"""(() => {
  const cell = [...document.querySelectorAll("#status div")]
    .find((each) => each.querySelector("small").textContent === "Stream");
  const told = cell?.querySelector("b").textContent.match(/^([\d.]+)(.*)$/);
  return told ? Number(told[1]) * (told[2] === "Mbit/s" ? 1000 : 1) : 0;
})()"""


def test_what_the_page_takes_of_its_line_has_the_splats_in_it(browser, page_server):
    discs = coloured_wall()
    page = opened(browser, page_server)
    show(page, "splats")
    deadline, number = time.monotonic() + WAIT_S, 0
    while page.evaluate(STREAM_KBITS) < 100:  # all else on an empty world takes a few
        assert time.monotonic() < deadline, "the splats are not counted"
        number += 1
        page_server.splats(put(discs, sequence=number))
        page.wait_for_timeout(100)
    assert page.complaints == []
    page.close()


# The line of splats dies without a word, and the page gives up the other one.
DIE = """() => {
  const { connection, splats } = worldsystem;
  splats.socket.onmessage = splats.socket.onclose = null;
  worldsystem.first = connection.socket;
  connection.socket.close();
}"""


def test_splats_go_on_where_their_line_died_without_a_word_and_the_other_is_resumed(
    browser, page_server
):
    discs = coloured_wall()
    page_server.mesh(growing_ground()[0])
    page = opened(browser, page_server)
    until(page, "worldsystem.triangles > 0 && worldsystem.connection.change > 0")
    show(page, "splats")
    page_server.splats(put(discs))
    until(page, f"worldsystem.splats.count === {len(discs)}")
    epoch = page.evaluate("worldsystem.mesh.epoch")
    page.evaluate(DIE)
    until(page, "worldsystem.connected && worldsystem.connection.socket !== worldsystem.first")
    assert page.evaluate("worldsystem.mesh.epoch") == epoch, "it was resumed"
    page_server.splats(put(discs[np.arange(10)], chunk=2, sequence=2))
    until(page, "worldsystem.splats.chunks === 2")
    assert page.complaints == []
    page.close()
