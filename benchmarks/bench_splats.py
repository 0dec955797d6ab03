# SPDX-License-Identifier: Apache-2.0
"""Splats: bytes and time on the wire, pictures of held-out views, and a world over five minutes."""

from __future__ import annotations

import time

import mesh_room
import msgpack
import numpy as np
from harness import QUICK, Benchmark, timed_ms
from jaxtyping import Float64
from splat_views import (
    BLACK,
    SHIFTS,
    SOURCE,
    TARGET,
    Place,
    hamlet_places,
    keyframe_of,
    mesh_picture,
    points_picture,
    psnr,
    room_place,
    shifted,
    ssim,
    visible,
)

from worldsystem_core.geometry.se3 import look_at
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Keyframe, ScaleState
from worldsystem_core.splats.discs import discs_from_pointmap
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.packed import deflate, pack, unpack
from worldsystem_core.splats.raster import draw
from worldsystem_core.splats.world import SplatWorld
from worldsystem_core.surface import join_blocks
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher
from worldsystem_viewer.splats.stream import POSE_BYTES, SplatStream

LAP = 60 if QUICK else 150
RUNS = 10 if QUICK else 30
TIMES_S = (8.0, 40.0) if QUICK else (8.0, 20.0, 40.0)
Scores = dict[str, list[float]]


def wire(bench: Benchmark, room: Place) -> None:
    """One frame of 21,168 Gaussians from a pointmap with 1 % of noise."""
    keyframe = keyframe_of(room, room.pose, noise=0.01)
    discs = discs_from_pointmap(keyframe.pointmap, keyframe.rgb, keyframe.confidence)
    short = 21_168 - len(discs)
    discs = Gaussians.joined([discs, discs[np.arange(max(short, 0))]])  # pixels on depth edges
    words = pack(discs)
    bench.add("bytes_21k", words.nbytes, "B", note="21,168 Gaussians, 16 bytes each")
    bench.add("bytes_21k_deflated", len(deflate(words)), "B", note="byte planes, zlib level 3")
    packed_ms = timed_ms(lambda: pack(discs), RUNS)
    bench.add("encode_ms", packed_ms, "ms", note="packing them, numpy, one thread")
    bench.add("deflate_ms", timed_ms(lambda: deflate(words), RUNS), "ms")
    lists_ms = timed_ms(lambda: _as_lists(discs), 3)
    bench.add(
        "encode_vs_lists",
        float(np.median(lists_ms) / np.median(packed_ms)),
        "x",
        note="times as fast as msgpack of nested lists",
    )
    bench.add("bytes_vs_lists", len(_as_lists(discs)) / words.nbytes, "x")
    world = discs.transformed(Sim3.from_pose(room.pose))
    exact = draw(world, room.pose, TARGET).over(BLACK)
    back = unpack(words).transformed(Sim3.from_pose(room.pose))
    everywhere = np.ones(exact.shape[:2], bool)
    value = psnr(draw(back, room.pose, TARGET).over(BLACK), exact, everywhere)
    bench.add("packed_psnr_db", value, "dB", note="16 bytes against float32, reference rasteriser")


def _as_lists(discs: Gaussians) -> bytes:
    parts = (discs.means, discs.scales, discs.rotations, discs.rgb, discs.opacities)
    return bytes(msgpack.packb([part.tolist() for part in parts]))


def one_keyframe(bench: Benchmark, places: list[Place]) -> None:
    """Discs against points of one keyframe, from places up to a metre away, twice as large."""
    for noise in (0.0, 0.01):
        scores: Scores = {"splats": [], "points": [], "bound": []}
        for place in places:
            _score_shifts(place, noise, scores)
        name = "noisy" if noise else "clean"
        for what, values in scores.items():
            note = "keyframe at 168 × 126 seen at 336 × 252, mean of five views in each place"
            if what == "bound":
                note = "the keyframe's own picture enlarged (bilinear): no splat can know more"
            bench.add(f"psnr_{name}_{what}_db", float(np.mean(values)), "dB", note=note)
        gain = np.subtract(scores["splats"], scores["points"])
        if not noise:
            bench.add("psnr_gain_vs_points_db", [float(g) for g in gain], "dB", note="median place")


def _score_shifts(place: Place, noise: float, scores: Scores) -> None:
    import cv2

    keyframe = keyframe_of(place, place.pose, noise=noise)
    truth_keyframe = keyframe_of(place, place.pose)
    discs = discs_from_pointmap(keyframe.pointmap, keyframe.rgb, keyframe.confidence)
    world = discs.transformed(Sim3.from_pose(place.pose))
    found: Scores = {"splats": [], "points 2": [], "points 3": []}
    for right, ahead in SHIFTS.values():
        pose = shifted(place.pose, right, ahead)
        depth, truth = place.see(pose, TARGET)
        seen = visible(pose, depth, [truth_keyframe])
        found["splats"].append(psnr(draw(world, pose, TARGET).over(BLACK), truth, seen))
        for size in (2, 3):
            picture = points_picture([keyframe], pose, size)
            found[f"points {size}"].append(psnr(picture, truth, seen))
    _, truth = place.see(place.pose, TARGET)
    large = cv2.resize(keyframe.rgb, (TARGET.width, TARGET.height))
    scores["bound"].append(psnr(large, truth, np.isfinite(place.see(place.pose, TARGET)[0])))
    scores["splats"].append(float(np.mean(found["splats"])))
    sizes = [float(np.mean(found[f"points {size}"])) for size in (2, 3)]
    scores["points"].append(max(sizes))  # of two sizes of points, the better


def many_keyframes(bench: Benchmark, places: list[Place]) -> None:
    """The world of eight keyframes from places between them: splats, points, mesh."""
    sums: dict[str, Scores] = {m: {"psnr": [], "ssim": []} for m in ("splats", "points", "mesh")}
    for place in places:
        keyframes = [
            keyframe_of(place, shifted(place.pose, 0.15 * n - 0.5, 0.04 * n), n) for n in range(8)
        ]
        world = SplatWorld()
        mesher = Mesher(MeshConfig(min_weight=0.5))
        for keyframe in keyframes:
            world.add(keyframe)
            mesher.integrate(keyframe)
        delta = mesher.extract(1)
        assert delta is not None
        surface, splats = join_blocks(list(delta.blocks)), world.gaussians()
        for right in (-0.42, -0.12, 0.18, 0.33):
            pose = shifted(place.pose, right, 0.02)
            depth, truth = place.see(pose, TARGET)
            seen = visible(pose, depth, keyframes)
            pictures = {
                "splats": draw(splats, pose, TARGET).over(BLACK),
                "points": points_picture(keyframes, pose, 3),
                "mesh": mesh_picture(surface, pose),
            }
            for method, picture in pictures.items():
                sums[method]["psnr"].append(psnr(picture, truth, seen))
                sums[method]["ssim"].append(ssim(picture, truth, seen))
    for method, scores in sums.items():
        note = "held-out views between eight keyframes, room and hamlet"
        bench.add(f"heldout_psnr_{method}_db", scores["psnr"], "dB", note=note)
        bench.add(f"heldout_ssim_{method}", scores["ssim"], "", note=note)


def orbit(number: int, noise: float = 0.005) -> Keyframe:
    """Keyframe `number` of a slow orbit in the room, `LAP` of them a lap."""
    rooms = mesh_room.furnished(1)
    angle = 2 * np.pi * number / LAP
    centre = np.array([3.0, 2.25, 1.0])
    eye = centre + np.array([1.5 * np.cos(angle), 1.5 * np.sin(angle), 0.4])
    pose = look_at(eye, centre + np.array([0, 0, -0.2]), np.array([0.0, 0.0, 1.0]))
    return keyframe_of(
        Place("room", lambda p, c: mesh_room.render(rooms, p, c), pose), pose, number, noise
    )


def long_run(bench: Benchmark) -> None:
    """Five minutes at a keyframe a second: two laps; what is new, what flickers, what it costs."""
    world = SplatWorld(voxel=0.03)
    stream = SplatStream(world, mbps=0, renew_s=5.0)
    fixed = orbit(0, 0.0).world_from_cam
    added, counts, cpu_ms, sent = [], [], [], []
    flicker, naive = _Flicker(fixed), _Flicker(fixed)
    for number in range(2 * LAP):
        keyframe = orbit(number)
        begun, before = time.process_time(), stream.sent_bytes
        added.append(world.add(keyframe))
        stream.take(float(number), number, ScaleState.METRIC)
        cpu_ms.append(1e3 * (time.process_time() - begun))
        sent.append(stream.sent_bytes - before)
        counts.append(len(world))
        if number % LAP < 12:
            flicker.look(world.gaussians())
            own = discs_from_pointmap(keyframe.pointmap, keyframe.rgb, keyframe.confidence)
            naive.look(own.transformed(Sim3.from_pose(keyframe.world_from_cam)))
    fresh = [16 * n / 1e3 for n in added[1:LAP]]
    bench.add("orbit_kb_per_keyframe", fresh, "kB", note="new splats of a slow orbit, 3 cm")
    bench.add("orbit_sent_kb", [n / 1e3 for n in sent[1:LAP]], "kB", note="with chunks sent again")
    bench.add("second_lap_growth_percent", 100 * (counts[-1] / counts[LAP - 1] - 1), "%")
    bench.add("world_splats", counts[-1], "splats", note=f"after {2 * LAP} keyframes")
    share = 100 * counts[-1] / (21_168 * 2 * LAP)
    bench.add("kept_percent", share, "%", note="of all that the keyframes gave")
    bench.add("world_mb", world.memory_bytes / 1e6, "MB")
    bench.add("add_cpu_ms", cpu_ms[1:], "ms", note="processor time of a keyframe, 168 × 126")
    bench.add(
        "flicker", flicker.steps, "grey levels", note="mean change of a fixed view a keyframe"
    )
    bench.add("flicker_vs_frames", _ratio(naive.steps, flicker.steps), "x", note="each frame alone")
    bench.add("move_bytes", POSE_BYTES, "B", note="a corrected keyframe, as a message")


def _ratio(a: list[float], b: list[float]) -> float:
    return float(np.median(a) / max(float(np.median(b)), 1e-6))


class _Flicker:
    """How much a fixed view changes from one keyframe to the next, where both show something."""

    def __init__(self, pose: Float64[np.ndarray, "4 4"]) -> None:
        self._pose = pose
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self.steps: list[float] = []

    def look(self, splats: Gaussians) -> None:
        """Draw, and compare with the picture before."""
        drawn = draw(splats, self._pose, SOURCE)
        now = drawn.over(BLACK).astype(np.float64), drawn.alpha > 0.9
        if self._last is not None:
            both = now[1] & self._last[1]
            self.steps.append(float(np.abs(now[0] - self._last[0])[both].mean()))
        self._last = now


def page(bench: Benchmark) -> None:
    """Chromium's main thread, from a message's bytes to textures ready for drawing."""
    from splat_page import update_ms

    room = room_place()
    keyframe = keyframe_of(room, room.pose)
    discs = discs_from_pointmap(keyframe.pointmap, keyframe.rgb, keyframe.confidence)
    times = update_ms(discs, RUNS)
    if times:
        note = f"{len(discs)} splats, headless Chromium, main thread"
        bench.add("page_update_ms", times, "ms", note=note)


def main() -> None:
    """Run all and write `results/splats.json`."""
    bench = Benchmark("splats")
    places = [room_place(), *hamlet_places(TIMES_S)]
    wire(bench, places[0])
    one_keyframe(bench, places)
    many_keyframes(bench, places[:2] if QUICK else places)
    long_run(bench)
    page(bench)
    bench.write()


if __name__ == "__main__":
    main()
