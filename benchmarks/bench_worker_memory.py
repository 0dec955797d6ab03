# SPDX-License-Identifier: Apache-2.0
"""The reconstruction's process over and over the same flight, as fast as it goes: does it grow?

What `bench_soak` shows of that process in hours is seen here in minutes: pictures go to it as they
do from the stage, with GPS and pressure beside them, and its map is saved all the while. An hour of
the demo has 54,000 pictures.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from harness import QUICK, Benchmark
from soak_figures import slope
from soak_samples import processes_of

from worldsystem_core.frames import Frame
from worldsystem_core.reconstruction import Event, Pose, TrackingState
from worldsystem_core.telemetry import GpsFix, PressureSample
from worldsystem_sim.config import SimConfig
from worldsystem_sim.offline import frames as simulated_frames
from worldsystem_sim.telemetry import geodetic_from_map, pressure_pa
from worldsystem_slam3r.apart.client import RunningApart
from worldsystem_slam3r.config import Slam3rConfig

LAPS, WARM_UP_LAPS = (4, 1) if QUICK else (84, 8)
FRAMES_AN_HOUR = 54_000
MEASURED_EVERY = 3
LOOK_S = 0.2


@dataclass(frozen=True)
class Lap:
    """Once over the flight: the median of what was resident, and how many pictures were tracked."""

    resident_mb: float
    tracked: int


def main() -> None:
    film = list(simulated_frames(SimConfig(flight="demo")))
    with tempfile.TemporaryDirectory() as folder:
        settings = {"map": f"{folder}/map", "map_every_s": 1.0, "map_mb": 32}
        config = Slam3rConfig(own_process=True, **settings)  # type: ignore[arg-type]
        running = RunningApart(config, lambda: None)
        begin_s = time.monotonic()
        laps = [_lap(running, film, number) for number in range(LAPS)]
        seconds = time.monotonic() - begin_s
        running.finish()
        running.close()
    steady = [lap.resident_mb for lap in laps[WARM_UP_LAPS:]]
    demo_s = np.arange(len(steady)) * len(film) * 3600.0 / FRAMES_AN_HOUR
    growth = slope(demo_s.tolist(), steady)
    thirds = ", ".join(f"{np.median(part):.0f}" for part in np.array_split(steady, 3))
    bench = Benchmark("worker_memory", id_prefix="recon.worker")
    note = (
        f"± {growth.error_percent_per_h:.2g} (standard error); resident, medians of thirds after "
    )
    note += f"{WARM_UP_LAPS} laps: {thirds} MB; {LAPS} laps of {len(film)} pictures"
    bench.add("memory_slope", growth.percent_per_h, "%/h of demo", note=note)
    frames = LAPS * len(film)
    bench.add("fps", frames / seconds, "fps", note="with links, loops and saving the map")
    bench.add("tracked_percent", 100.0 * sum(lap.tracked for lap in laps) / frames, "%")
    bench.write()


def _lap(running: RunningApart, film: list[tuple[Frame, np.ndarray]], number: int) -> Lap:
    """Fly the film once more."""
    period_ns, tracked = film[1][0].stamp_ns - film[0][0].stamp_ns, 0
    assert running.pid is not None
    with _watched(running.pid) as resident_mb:
        for frame_id, (frame, world_from_cam) in enumerate(film, number * len(film)):
            stamp_ns = film[0][0].stamp_ns + frame_id * period_ns
            if not frame_id % MEASURED_EVERY:
                _observe(running, stamp_ns, world_from_cam[:3, 3])
            for answer in running.feed(replace(frame, id=frame_id, stamp_ns=stamp_ns)):
                if answer.failure is not None:
                    raise answer.failure
                tracked += sum(map(_is_tracked, answer.events))
    return Lap(statistics.median(resident_mb), tracked)


def _is_tracked(event: Event) -> bool:
    return isinstance(event, Pose) and event.state is TrackingState.TRACKED


def _observe(running: RunningApart, stamp_ns: int, place: np.ndarray) -> None:
    latitude, longitude, altitude = geodetic_from_map(*place.tolist())
    running.observe(
        GpsFix(
            stamp_ns=stamp_ns,
            latitude_deg=latitude,
            longitude_deg=longitude,
            altitude_m=altitude,
            horizontal_error_m=1.0,
            vertical_error_m=2.0,
        )
    )
    running.observe(PressureSample(stamp_ns=stamp_ns, pressure_pa=pressure_pa(altitude)))


@contextmanager
def _watched(pid: int) -> Iterator[list[float]]:
    """What process `pid` has resident [MB], looked at all the while."""
    found: list[float] = []
    over = threading.Event()

    def look() -> None:
        found.append(processes_of(pid)[pid].memory_mb)
        while not over.wait(LOOK_S):
            found.append(processes_of(pid)[pid].memory_mb)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    main()
