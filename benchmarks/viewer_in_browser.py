# SPDX-License-Identifier: Apache-2.0
"""What the page costs a browser: decoding, drawing and memory, in headless Chromium.

Without a graphics processor Chromium draws on the CPU (SwiftShader), and that is what is measured.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from worldsystem_core.mesh_code.code import encode
from worldsystem_core.surface import MeshBlock

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--no-first-run",
    "--no-proxy-server",
    "--js-flags=--expose-gc",
    "--enable-precise-memory-info",
]
SIZE = {"width": 1280, "height": 720}
DELTA_TRIANGLES = 20_000
COLD_RUNS = 5
_WAIT_S = 120.0

_TIME_DELTA = """async (bytes) => {
  const code = Uint8Array.from(bytes);
  const { mesh, stage } = worldsystem;
  const gl = stage.renderer.getContext();
  const drawn = () => {
    stage.renderer.render(stage.scene, stage.camera);
    // waits until it is drawn, which finish() does not
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  };
  stage.redraw = () => {}; // measured alone: nothing else is drawn, and only when told
  mesh.clear();
  drawn();
  const taken = () => new Promise((done) => {
    mesh.take = (message) => {
      const at = performance.now();
      delete mesh.take;
      mesh.take(message);
      while (mesh.rebuild());
      done(at);
    };
  });
  const runs = [];
  for (let run = 0; run < 40; run += 1) {
    const arrived = taken();
    const a = performance.now();
    mesh.decode({ code, removed: new Int32Array(0) });
    const b = await arrived;
    const c = performance.now();
    drawn();
    const d = performance.now();
    drawn();
    runs.push([b - a, c - b, Math.max(0, 2 * d - c - performance.now())]); // without the drawing
  }
  return runs;
}"""
_ORBIT = """async (seconds) => {
  const { stage } = worldsystem;
  const begun = performance.now();
  let frames = 0;
  while (performance.now() - begun < 1000 * seconds) {
    await new Promise((done) => requestAnimationFrame(done));
    stage.camera.position.applyAxisAngle(stage.camera.up, 0.05);
    stage.camera.lookAt(stage.controls.target);
    stage.renderer.render(stage.scene, stage.camera);
    stage.renderer.getContext().finish();
    frames += 1;
  }
  return frames / ((performance.now() - begun) / 1000);
}"""


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def opened(port: int, query: str = "") -> Iterator[Any]:
    """The page in a browser, connected."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        page = browser.new_page(viewport=SIZE)
        page.goto(f"http://127.0.0.1:{port}/{query}")
        until(page, "window.worldsystem?.connected")
        yield page
        browser.close()


def until(page: Any, expression: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not page.evaluate(f"Boolean({expression})"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_WAIT_S:.0f} s: {expression}")
        page.wait_for_timeout(100)


def delta_of(blocks: list[MeshBlock], voxel: float) -> bytes:
    """Neighbouring blocks with about `DELTA_TRIANGLES` triangles, in the block code."""
    centre = np.median([block.index for block in blocks], axis=0)
    blocks = sorted(blocks, key=lambda b: float(np.abs(np.array(b.index) - centre).sum()))
    faces = np.cumsum([len(block.faces) for block in blocks])
    return encode(blocks[: int(np.searchsorted(faces, DELTA_TRIANGLES))], voxel)


def delta_ms(page: Any, code: bytes) -> np.ndarray:
    """Runs × (decode, build, upload) [ms]; the first `COLD_RUNS` are not yet compiled."""
    return np.array(page.evaluate(_TIME_DELTA, list(code)))


def orbit_fps(page: Any, seconds: float) -> float:
    return float(page.evaluate(_ORBIT, seconds))


def heap_mb(page: Any) -> float:
    """What the page's JavaScript holds after a collection."""
    page.evaluate("window.gc && (gc(), gc())")
    return float(page.evaluate("performance.memory.usedJSHeapSize")) / 1e6
