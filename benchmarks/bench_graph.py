# SPDX-License-Identifier: Apache-2.0
"""What the graph adds to a back-end: loops, metres, maps. Each figure beside the one without it.

The back-end's events are recorded once and given to the graph again, so that "with" and "without"
are the same reconstruction. The drone recording is looked for in `WORLDSYSTEM_DATA`, else in
`../shared/data`; without it its figures are left out and named.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from graph_pictures import draw_loop
from harness import QUICK, Benchmark
from reconstruction_films import DATA, karma

from worldsystem_core.frames import Frame
from worldsystem_core.geometry.sim3 import fit_sim3
from worldsystem_core.interpreter import share_interpreter
from worldsystem_core.reconstruction import Event, NewKeyframe, Pose, TrackingState
from worldsystem_core.telemetry import GpsFix
from worldsystem_core.trajectory import StampedPoses, Trajectory
from worldsystem_sim.config import SimConfig
from worldsystem_sim.offline import frames as simulated_frames
from worldsystem_sim.telemetry import geodetic_from_map
from worldsystem_slam3r.backend import create_backend
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.maps.content import SavedMap
from worldsystem_slam3r.maps.folder import is_map
from worldsystem_slam3r.session.backend import GraphBackend
from worldsystem_slam3r.session.restartable import RenewableBackend

ORBIT = SimConfig(flight="orbit", duration_s=50.0)
if QUICK:
    ORBIT = SimConfig(flight="orbit", duration_s=52.0, fps=5.0, width=480, height=270)
GPS_SIGMA_M = 1.0
GPS_HZ = 5.0
GPS_RUNS = 3
TELEMETRY_SIGMA_M = 0.5
KILLED_KEYFRAMES, KILL_AFTER_S = 25 if QUICK else 35, 60.0
SECOND_SESSION_S = 44.5
"""When the second session begins: on a second round, over ground that the killed run has seen."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """A film without its pictures: what a back-end said of each frame, and the true poses."""

    told: list[tuple[Frame, list[Event]]]
    rest: list[Event]
    truth: dict[int, np.ndarray]
    seconds: float


class Replayed:
    """A back-end that says what was recorded."""

    def __init__(self, recorded: Recorded) -> None:
        self._told = {frame.id: events for frame, events in recorded.told}
        self._rest = recorded.rest

    def feed(self, frame: Frame) -> list[Event]:
        return self._told[frame.id]

    def finish(self) -> list[Event]:
        return self._rest


@dataclass(frozen=True, eq=False)
class Outcome:
    """The events and the graph that made them (None: the back-end alone)."""

    events: list[Event]
    graph: GraphBackend | None
    seconds: float

    @property
    def path(self) -> StampedPoses:
        trajectory = Trajectory()
        for event in self.events:
            trajectory.add(event)
        return trajectory.poses()


def record(film: Iterator[tuple[Frame, np.ndarray]]) -> Recorded:
    """Run the geometric back-end alone over a film."""
    backend = create_backend("geometric", Slam3rConfig(synchronous=True))
    told, truth, seconds = [], {}, 0.0
    for frame, pose in film:
        truth[frame.stamp_ns] = pose
        begin = time.process_time()
        events = backend.feed(frame)
        seconds += time.process_time() - begin
        told.append((replace(frame, rgb=frame.rgb[:2, :2].copy()), events))
    begin = time.process_time()
    rest = backend.finish()
    return Recorded(told, rest, truth, seconds + time.process_time() - begin)


def alone(recorded: Recorded) -> Outcome:
    """Without the graph."""
    events = [event for _, told in recorded.told for event in told]
    return Outcome(events + recorded.rest, None, 0.0)


def with_graph(recorded: Recorded, fixes: list[GpsFix] | None = None) -> Outcome:
    """The same events through the graph, with GPS beside them if there is any."""
    graph = GraphBackend(RenewableBackend(Replayed(recorded), None), Slam3rConfig())
    events: list[Event] = []
    waiting = list(fixes or [])
    begin = time.process_time()
    for frame, _ in recorded.told:
        while waiting and waiting[0].stamp_ns <= frame.stamp_ns:
            graph.observe(waiting.pop(0))
        events += graph.feed(frame)
    events += graph.finish()
    return Outcome(events, graph, time.process_time() - begin)


def true_positions(recorded: Recorded, path: StampedPoses) -> np.ndarray:
    return np.array([recorded.truth[stamp][:3, 3] for stamp in path.stamps_ns.tolist()])


def length_m(positions: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())


def loop_gap_percent(recorded: Recorded, outcome: Outcome) -> float:
    """How far the last camera lies from where the first one says it should, over the path.

    The scale alone is taken from the alignment of the whole path.
    """
    path = outcome.path
    wanted = true_positions(recorded, path)
    fit = fit_sim3(wanted, path.positions)
    poses = path.world_from_cam
    first_from_last = np.linalg.inv(poses[0]) @ poses[-1]
    stamps = path.stamps_ns.tolist()
    truth = np.linalg.inv(recorded.truth[stamps[0]]) @ recorded.truth[stamps[-1]]
    gap_m = np.linalg.norm(fit.scale * first_from_last[:3, 3] - truth[:3, 3])
    return 100.0 * float(gap_m) / length_m(wanted)


def ate_percent(recorded: Recorded, outcome: Outcome, *, with_scale: bool) -> float:
    """Root mean square position error after alignment, over the path's length."""
    path = outcome.path
    wanted = true_positions(recorded, path)
    fit = fit_sim3(wanted, path.positions, with_scale=with_scale)
    error_m = np.linalg.norm(fit.apply(path.positions) - wanted, axis=1)
    return 100.0 * float(np.sqrt((error_m**2).mean())) / length_m(wanted)


def scale_error_percent(recorded: Recorded, outcome: Outcome) -> float:
    """How much too long a metre of the map is."""
    path = outcome.path
    return 100.0 * abs(1.0 / fit_sim3(true_positions(recorded, path), path.positions).scale - 1.0)


def simulated_gps(recorded: Recorded, seed: int) -> list[GpsFix]:
    """Fixes at 5 Hz with white noise in every direction."""
    rng = np.random.default_rng(seed)
    fixes = []
    for frame, _ in recorded.told[:: round(ORBIT.fps / GPS_HZ)]:
        east, north, up = recorded.truth[frame.stamp_ns][:3, 3] + GPS_SIGMA_M * rng.normal(size=3)
        latitude, longitude, altitude = geodetic_from_map(float(east), float(north), float(up))
        fixes.append(
            GpsFix(
                stamp_ns=frame.stamp_ns,
                latitude_deg=latitude,
                longitude_deg=longitude,
                altitude_m=altitude,
                horizontal_error_m=GPS_SIGMA_M * 2**0.5,
                vertical_error_m=GPS_SIGMA_M,
            )
        )
    return fixes


def measure_loop(bench: Benchmark, recorded: Recorded) -> None:
    """The closed orbit: its gap and error, with and without; the picture; what it costs."""
    without, corrected = alone(recorded), with_graph(recorded)
    assert corrected.graph is not None
    bench.add("loop_gap_percent", loop_gap_percent(recorded, corrected), "%", note="closed orbit")
    gap = loop_gap_percent(recorded, without)
    bench.add("loop_gap_without_percent", gap, "%", note="the back-end alone, same events")
    bench.add("loop_ate_percent", ate_percent(recorded, corrected, with_scale=True), "%")
    ate = ate_percent(recorded, without, with_scale=True)
    bench.add("loop_ate_without_percent", ate, "%", note="the back-end alone, same events")
    bench.add("loops", corrected.graph.counts.loops, "", note="verified links to earlier keyframes")
    keyframes = sum(isinstance(event, NewKeyframe) for event in corrected.events)
    cost_ms = 1e3 * corrected.seconds / keyframes
    bench.add("graph_ms_per_keyframe", cost_ms, "ms", note="processor time, one thread")
    share = 100.0 * corrected.seconds / recorded.seconds
    bench.add("graph_cost_percent", share, "%", note="processor time, over the back-end's own")
    if not QUICK:
        draw_loop(recorded.truth, without.events, corrected.events)


def measure_gps(bench: Benchmark, recorded: Recorded) -> None:
    """Simulated GPS: the error in metres, and of the metre."""
    runs = [with_graph(recorded, simulated_gps(recorded, seed)) for seed in range(GPS_RUNS)]
    note = f"σ = {GPS_SIGMA_M:g} m at 5 Hz"
    errors = [ate_percent(recorded, run, with_scale=False) for run in runs]
    bench.add("gps_se3_percent", errors, "%", note=note)
    scales = [scale_error_percent(recorded, run) for run in runs]
    bench.add("gps_scale_error_percent", scales, "%", note=note)
    sigmas = [100.0 * run.graph.map_from_scene.scale_sigma for run in runs]  # type: ignore[union-attr]
    bench.add("gps_scale_sigma_percent", sigmas, "%", note="as the system itself says")
    error = ate_percent(recorded, alone(recorded), with_scale=False)
    bench.add(
        "gps_se3_without_percent", error, "%", note="no source: `scene`, no metres to compare"
    )


def measure_drone(bench: Benchmark) -> None:
    """Length of a real drone's path over the time of its telemetry."""
    recorded = record(karma())
    with (DATA / "gopro_karma_drone" / "telemetry_global_position.csv").open() as file:
        rows = list(csv.DictReader(file))
    fixes = [
        GpsFix(
            stamp_ns=round(1e9 * float(row["t_video_approx_s"])),
            latitude_deg=float(row["lat_deg"]),
            longitude_deg=float(row["lon_deg"]),
            altitude_m=float(row["alt_m"]),
            horizontal_error_m=TELEMETRY_SIGMA_M * 2**0.5,
            vertical_error_m=TELEMETRY_SIGMA_M,
        )
        for row in rows
    ]
    outcome = with_graph(recorded, fixes)
    graph = outcome.graph
    assert graph is not None
    enu = graph.metric.enu
    assert enu is not None
    places = np.array(
        [enu.position_m(fix.latitude_deg, fix.longitude_deg, fix.altitude_m) for fix in fixes]
    )
    # the video's clock runs ahead of the telemetry's by what the fit found
    offset_ns = round(1e9 * graph.metric.clock_s)
    path = outcome.path
    ends = [fixes[0].stamp_ns + offset_ns, fixes[-1].stamp_ns + offset_ns]
    inside = (path.stamps_ns >= ends[0]) & (path.stamps_ns <= ends[1])
    estimate_m, wanted_m = length_m(path.positions[inside]), length_m(places)
    note = f"{estimate_m:.1f} m to {wanted_m:.1f} m, over the telemetry's time"
    bench.add("karma_path_error_percent", 100.0 * abs(estimate_m / wanted_m - 1.0), "%", note=note)
    bench.add("karma_clock_s", graph.metric.clock_s, "s", note="found between video and telemetry")
    bare = alone(recorded).path
    told = _gain(np.array([fix.stamp_ns for fix in fixes]) * 1e-9, places)
    note = f"speed of the 10th to the 2nd second; telemetry: {told:.2f}"
    gain = _gain(path.stamps_ns * 1e-9, path.positions)
    bench.add("karma_speed_gain", gain, "x", note=note)
    gain = _gain(bare.stamps_ns * 1e-9, bare.positions)
    bench.add("karma_speed_gain_without", gain, "x", note="the back-end alone, same events")


def _gain(seconds: np.ndarray, positions: np.ndarray) -> float:
    """Speed in the tenth second against that in the second one."""

    def speed(begin_s: float) -> float:
        ends = [np.interp([begin_s, begin_s + 1.0], seconds, axis) for axis in positions.T]
        return float(np.linalg.norm(np.diff(np.array(ends), axis=1)))

    return speed(9.0) / speed(1.0)


def measure_maps(bench: Benchmark, recorded: Recorded) -> None:
    """Save; then a run that saves itself is killed, and a second session begins in its map."""
    first = with_graph(recorded)
    assert first.graph is not None
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "whole"
        begin = time.perf_counter()
        first.graph.save_map(folder)
        bench.add("map_save_s", time.perf_counter() - begin, "s")
        keyframes = len(first.graph.atlas.keyframes)
        size = sum(path.stat().st_size for path in folder.rglob("*.npz"))
        bench.add("map_kb_per_keyframe", size / 1e3 / keyframes, "kB", note="surface included")
        killed = Path(place) / "killed"
        kill_a_session(recorded, killed)
        saved = SavedMap(killed)
        saved.check()
        note = "in the map that a run killed with SIGKILL left, all files sound"
        bench.add("killed_map_keyframes", len(saved.nodes), "", note=note)
        _second_session(bench, killed, recorded, saved)


def kill_a_session(recorded: Recorded, folder: Path) -> None:
    """Run over the recorded events, saving all the time, and be killed in the middle of it."""
    context = multiprocessing.get_context("fork")
    session = context.Process(target=_first_session, args=(recorded, folder), daemon=True)
    session.start()
    end_s = time.monotonic() + KILL_AFTER_S
    while time.monotonic() < end_s:
        time.sleep(0.05)
        if is_map(folder) and len(SavedMap(folder).nodes) >= KILLED_KEYFRAMES:
            break
    else:
        session.kill()
        raise TimeoutError(f"no {KILLED_KEYFRAMES} keyframes in {KILL_AFTER_S:.0f} s")
    assert session.pid is not None
    os.kill(session.pid, signal.SIGKILL)
    session.join()
    assert session.exitcode == -signal.SIGKILL, f"it ended by itself: {session.exitcode}"


def _first_session(recorded: Recorded, folder: Path) -> None:
    settings = Slam3rConfig(map=str(folder), map_every_s=0.1)
    graph = GraphBackend(RenewableBackend(Replayed(recorded), None), settings)
    for frame, _ in recorded.told:
        graph.feed(frame)
        time.sleep(0.01)
    time.sleep(KILL_AFTER_S)


def _second_session(bench: Benchmark, folder: Path, recorded: Recorded, saved: SavedMap) -> None:
    begin = time.perf_counter()
    settings = Slam3rConfig(synchronous=True, map=str(folder), map_every_s=0.0)
    backend = create_backend("geometric", settings)
    graph = GraphBackend(RenewableBackend(backend, None), settings)
    bench.add("map_load_s", time.perf_counter() - begin, "s")
    located_s, merged_s, start_ns, errors = float("nan"), float("nan"), 0, []
    places = np.array([node["world"][10:] for node in saved.nodes])
    truth = np.array([recorded.truth[int(stamp)][:3, 3] for stamp in saved.nodes["stamp_ns"]])
    fit = fit_sim3(truth, places)
    for number, (frame, _) in enumerate(simulated_frames(ORBIT)):
        if number < SECOND_SESSION_S * ORBIT.fps:
            continue
        start_ns = start_ns or frame.stamp_ns
        for event in graph.feed(frame):
            if isinstance(event, Pose) and event.state is TrackingState.TRACKED:
                at_s = (event.stamp_ns - start_ns) / 1e9
                located_s = at_s if np.isnan(located_s) else located_s
                where = fit.apply(event.world_from_cam[:3, 3])
                errors.append(float(np.linalg.norm(where - recorded.truth[event.stamp_ns][:3, 3])))
        if graph.counts.merged:
            merged_s = (frame.stamp_ns - start_ns) / 1e9
            break
    graph.close()
    bench.add("relocalise_s", located_s, "s", note="of video until the first pose in the saved map")
    bench.add("map_merge_s", merged_s, "s", note="of video until the new session is merged")
    bench.add("relocalise_error_m", float(np.median(errors)), "m", note="median until then")


def main() -> None:
    share_interpreter()  # as where it runs: BLAS's own threads spin, which counts as time
    cv2.setNumThreads(1)
    bench = Benchmark("graph", id_prefix="recon")
    recorded = record(simulated_frames(ORBIT))
    measure_loop(bench, recorded)
    measure_gps(bench, recorded)
    measure_maps(bench, recorded)
    if (DATA / "gopro_karma_drone").exists():
        measure_drone(bench)
    else:
        print(f"karma_…: left out, {DATA / 'gopro_karma_drone'} is not there")
    bench.write()


if __name__ == "__main__":
    main()
