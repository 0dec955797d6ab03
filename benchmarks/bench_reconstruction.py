# SPDX-License-Identifier: Apache-2.0
"""How well and how fast the weight-free reconstruction follows simulated, rendered and real video.

Figures whose recording is not there are left out and named. Repeats begin one and two frames later,
for the same film gives the same run. Two runs go side by side (`BENCH_PROCESSES`), the speed is
measured alone. Parts can be named: flights, rooms, action_cameras, speed, endurance.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import reconstruction_films as films
from harness import QUICK, Benchmark
from reconstruction_scores import (
    direction_error_deg,
    flight_fscore,
    living_room_error,
    run,
    speed_correlation,
    speed_variation,
)

from worldsystem_core.reconstruction import NewKeyframe
from worldsystem_sim.config import SimConfig
from worldsystem_sim.offline import frames as simulated_frames
from worldsystem_slam3r.backend import create_backend
from worldsystem_slam3r.config import Slam3rConfig

REPEATS = 1 if QUICK else 3
PROCESSES = int(os.environ.get("BENCH_PROCESSES", "2"))
LAPS = 3
LAP_FRAMES = 60 if QUICK else 150
WARM_UP_FRAMES = 60
LIVE_FPS = 15.0
LIVE_FLIGHT = "survey"
"""Of all flights the one that makes most keyframes."""
Scores = dict[str, float]


def fly(flight: SimConfig) -> Scores:
    """One simulated flight."""
    result = run(simulated_frames(flight), threads=1)
    _, error_m, length_m = result.aligned()
    return {
        "ate_percent": 100.0 * error_m / length_m,
        "tracked_percent": result.tracked_percent,
        "fscore": flight_fscore(result, flight),
    }


def watch(name: str, repeat: int) -> Scores:
    """One repeat of one recording."""
    if name == "icl":
        result = run(films.begun_late(films.living_room(), repeat), threads=1)
        error = living_room_error(result)
        return {
            "ate_cm": 100.0 * result.aligned()[1],
            "tracked_percent": result.tracked_percent,
            "mesh_acc_cm": 100.0 * error.accuracy_mean,
            "mesh_comp_cm": 100.0 * error.completeness_mean,
            "mesh_covered_percent": 100.0 * error.recall[1],
        }
    if name in ("icl_unknown_camera", "hololens"):
        film = films.hololens()
        if name != "hololens":
            film = films.camera_withheld(films.living_room())
        result = run(films.begun_late(film, repeat), threads=1)
        error_cm = 100.0 * result.aligned()[1]
        return {"ate_cm": error_cm, "tracked_percent": result.tracked_percent}
    film = films.karma() if name == "karma" else films.hero7()
    result = run(films.begun_late(film, repeat), threads=1)
    scores = {"tracked_percent": result.tracked_percent}
    scores["coverage_percent"] = result.coverage_percent
    if name == "karma":
        scores["direction_deg"] = direction_error_deg(result.path)
        return {**scores, "speed_corr": speed_correlation(result.path)}
    return {**scores, "speed_variation": speed_variation(result.path)}


RECORDINGS = {
    "icl": "icl_livingroom1",
    "icl_unknown_camera": "icl_livingroom1",
    "hololens": "hololens_room",
    "karma": "gopro_karma_drone",
    "hero7": "gopro_hero7_walk",
}
UNITS = {"cm": "cm", "deg": "deg", "percent": "%", "corr": "", "variation": ""}


def _side_by_side() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn"))


def measure_flights(bench: Benchmark) -> None:
    """Every simulated flight."""
    with _side_by_side() as pool:
        flown = [(flight, pool.submit(fly, flight)) for flight in films.flights()]
        hard = [pool.submit(fly, flight) for flight in films.hard_flights()]
        _add_flights(bench, [(flight, job.result()) for flight, job in flown])
        if hard:
            tracked = [job.result()["tracked_percent"] for job in hard]
            bench.add("yaw_tracked_percent", tracked, "%", note="turns of 90 °/s from the start")


def measure_recordings(bench: Benchmark, names: tuple[str, ...]) -> None:
    """Every repeat of the recordings `names`."""
    present = [name for name in names if (films.DATA / RECORDINGS[name]).exists()]
    for name in set(names) - set(present):
        print(f"{name}: left out, {films.DATA / RECORDINGS[name]} is not there")
    with _side_by_side() as pool:
        seen = {name: [pool.submit(watch, name, i) for i in range(REPEATS)] for name in present}
        for name, jobs in seen.items():
            scores = [job.result() for job in jobs]
            for key in scores[0]:
                values = [score[key] for score in scores]
                unit = UNITS[key.rsplit("_", 1)[-1]]
                note = "" if key == "tracked_percent" else f"{_tracked(scores)} % tracked"
                bench.add(f"{name}_{key}", values, unit, note=note)


def _add_flights(bench: Benchmark, flown: list[tuple[SimConfig, Scores]]) -> None:
    for flight, scores in flown:
        words = ", ".join(f"{key} {value:.3f}" for key, value in scores.items())
        print(f"{flight.flight}, scene {flight.seed}: {words}")
    worst = "; ".join(
        f"{f.flight} {f.seed}: {s['ate_percent']:.2f} %, {s['tracked_percent']:.0f} %, "
        f"{s['fscore']:.2f}"
        for f, s in flown
    )
    bench.add("sim_ate_percent", [s["ate_percent"] for _, s in flown], "%", note=worst)
    bench.add("sim_tracked_percent", [s["tracked_percent"] for _, s in flown], "%")
    note = "threshold 1 % of the scene"
    bench.add("sim_mesh_fscore", [s["fscore"] for _, s in flown], "", note=note)


def _tracked(scores: list[Scores]) -> str:
    return "/".join(f"{score['tracked_percent']:.0f}" for score in scores)


def measure_live_speed(bench: Benchmark) -> None:
    """A live video of 640×480 at 15 Hz: what tracking could do while dense depth runs beside."""
    flight = SimConfig(flight=LIVE_FLIGHT, duration_s=films.FLIGHT_S, height=480)
    film = list(simulated_frames(flight))
    backend = create_backend("geometric", Slam3rConfig())
    busy, dense = [], 0
    begin = time.perf_counter()
    for number, (frame, _) in enumerate(film):
        wait_s = begin + number / LIVE_FPS - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)
        start = time.perf_counter()
        dense += sum(isinstance(event, NewKeyframe) for event in backend.feed(frame))
        busy.append(time.perf_counter() - start)
    took_s = time.perf_counter() - begin
    backend.finish()
    note = (
        f"1 over the mean time; {LIVE_FLIGHT}, 640×480 live at {LIVE_FPS:.0f} Hz, dense beside it"
    )
    bench.add("fps", 1.0 / float(np.mean(busy[WARM_UP_FRAMES:])), "Hz", note=note)
    dropped = getattr(backend, "dropped_keyframes", 0)
    bench.add("dense_per_s", dense / took_s, "Hz", note=f"{dropped} keyframes let go")


def measure_endurance(bench: Benchmark) -> None:
    """The same flight forth and back: equal work in each lap, so any slowing is the map's."""
    flight = SimConfig(flight="demo", duration_s=films.FLIGHT_S)
    film = [item for item, _ in zip(simulated_frames(flight), range(LAP_FRAMES), strict=False)]
    result = run(films.forth_and_back(film, LAPS + 1), threads=1)
    laps = result.seconds.reshape(LAPS + 1, -1).sum(axis=1)[1:]
    note = f"lap {LAPS} to lap 1 of {2 * LAP_FRAMES} frames after one to warm up"
    bench.add("fps_end_over_start", float(laps[0] / laps[-1]), "", note=note)


PARTS: dict[str, Callable[[Benchmark], None]] = {
    "flights": measure_flights,
    "rooms": lambda bench: measure_recordings(bench, ("icl", "icl_unknown_camera", "hololens")),
    "action_cameras": lambda bench: measure_recordings(bench, ("karma", "hero7")),
    "speed": measure_live_speed,
    "endurance": measure_endurance,
}


def main() -> None:
    """All parts, or those named; figures of the others are kept from the last run."""
    parts = sys.argv[1:] or list(PARTS)
    bench = Benchmark("reconstruction", id_prefix="recon")
    for part in parts:
        PARTS[part](bench)
    if set(parts) != set(PARTS):
        bench.keep_others()
    bench.write()


if __name__ == "__main__":
    main()
