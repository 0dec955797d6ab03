# SPDX-License-Identifier: Apache-2.0
"""Cost and quality of the incremental mesh, beside Open3D's VoxelBlockGrid.

A camera flies through furnished rooms whose surface is known by formula; keyframes of 224×224 are
exact, or as wrong as those of learned multi-view stereo (0.8 % of low frequency and 3 mm of pixel
noise). An update is: fuse the keyframe, extract all blocks that it touched, make their vertices and
triangles.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import warp as wp
from harness import QUICK, Benchmark
from mesh_refusion import close_a_loop
from mesh_room import CAMERA, Rooms, film, flown_again, furnished, renumbered
from mesh_scores import covered, score, seen_points, small_holes

from worldsystem_core.frames import Camera
from worldsystem_core.freed_memory import hand_back_freed_memory, keep_freed_memory
from worldsystem_core.reconstruction import Keyframe
from worldsystem_core.surface import Mesh
from worldsystem_mesh.block_hash import KEY_BYTES, PLACE_BYTES
from worldsystem_mesh.block_pool import SLOT_BYTES
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.drawing import BlockMeshes
from worldsystem_mesh.mesher import Mesher
from worldsystem_mesh.precompile import precompile

try:
    from mesh_growth import room_by_room
    from mesh_open3d import Open3DGrid
except ModuleNotFoundError:  # a machine with a card need not have it: figures without the peer
    Open3DGrid = None  # type: ignore[assignment, misc]

DEVICE = "cuda" if wp.is_cuda_available() else "cpu"
ROOM_KEYFRAMES = 40 if QUICK else 100
HOUSE_ROOMS = 4 if QUICK else 10
HOUSE_KEYFRAMES_PER_ROOM = 15 if QUICK else 30
PEER_ROOMS = 4
PEER_KEYFRAMES_PER_ROOM = 15 if QUICK else 35
LOOP_KEYFRAMES = 60 if QUICK else 223
VIDEO_KEYFRAMES = 15 if QUICK else 40
VIDEO = Camera.from_horizontal_fov(640, 480, np.radians(62.0))
WARM_UP = 5
THEIR_EXTRACTIONS = 5 if QUICK else 10
FLIGHTS = 3


@dataclass
class Times:
    """Milliseconds of each keyframe after the warm-up, and the blocks that it was fused into."""

    integrate: list[float] = field(default_factory=list)
    update: list[float] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)

    @property
    def extract(self) -> list[float]:
        """What an update takes beside the fusion."""
        return [u - i for u, i in zip(self.update, self.integrate, strict=True)]

    @property
    def p99_over_median(self) -> float:
        return p99_over_median(self.update)

    @property
    def work(self) -> str:
        """How unequal the keyframes' work is, which the times follow."""
        return f"the blocks that a keyframe is fused into: {p99_over_median(self.blocks):.1f} times"


def p99_over_median(values: list[float] | list[int]) -> float:
    """How much more the heaviest takes than the middle one."""
    return float(np.percentile(values, 99.0) / np.median(values))


def every_change(voxel: float) -> MeshConfig:
    """All touched blocks are extracted, none waits for more change."""
    return MeshConfig(voxel=voxel, device=DEVICE, redraw_voxels=0.0)


def fly(keyframes: list[Keyframe], config: MeshConfig) -> tuple[Times, Mesher]:
    """Update with every keyframe; on CUDA the clock stops when the device has finished."""
    mesher, times = Mesher(config), Times()
    gc.collect()
    gc.freeze()
    for i, keyframe in enumerate(keyframes):
        start = time.perf_counter()
        blocks = mesher.integrate(keyframe)
        wp.synchronize()
        integrated = time.perf_counter()
        delta = mesher.extract(i)
        if delta is not None and isinstance(delta.blocks, BlockMeshes):
            delta.blocks.draw()
        ended = time.perf_counter()
        if i >= WARM_UP:
            times.integrate.append(1e3 * (integrated - start))
            times.update.append(1e3 * (ended - start))
            times.blocks.append(blocks)
    gc.unfreeze()
    return times, mesher


@dataclass(frozen=True)
class TheirTimes:
    """Open3D's milliseconds in the full room, by keyframe: fusion, and extraction of the whole room
    (it has no other)."""

    integrate: dict[int, float]
    extract: dict[int, float]

    @property
    def update(self) -> dict[int, float]:
        """Both."""
        return {i: self.integrate[i] + spent for i, spent in self.extract.items()}


def their_times(
    keyframes: list[Keyframe], voxel: float, extracted: Collection[int]
) -> tuple[TheirTimes, Mesh]:
    """Times of Open3D on the same keyframes, where it extracts after those of the given numbers
    alone, which changes nothing in its volume; and its last mesh."""
    grid, times = Open3DGrid(voxel, CAMERA, every_change(voxel)), TheirTimes({}, {})
    mesh = Mesh.empty()
    for i, keyframe in enumerate(keyframes):
        start = time.perf_counter()
        grid.integrate(keyframe)
        integrated = time.perf_counter()
        if i in extracted:
            mesh = grid.mesh()
            times.integrate[i] = 1e3 * (integrated - start)
            times.extract[i] = 1e3 * (time.perf_counter() - integrated)
    return times, mesh


def measure_speed(bench: Benchmark, keyframes: list[Keyframe]) -> None:
    """Times at 2 cm and 1 cm, with and without the gate, and Open3D in the same run."""
    what = f"{CAMERA.width}×{CAMERA.height}, {len(keyframes)} keyframes, one room, {where()}"
    times, mesher = fly(keyframes, every_change(0.02))
    bench.add("integrate_ms", times.integrate, "ms", note=f"2 cm; {what}")
    bench.add("update_ms", times.update, "ms", note=f"2 cm, fuse, extract and draw; {what}")
    bench.add("update_p99_over_median", times.p99_over_median, "x", note=f"2 cm; {times.work}")
    if Open3DGrid is not None:
        measure_peer(bench, keyframes)
    stats = mesher.stats()
    note = f"{stats['blocks']} blocks, {stats['stored_keyframes']} keyframes kept"
    bench.add("memory_mb", stats["memory_bytes"] / 1e6, "MB", note=note)
    per_block = SLOT_BYTES + PLACE_BYTES + 4 * KEY_BYTES
    note = f"{per_block} bytes a block with its share of the index"
    bench.add("blocks_in_2gib", (2 << 30) / per_block, "", note=note)
    mesher.close()
    gated, mesher = fly(keyframes, MeshConfig(voxel=0.02, device=DEVICE))
    bench.add(
        "update_gated_ms", gated.update, "ms", note="2 cm, blocks that moved a quarter of a voxel"
    )
    mesher.close()
    fine, mesher = fly(keyframes, every_change(0.01))
    bench.add("update_1cm_ms", fine.update, "ms", note=f"fuse, extract and draw; {what}")
    bench.add("update_1cm_p99_over_median", fine.p99_over_median, "x", note=f"1 cm; {fine.work}")
    mesher.close()


def where() -> str:
    """The device's name."""
    return str(wp.get_device("cuda:0").name) if DEVICE == "cuda" else "cpu"


def flown_times(keyframes: list[Keyframe]) -> Times:
    """Of one more flight."""
    times, mesher = fly(keyframes, every_change(0.02))
    mesher.close()
    return times


def middle_of(flights: list[Times]) -> Times:
    """The median of several flights, keyframe by keyframe: a single update may be held up."""
    return Times(
        np.median([times.integrate for times in flights], axis=0).tolist(),
        np.median([times.update for times in flights], axis=0).tolist(),
    )


def their_middle_of(flights: list[TheirTimes]) -> TheirTimes:
    """The same of Open3D's."""
    chosen = flights[0].extract
    return TheirTimes(
        {i: float(np.median([times.integrate[i] for times in flights])) for i in chosen},
        {i: float(np.median([times.extract[i] for times in flights])) for i in chosen},
    )


def measure_peer(bench: Benchmark, keyframes: list[Keyframe]) -> None:
    """Open3D in the full room, beside our updates with the same keyframes: those of a second lap,
    evenly spread, and the last of the first, which see most. They fly in turns, so that whatever
    else the machine does meets both."""
    first = len(keyframes)
    laps = [*keyframes, *flown_again(keyframes)]
    spread = range(first, len(laps), max(first // THEIR_EXTRACTIONS, 1))
    widest = range(first - 5, first)
    our_flights, their_flights = [], []
    for _ in range(FLIGHTS):
        our_flights.append(flown_times(laps))
        their_flights.append(their_times(laps, 0.02, {*spread, *widest})[0])
    times, theirs = middle_of(our_flights), their_middle_of(their_flights)

    def ratios(their_ms: dict[int, float], our_ms: list[float], chosen: range) -> list[float]:
        return [their_ms[i] / our_ms[i - WARM_UP] for i in chosen]

    whole = ratios(theirs.update, times.update, spread)
    most = float(np.median(ratios(theirs.update, times.update, widest)))
    total = sum(theirs.update[i] for i in spread) / sum(times.update[i - WARM_UP] for i in spread)
    note = f"2 cm, full room, integrate and extract, same {len(spread)} keyframes of a second lap "
    note += f"and threads; {total:.1f} in all, {most:.1f} at the end of the first, which sees most"
    bench.add("update_speedup_vs_open3d", whole, "x", note=note)
    note = "2 cm, full room, extraction alone: what changed beside everything"
    quotients = ratios(theirs.extract, times.extract, spread)
    bench.add("extract_speedup_vs_open3d", quotients, "x", note=note)
    fusion = float(np.median([theirs.integrate[i] for i in spread]))
    note = f"2 cm, fusion alone; Open3D {fusion:.1f} ms"
    quotients = ratios(theirs.integrate, times.integrate, spread)
    bench.add("integrate_vs_open3d", quotients, "x", note=note)


def measure_house(bench: Benchmark) -> None:
    """Open3D in a house of four rooms, beside our updates with the same keyframes."""
    keyframes = film(furnished(PEER_ROOMS), PEER_ROOMS * PEER_KEYFRAMES_PER_ROOM)
    times, mesher = fly(keyframes, every_change(0.02))
    mesher.close()
    grid = Open3DGrid(0.02, CAMERA, every_change(0.02))
    rooms = room_by_room(keyframes, times.update, PEER_ROOMS, grid)
    before = ", ".join(str(room) for room in rooms[:-1])
    note = f"2 cm, whole updates at the end of {PEER_ROOMS} rooms ({len(keyframes)} keyframes)"
    note += f": {rooms[-1]}; after each room before: {before}"
    bench.add("update_speedup_vs_open3d_house", rooms[-1].ratios, "x", note=note)


def measure_device(bench: Benchmark, keyframes: list[Keyframe], voxel: float) -> None:
    """What the device works for an update, by its own events: kernels, fills and copies."""
    mesher, spent = Mesher(every_change(voxel)), []
    for i, keyframe in enumerate(keyframes):
        wp.timing_begin(cuda_filter=wp.TIMING_ALL)
        mesher.integrate(keyframe)
        mesher.extract(i)
        spent.append(sum(result.elapsed for result in wp.timing_end()))
    note = f"{100 * voxel:.0f} cm, integrate and extract, events; {where()}"
    bench.add(f"device_{100 * voxel:.0f}cm_ms", spent[WARM_UP:], "ms", note=note)
    mesher.close()


def measure_video(bench: Benchmark, rooms: Rooms) -> None:
    """Whole video pictures at 1 cm."""
    times, mesher = fly(film(rooms, VIDEO_KEYFRAMES, camera=VIDEO), every_change(0.01))
    note = f"fuse, extract and draw; {VIDEO.width}×{VIDEO.height}, 1 cm, {where()}"
    bench.add("update_640_1cm_ms", times.update, "ms", note=note)
    bench.add("updates_per_s_640_1cm", 1e3 / float(np.median(times.update)), "1/s", note=note)
    mesher.close()


def measure_quality(bench: Benchmark, rooms: Rooms, clean: list[Keyframe]) -> None:
    """Error by the rooms' formula, on exact and on noisy depth, beside Open3D on the same."""
    noisy = film(rooms, len(clean), noisy=True)
    seen = seen_points(clean)
    for name, keyframes in (("clean", clean), ("noisy", noisy)):
        _, mesher = fly(keyframes, MeshConfig(voxel=0.02, device=DEVICE))
        mesher.settle(0)
        mesh = mesher.mesh()
        ours = score(mesh, rooms, seen, 0.02)
        peer = None
        if Open3DGrid is not None:
            last = {len(keyframes) - 1}
            peer = score(their_times(keyframes, 0.02, last)[1], rooms, seen, 0.02)
        note = f"2 cm, mean, {where()}"
        if peer is not None:
            note += f"; Open3D (half-pixel fault corrected) {100 * peer.accuracy_m:.3f} cm"
        bench.add(f"accuracy_{name}_cm", 100 * ours.accuracy_m, "cm", note=note)
        if name == "noisy":
            note = f"threshold 2 cm; completeness {100 * ours.completeness_m:.3f} cm"
            bench.add("fscore", ours.fscore, "", note=note)
            if peer is not None:
                note = f"Open3D: F {peer.fscore:.4f}, {100 * peer.completeness_m:.3f} cm"
                bench.add("fscore_vs_open3d", ours.fscore / peer.fscore, "x", note=note)
        else:
            holes, edges = small_holes(mesh)
            inside = int(covered(holes, clean).sum())
            note = f"closed border loops of up to 20 edges where 3 keyframes saw all; {edges} edges"
            bench.add("small_holes", inside, "", note=note)
        mesher.close()


def measure_growth(bench: Benchmark) -> None:
    """CPU time of updates while the house grows room by room; its second room is flown again at
    once and at the end, where the same pictures meet ten rooms instead of two."""
    rooms, room = furnished(HOUSE_ROOMS), HOUSE_KEYFRAMES_PER_ROOM
    keyframes = film(rooms, HOUSE_ROOMS * room)
    second = keyframes[room : 2 * room]
    mesher = Mesher(every_change(0.02))
    spent = _spent_s(mesher, keyframes[: 2 * room])
    small, few = _spent_s(mesher, renumbered(second, 1)), mesher.stats()["blocks"]
    spent += _spent_s(mesher, keyframes[2 * room :])
    large, many = _spent_s(mesher, renumbered(second, 2)), mesher.stats()["blocks"]
    note = f"CPU time with the same keyframes of the second room, {few} and {many} blocks"
    bench.add("cost_growth", [b / a for a, b in zip(small, large, strict=True)], "x", note=note)
    ratio = float(np.median(spent[-room:]) / np.median(spent[room : 2 * room]))
    note = "CPU time, last room over the second, whose furniture is another's"
    bench.add("cost_growth_new_room", ratio, "x", note=note)
    mesher.close()


def _spent_s(mesher: Mesher, keyframes: list[Keyframe]) -> list[float]:
    """CPU time of each update."""
    spent = []
    for i, keyframe in enumerate(keyframes):
        start = time.process_time()
        mesher.integrate(keyframe)
        mesher.extract(i)
        spent.append(time.process_time() - start)
    return spent


def measure_refusion(bench: Benchmark, rooms: Rooms) -> None:
    """A loop closure that moves every keyframe of a flight."""
    result = close_a_loop(film(rooms, LOOP_KEYFRAMES), every_change(0.02))
    note = f"RMS to a fresh build after {result.moved} keyframes moved by up to 0.25 m, without "
    note += "the farthest 0.1 % of the points, whose border only one of both has"
    bench.add("reintegrate_residual", result.residual_voxels, "voxel", note=note)
    note = "points of both surfaces that are more than 0.1 voxel from the other one; all counted"
    bench.add("reintegrate_off_percent", result.off_percent, "%", note=note)
    note = "2 cm, fusion alone: what it changed is drawn while others come"
    bench.add("refusion_keyframes_per_s", result.keyframes_per_s, "1/s", note=note)
    note = f"live update while it goes on, median; longest {result.longest_ratio:.2f}"
    bench.add("refusion_latency_ratio", result.latency_ratio, "x", note=note)


def main() -> None:
    """Run all, with the heap of our processes, and write `results/mesh.json`."""
    keep_freed_memory()
    hand_back_freed_memory()
    precompile()
    bench, rooms = Benchmark("mesh"), furnished(1)
    keyframes = film(rooms, ROOM_KEYFRAMES)
    measure_speed(bench, keyframes)
    if Open3DGrid is not None:
        measure_house(bench)
    measure_video(bench, rooms)
    if DEVICE == "cuda":
        measure_device(bench, keyframes, 0.02)
        measure_device(bench, keyframes, 0.01)
    measure_quality(bench, rooms, keyframes)
    measure_growth(bench)
    measure_refusion(bench, rooms)
    bench.write()


if __name__ == "__main__":
    main()
