# SPDX-License-Identifier: Apache-2.0
"""Segmentation: ids, 3D instances and time on flights with true ids; masks on a real film.

The flights' seeds were not looked at while thresholds were set (that was done on seeds from 100
on); the room and the hamlet were. Depth has 1 % of error, mostly smooth; poses drift by 3 cm.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "test" / "segment"))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import tracking_scores as scores  # noqa: E402
from harness import QUICK, Benchmark  # noqa: E402
from mask_scores import boundary, region  # noqa: E402
from segment_films import follow_the_dog, has_films  # noqa: E402
from segment_flight import RATE_HZ, Flight  # noqa: E402
from segment_flights import Run, Shot  # noqa: E402
from segment_memory import memory_of_sessions  # noqa: E402
from segment_scenes import ROOM_EYE, hamlet, hamlet_view, room  # noqa: E402

SEEDS = (0,) if QUICK else (0, 1, 2)
NOISE = 0.01
AWAY_S = 5.0


def main() -> None:
    """Measure the parts that are named (all without names); figures of the others stay."""
    cv2.setNumThreads(1)
    bench = Benchmark("segment")
    parts = {
        "flights": measure_flights,
        "scenes": measure_scenes,
        "film": measure_real_film,
        "sessions": measure_sessions,
    }
    for name in sys.argv[1:] or parts:
        if name != "film" or has_films():
            parts[name](bench)
    bench.keep_others()
    bench.write()


def measure_flights(bench: Benchmark) -> None:
    """Twelve objects, one driving about, all out of view for more than five seconds."""
    runs = [Run(Flight(seed).shots(), voxel=0.05, visible_px=400) for seed in SEEDS]
    note = f"12 objects, 80 keyframes of 640x480, 1 % noise, 3 cm drift; seeds {SEEDS}"
    for name, score, unit in (
        ("hota", scores.hota, "-"),
        ("idf1", scores.idf1, "-"),
        ("id_switches", scores.id_switches, "switches"),
    ):
        bench.add(name, [score(run.sequence) for run in runs], unit, note=note)
        plain = [score(run.naive) for run in runs]
        bench.add(f"{name}_plain_iou", plain, unit, note="mask-IoU tracker on the same instances")
    away = int(AWAY_S * RATE_HZ)
    for name, of in (("reentry_percent", "sequence"), ("reentry_percent_plain_iou", "naive")):
        kept = [scores.reentry_percent(getattr(run, of), away=away, hits=3) for run in runs]
        bench.add(name, kept, "%", note="objects that keep their id after more than 5 s unseen")
    bench.add("ap25_3d", [run.ap25 for run in runs], "-", note=note)
    note = f"median of a 640x480 keyframe; load of the machine {os.getloadavg()[0]:.1f}"
    bench.add("frame_ms", [t for run in runs for t in run.wall_ms], "ms", note=note)
    processor = [t for run in runs for t in run.processor_ms]
    bench.add(
        "frame_processor_ms", processor, "ms", note="the same, processor time of both threads"
    )


def measure_scenes(bench: Benchmark) -> None:
    """The scenes on which thresholds were set: optimistic."""
    for name, shots, voxel in (("room", room_shots(), 0.05), ("hamlet", hamlet_shots(), 0.2)):
        run = Run(shots, voxel=voxel, visible_px=80)
        note = "320x180, 1 % noise; thresholds were set on it"
        bench.add(f"{name}_hota", scores.hota(run.sequence), "-", note=note)
        bench.add(f"{name}_idf1", scores.idf1(run.sequence), "-", note=note)
        bench.add(f"{name}_id_switches", scores.id_switches(run.sequence), "switches", note=note)
        bench.add(f"{name}_ap25_3d", run.ap25, "-", note=note)


def measure_real_film(bench: Benchmark) -> None:
    """DAVIS' running dog: the one track that fits the dog best, over the keyframes that there are.

    Its camera pans quickly and the dog runs: half a film for the reconstruction to find its feet.
    `grounded_sam2` and `sam3` need weights, which are not here.
    """
    labels, truths = follow_the_dog()
    ids = sorted({int(i) for label in labels for i in np.unique(label)} - {0})
    fits = {i: np.mean([region(t, label == i) for t, label in zip(truths, labels, strict=True)])
            for i in ids}  # fmt: skip
    best = max(fits, key=lambda i: fits[i], default=0)
    masks = [label == best if best else np.zeros_like(t) for t, label in
             zip(truths, labels, strict=True)]  # fmt: skip
    note = f"geometric, DAVIS libby: {len(labels)} keyframes of 49 pictures, focal guessed; one id"
    for name, score in (("davis_j", region), ("davis_f", boundary)):
        values = [score(t, m) for t, m in zip(truths, masks, strict=True)]
        bench.add(name, float(np.mean(values)) if values else 0.0, "-", note=note)


def measure_sessions(bench: Benchmark) -> None:
    """What SAM 2 sessions hold while objects come and go, in a tiny random network."""
    frames = 300 if QUICK else 1000
    held, held_naive = memory_of_sessions(frames)
    steady = held[len(held) // 2 :]
    slope = float(np.polyfit(np.arange(len(steady)) * 10, steady, 1)[0]) * 1000 / 1e6
    note = f"tensors held by 2 objects that are replaced every 40 of {frames} frames; tiny network"
    bench.add("memory_slope_mb_per_1000", slope, "MB", note=note)
    naive = float(np.polyfit(np.arange(len(held_naive)) * 10, held_naive, 1)[0]) * 1000 / 1e6
    bench.add("memory_slope_mb_per_1000_library", naive, "MB", note="the same, nothing forgotten")


def room_shots() -> list[Shot]:
    """Look right, left and right again from one corner of the room."""
    caster = room().caster()
    legs = ((0, -75), (-75, 75), (75, 0))
    step = 6.0 if QUICK else 3.0
    turns = np.concatenate([np.arange(a, b, np.sign(b - a) * step) for a, b in legs])
    targets = [(4 * np.sin(t), ROOM_EYE[1] + 4 * np.cos(t), 0.3) for t in np.deg2rad(turns)]
    return [caster.shot(k, ROOM_EYE, target, noise=NOISE) for k, target in enumerate(targets)]


def hamlet_shots() -> list[Shot]:
    """Once around the hamlet at 10 m."""
    caster = hamlet().caster()
    angles = np.deg2rad(np.arange(0, 360, 10.0 if QUICK else 5.0))
    return [caster.shot(k, *hamlet_view(a), noise=NOISE) for k, a in enumerate(angles)]


if __name__ == "__main__":
    main()
