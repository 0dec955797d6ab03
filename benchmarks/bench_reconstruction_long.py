# SPDX-License-Identifier: Apache-2.0
"""20 000 frames of the same flight, forth and back: does memory stay flat, and speed?

Takes a quarter of an hour; 2 000 frames when quick. Pictures are reduced to 320 pixels wide,
which changes what a frame costs and not what is kept of it.
"""

from __future__ import annotations

import gc
import resource
import time
from pathlib import Path

import numpy as np
import reconstruction_films as films
from harness import QUICK, Benchmark

from worldsystem_sim.config import SimConfig
from worldsystem_sim.offline import frames as simulated_frames
from worldsystem_slam3r.backend import create_backend
from worldsystem_slam3r.config import Slam3rConfig

FRAMES = 2_000 if QUICK else 20_000
LAP_FRAMES = 200
WARM_UP_LAPS = 2


def main() -> None:
    flight = SimConfig(flight="demo", duration_s=films.FLIGHT_S)
    film = [item for item, _ in zip(simulated_frames(flight), range(LAP_FRAMES), strict=False)]
    settings = {"synchronous": True, "processing_width": 320, "threads": 1}
    backend = create_backend("geometric", Slam3rConfig(**settings))  # type: ignore[arg-type]
    laps = FRAMES // (2 * LAP_FRAMES)
    seconds, memory_mb = [], []
    for number, (frame, _) in enumerate(films.forth_and_back(film, laps)):
        start = time.process_time()
        backend.feed(frame)
        seconds.append(time.process_time() - start)
        if (number + 1) % (2 * LAP_FRAMES) == 0:
            gc.collect()
            memory_mb.append(_resident_mb())
    backend.finish()
    lap_s = np.array(seconds).reshape(laps, -1).sum(axis=1)[WARM_UP_LAPS:]
    frames = np.arange(WARM_UP_LAPS, laps) * 2 * LAP_FRAMES / 1000.0
    slope = np.polyfit(frames, memory_mb[WARM_UP_LAPS:], 1)[0]
    third = max(1, len(lap_s) // 3)
    ratio = float(np.median(lap_s[:third]) / np.median(lap_s[-third:]))
    bench = Benchmark("reconstruction_long", id_prefix="recon")
    note = f"{FRAMES} frames, resident {memory_mb[WARM_UP_LAPS]:.0f} to {memory_mb[-1]:.0f} MB"
    bench.add("memory_slope_mb_per_1000", float(slope), "MB", note=note)
    note = "processor time of equal laps, last third to first"
    bench.add("long_fps_end_over_start", ratio, "", note=note)
    bench.write()


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":
    main()
