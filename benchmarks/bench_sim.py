# SPDX-License-Identifier: Apache-2.0
"""How long the first demo waits for its pictures.

`sim.render_fps` is one thread over poses spread along the demo; `sim.encode_fps` is the encoder
alone on those pictures; `sim.first_demo_s` prepares the whole demo on all cores with nothing
cached, the building of the scene included (QUICK: a shorter flight, which is noted).
"""

from __future__ import annotations

import os
import tempfile
import time

import numpy as np
from harness import QUICK, Benchmark, timed_ms

from worldsystem_sim.cache import access_units
from worldsystem_sim.config import SimConfig
from worldsystem_sim.encode import Encoder
from worldsystem_sim.flight import flight
from worldsystem_sim.precompile import precompile
from worldsystem_sim.render import Renderer
from worldsystem_sim.scene import build_scene

CONFIG = SimConfig()
PICTURES = 12 if QUICK else 60
FLIGHT_S = 6.0 if QUICK else CONFIG.duration_s


def main() -> None:
    precompile()
    bench = Benchmark("sim")
    _first_demo(bench)
    _stages(bench)
    bench.write()


def _first_demo(bench: Benchmark) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WORLDSYSTEM_CACHE"] = folder
        config = SimConfig(duration_s=FLIGHT_S)
        begun = time.perf_counter()
        count = sum(1 for _ in access_units(config))
        note = f"{count} pictures of {config.width} × {config.height}, {os.cpu_count()} cores"
        bench.add("first_demo_s", time.perf_counter() - begun, "s", note=note)


def _stages(bench: Benchmark) -> None:
    scene = build_scene(CONFIG.seed)
    path = flight(CONFIG.flight, CONFIG.seed, CONFIG.duration_s, scene)
    renderer = Renderer(scene, CONFIG.camera)
    poses = path.poses((0.5 + np.arange(PICTURES)) * CONFIG.duration_s / PICTURES)
    pictures = [renderer.render(pose).rgb for pose in poses[:2]]
    remaining = iter(poses)
    render_ms = timed_ms(lambda: pictures.append(renderer.render(next(remaining)).rgb), PICTURES)
    bench.add("render_fps", [1e3 / ms for ms in render_ms], "1/s", note="one thread")
    encoder = Encoder(CONFIG.width, CONFIG.height, CONFIG.fps, CONFIG.bitrate_kbps)
    waiting = iter(pictures)
    encode_ms = timed_ms(lambda: encoder.encode(next(waiting)), PICTURES)
    bench.add("encode_fps", [1e3 / ms for ms in encode_ms], "1/s", note="one thread")


if __name__ == "__main__":
    main()
