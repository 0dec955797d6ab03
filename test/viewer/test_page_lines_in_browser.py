# SPDX-License-Identifier: Apache-2.0
"""The page in a headless browser, on lines that break, die without a word, are slow or guarded."""

import dataclasses
import time
import zlib

import cv2
import numpy as np
import pytest
from cable import Cable
from headless_browser import needs_browser, until
from test_page_in_browser import triangles
from world_for_viewers import delta, ground_block, growing_ground, picture, pose_event

from worldsystem_core.reconstruction import ScaleState
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.page_server import PageServer
from worldsystem_viewer.protocol import ImageUpdate

pytestmark = needs_browser


# In the page: index -> checksum of the vertices, colours and faces of each block that it holds.
CHECKSUMS = """() => {
  const sum = (crc, bytes) => {
    for (const byte of bytes) {
      crc ^= byte;
      for (let k = 0; k < 8; k += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return crc;
  };
  const found = {};
  for (const { blocks } of worldsystem.mesh.chunks.values()) {
    for (const [name, { vertices, colours, faces }] of blocks) {
      let crc = -1;
      for (const a of [vertices, colours, faces]) {
        crc = sum(crc, new Uint8Array(a.buffer, a.byteOffset, a.byteLength));
      }
      found[name] = ~crc >>> 0;
    }
  }
  return found;
}"""


def checksums(blocks) -> dict[str, int]:
    """The same of the server's blocks."""
    found = {}
    for block in blocks:
        crc = zlib.crc32(block.vertices.tobytes())
        crc = zlib.crc32(block.colours.tobytes(), crc)
        name = ",".join(map(str, block.index))
        found[name] = zlib.crc32(block.faces.astype(np.uint32).tobytes(), crc)
    return found


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


@pytest.mark.parametrize("offline_s", [1.0, pytest.param(10.0, marks=pytest.mark.slow)])
def test_after_being_cut_off_the_page_has_the_servers_very_blocks(browser, page_server, offline_s):
    deltas = growing_ground()
    for step in deltas[:6]:
        page_server.mesh(step)
    with Cable(page_server.port) as cable:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{cable.port}/")
        until(page, "window.worldsystem?.triangles === 6 * 12 * 288")
        received = page.evaluate("worldsystem.connection.bytes")
        cable.cut()
        until(page, "!worldsystem.connected")
        changed = [ground_block(i, 0, 50) for i in range(5)]
        for step in [*deltas[6:], delta(changed, 13, removed=((7, 0, 1), (8, 0, 1)))]:
            page_server.mesh(step)
        page.wait_for_timeout(1000 * offline_s)
        cable.mend()
        until(page, "worldsystem.connected && worldsystem.triangles === 142 * 288")
        blocks = {block.index: block for step in deltas for block in step.blocks}
        blocks |= {block.index: block for block in changed}
        kept = [block for index, block in blocks.items() if index not in ((7, 0, 1), (8, 0, 1))]
        assert page.evaluate(CHECKSUMS) == checksums(kept)
        caught_up = page.evaluate("worldsystem.connection.bytes") - received
        assert caught_up < 1.3 * received  # 77 blocks of 142: only what it lacked came
        page.close()


def test_a_viewer_on_a_slow_line_does_not_slow_another(browser, page_server):
    with Cable(page_server.port) as cable:
        slow, quick = browser.new_page(), browser.new_page()
        slow.goto(f"http://127.0.0.1:{cable.port}/")
        quick.goto(f"http://127.0.0.1:{page_server.port}/")
        for each in (slow, quick):
            until(each, "window.worldsystem?.connected")
        cable.bytes_per_s = 50_000
        for step in growing_ground():
            page_server.mesh(step)
        until(quick, "worldsystem.triangles === 144 * 288")
        assert triangles(slow) < 144 * 288
        cable.bytes_per_s = 0
        until(slow, "worldsystem.triangles === 144 * 288")
        slow.close()
        quick.close()


def test_a_page_whose_line_goes_silent_connects_again(browser, page_server):
    with Cable(page_server.port) as cable:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{cable.port}/")
        until(page, "window.worldsystem?.connected")
        page.evaluate("() => { setInterval(() => worldsystem.connection.listen(), 800); }")
        page.wait_for_timeout(3000)
        assert page.evaluate("worldsystem.connected && worldsystem.connection.patience === 4")
        cable.hold()
        until(page, "!worldsystem.connected")
        page_server.mesh(growing_ground()[0])
        cable.mend()
        until(page, "worldsystem.connected && worldsystem.triangles === 12 * 288")
        assert not page.evaluate("document.getElementById('token').open")
        page.close()


def guarded_server(folder, token: str, port: int = 0) -> PageServer:
    """A server that asks pages for this token."""
    tokens = folder / "tokens.json"
    tokens.write_text(f'{{"viewer": "{token}"}}')
    server = PageServer(ViewerConfig(web_port=port, token_file=str(tokens)))
    server.start()
    return server


def type_token(page, token: str) -> None:
    """Wait until the page asks for it, and give it."""
    until(page, "document.getElementById('token').open")
    page.locator("#token-text").fill(token)
    page.locator("#token button").click()
    until(page, "window.worldsystem?.connected")


def test_a_page_without_its_token_asks_for_it(browser, tmp_path):
    server = guarded_server(tmp_path, "secret")
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/?token=old")
    type_token(page, "secret")
    page.locator("[data-surface=splats]").evaluate("(button) => button.click()")
    until(page, "worldsystem.splats.socket?.readyState === WebSocket.OPEN")
    page.close()
    server.stop()


def test_a_page_asks_for_the_token_that_changed_while_it_was_open(browser, tmp_path):
    server = guarded_server(tmp_path, "old")
    port = server.port
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{port}/?token=old")
    until(page, "window.worldsystem?.connected")
    server.stop()
    until(page, "!worldsystem.connected")
    page.wait_for_timeout(1500)
    assert not page.evaluate("document.getElementById('token').open"), "nobody asks for one"
    server = guarded_server(tmp_path, "new", port)
    type_token(page, "new")
    page.close()
    server.stop()


def test_what_a_server_told_is_not_said_of_the_next_one(browser):
    server = PageServer(ViewerConfig(web_port=0))
    server.start()
    port = server.port
    pose = pose_event(1, 0.1, stamp_ns=time.time_ns())
    server.pose(dataclasses.replace(pose, scale=ScaleState.METRIC))
    jpeg = cv2.imencode(".jpg", picture(0.5))[1].reshape(-1)
    server._put_picture(ImageUpdate(stamp_ns=1, full_width=640, full_height=360, jpeg=jpeg))
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{port}/")
    until(page, "document.getElementById('scale').innerText === 'metres'")
    until(page, "!document.getElementById('video').hidden")
    server.stop()
    until(page, "!worldsystem.connected")
    server = PageServer(ViewerConfig(web_port=port))
    server.start()
    until(page, "worldsystem.connected")
    for name in ("tracking", "scale", "video"):
        assert page.evaluate(f"document.getElementById('{name}').hidden"), name
    page.close()
    server.stop()
