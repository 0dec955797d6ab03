# SPDX-License-Identifier: Apache-2.0
"""Memory of the `slam3r` back-end over thousands of frames, with the golden tiny networks.

Their weights are random and trust nothing; every frame is made to count as tracked, so that key
frames, buffer and cloud are at work all the time.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from harness import QUICK, Benchmark
from safetensors.torch import load_file

from worldsystem_core.frames import Camera, Frame
from worldsystem_core.reconstruction import NewKeyframe, Pose
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.model.loading import load_networks
from worldsystem_slam3r.model.networks import Networks
from worldsystem_slam3r.model.sizes import NetworkSizes
from worldsystem_slam3r.slam3r.backend import Slam3rBackend

GOLDEN = (
    Path(os.environ.get("WORLDSYSTEM_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))
    / "slam3r"
)
PX = 64
FRAMES = 2000 if QUICK else 10_000
WARM_UP_FRAMES = 1000
SAMPLED_EVERY = 25
EVERYTHING_COUNTS = {
    "initial_confidence": 0.0,
    "lost_confidence": 0.0,
    "inlier_share": 0.0,
    "most_way": 0.0,
    "keyframe_confidence": 1.0,
    "keyframe_stride": 3,
    "neighbours": 1,
    "scene_frames": 3,
    "register_together": 4,
}
"""No threshold makes a frame lost; windows are small, so that thousands of them take minutes."""


def tiny_networks() -> Networks:
    """The golden networks of random weights."""
    config = json.loads((GOLDEN / "i2p_tiny_config.json").read_text())["config"]
    states = [load_file(GOLDEN / f"{net}_tiny.safetensors") for net in ("i2p", "l2w")]
    return load_networks(*states, sizes=NetworkSizes.from_published_config(config))


def endless_video(count: int) -> Iterator[Frame]:
    """A window that wanders over a large random picture, hardly twice the same."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)
    wall = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
    camera = Camera.from_horizontal_fov(96, 72, 1.2)
    for i in range(count):
        x = int(500 + 490 * np.sin(0.011 * i))
        y = int(500 + 490 * np.sin(0.007 * i + 1.0))
        rgb = wall[y : y + 72, x : x + 96] ^ np.uint8(i % 7)
        yield Frame(id=i, stamp_ns=i * 33_333_333, rgb=rgb, camera=camera)


def resident_mb() -> float:
    """Memory of this process that is in use now [MB]."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def slope_mb_per_1000(memory: list[tuple[int, float]]) -> float:
    """Theil–Sen slope of (frame, MB) samples: the median over all pairs of them."""
    frames, mb = np.array(memory).T
    i, j = np.triu_indices(len(frames), k=1)
    return float(1000.0 * np.median((mb[j] - mb[i]) / (frames[j] - frames[i])))


def stream(
    networks: Networks, frames: int, *, warm_up: int, **settings: object
) -> tuple[list[tuple[int, float]], np.ndarray]:
    """Feed `frames`; the memory samples after the warm-up, and the seconds of every frame."""
    config = Slam3rConfig(**{"backend": "slam3r", **EVERYTHING_COUNTS, **settings})  # type: ignore[arg-type]
    backend = Slam3rBackend(networks, config, picture_px=PX)
    memory, seconds = [], []
    poses = keyframes = 0
    for frame in endless_video(frames):
        start = time.perf_counter()
        events = backend.feed(frame)
        seconds.append(time.perf_counter() - start)
        poses += sum(isinstance(event, Pose) for event in events)
        keyframes += sum(isinstance(event, NewKeyframe) for event in events)
        if frame.id >= warm_up and frame.id % SAMPLED_EVERY == 0:
            memory.append((frame.id, resident_mb()))
    poses += sum(isinstance(event, Pose) for event in backend.finish())
    assert poses == frames, "a frame without its pose"
    assert keyframes > frames // 8, "the map stands still"
    return memory, np.array(seconds)


def measure(bench: Benchmark) -> None:
    """Add `memory_slope_mb_per_1000`, and how steady the time per frame is."""
    if not GOLDEN.is_dir():
        print(f"memory_slope_mb_per_1000: left out, {GOLDEN} is not there")
        return
    torch.set_num_threads(1)
    memory, seconds = stream(tiny_networks(), FRAMES, warm_up=WARM_UP_FRAMES)
    note = f"{FRAMES} frames, tiny networks, {memory[-1][1]:.0f} MB in all at the end"
    bench.add("memory_slope_mb_per_1000", slope_mb_per_1000(memory), "MB", note=note)
    first, last = seconds[WARM_UP_FRAMES : WARM_UP_FRAMES + 500], seconds[-500:]
    ratio = float(np.median(first) / np.median(last))
    bench.add("backend_steady_ratio", ratio, "", note="speed of the last 500 frames over the first")


if __name__ == "__main__":
    measure(Benchmark("slam3r"))
