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
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness import QUICK, Benchmark

from worldsystem_core.frames import Frame
from worldsystem_core.telemetry import GpsFix, PressureSample
from worldsystem_sim.config import SimConfig
from worldsystem_sim.offline import frames as simulated_frames
from worldsystem_sim.telemetry import geodetic_from_map
from worldsystem_slam3r.apart.client import RunningApart
from worldsystem_slam3r.config import Slam3rConfig

LAPS, WARM_UP_LAPS = (4, 1) if QUICK else (84, 8)
FRAMES_AN_HOUR = 54_000
MEASURED_EVERY = 3
SEA_LEVEL_PA, PA_A_METRE = 101_325.0, 12.0
LOOK_S = 0.2


def main() -> None:
    film = list(simulated_frames(SimConfig(flight="demo")))
    with tempfile.TemporaryDirectory() as folder:
        settings = {"map": f"{folder}/map", "map_every_s": 1.0, "map_mb": 32}
        config = Slam3rConfig(own_process=True, **settings)  # type: ignore[arg-type]
        running = RunningApart(config, lambda: None)
        begin_s = time.monotonic()
        resident_mb = [_lap(running, film, number) for number in range(LAPS)]
        seconds = time.monotonic() - begin_s
        running.finish()
        running.close()
    steady = np.array(resident_mb[WARM_UP_LAPS:])
    hours = np.arange(len(steady)) * len(film) / FRAMES_AN_HOUR
    slope = float(np.polyfit(hours, steady, 1)[0])
    bench = Benchmark("worker_memory", id_prefix="recon.worker")
    thirds = [float(np.median(part)) for part in np.array_split(steady, 3)]
    note = f"resident, medians of thirds after {WARM_UP_LAPS} laps: "
    note += ", ".join(f"{mb:.0f}" for mb in thirds) + f" MB; {LAPS} laps of {len(film)} pictures"
    bench.add("memory_slope", 100.0 * slope / thirds[0], "%/h of demo", note=note)
    bench.add("fps", LAPS * len(film) / seconds, "fps", note="with links, loops and saving the map")
    bench.write()


def _lap(running: RunningApart, film: list[tuple[Frame, np.ndarray]], lap: int) -> float:
    """Fly the film once more; the median of what is resident meanwhile [MB]."""
    period_ns = film[1][0].stamp_ns - film[0][0].stamp_ns
    with _watched(running.pid) as resident_mb:
        for at, (frame, world_from_cam) in enumerate(film):
            number = lap * len(film) + at
            stamp_ns = film[0][0].stamp_ns + number * period_ns
            if not number % MEASURED_EVERY:
                _observe(running, stamp_ns, world_from_cam[:3, 3])
            for answer in running.feed(replace(frame, id=number, stamp_ns=stamp_ns)):
                if answer.failure is not None:
                    raise answer.failure
    return statistics.median(resident_mb)


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
    pressure_pa = SEA_LEVEL_PA - PA_A_METRE * float(place[2])
    running.observe(PressureSample(stamp_ns=stamp_ns, pressure_pa=pressure_pa))


@contextmanager
def _watched(pid: int | None) -> Iterator[list[float]]:
    """What process `pid` has resident [MB], looked at all the while."""
    found: list[float] = []
    over = threading.Event()

    def look() -> None:
        while True:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found.append(pages * 4096 / 1e6)
            if over.wait(LOOK_S):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield found
    over.set()
    thread.join()


if __name__ == "__main__":
    main()
