# SPDX-License-Identifier: Apache-2.0
"""What it costs to hand a picture to another stage, near or far, and to wake one."""

from __future__ import annotations

import sys

import numpy as np
import rclpy
import runtime_between
import runtime_rclpy
from harness import QUICK, Benchmark
from runtime_reference import ByReference
from runtime_wakes import (
    message_ms_by_node_executor,
    message_ms_by_rclpy,
    quaternion_us,
    wake_ms_by_delivery,
    wake_ms_by_executor,
)

from worldsystem_core.ros.process import tune_process

ROUNDS = 1 if QUICK else 4
PICTURES = 40 if QUICK else 60
FILM = 60 if QUICK else 300
WIDTH, HEIGHT = 1920, 1080
SIZES = {"360p": (640, 360), "1080p": (WIDTH, HEIGHT), "4k": (3840, 2160)}
PAUSE_S = 1 / 30


def main() -> None:
    """All parts, or those named, each way in turn; every rclpy way in processes of its own."""
    tune_process()
    rclpy.init()
    bench = Benchmark("runtime")
    parts = {
        "one_process": measure_one_process,
        "two_processes": measure_two_processes,
        "wakes": measure_wakes,
    }
    chosen = sys.argv[1:] or list(parts)
    for part in chosen:
        parts[part](bench)
    if set(chosen) != set(parts):
        bench.keep_others()
    bench.write()
    rclpy.try_shutdown()


def measure_one_process(bench: Benchmark) -> None:
    """By reference at three sizes, rclpy as it comes, and rclpy with our settings."""
    by_size: dict[str, list[float]] = {name: [] for name in SIZES}
    plain, tuned = [], []
    with ByReference() as ours:
        ours.latencies_us(WIDTH, HEIGHT, PICTURES)
        for _ in range(ROUNDS):
            for name, size in SIZES.items():
                by_size[name] += ours.latencies_us(*size, PICTURES)
            plain += runtime_rclpy.latencies_us(WIDTH, HEIGHT, PICTURES, ours=False)
            tuned += runtime_rclpy.latencies_us(WIDTH, HEIGHT, PICTURES, ours=True)
        spaced = ours.latencies_us(WIDTH, HEIGHT, ROUNDS * PICTURES, pause_s=PAUSE_S)
    note = f"publish to callback, {WIDTH}×{HEIGHT} rgb8, one process"
    reference = by_size["1080p"]
    bench.add("reference_us_p50", reference, "us", note=f"{note}; same object, back to back")
    bench.add("reference_30hz_us_p50", spaced, "us", note=f"{note}; 30 a second, else idle")
    bench.add("rclpy_us_p50", plain, "us", note=f"{note}; rclpy as it comes, data = bytes")
    bench.add("rclpy_tuned_us_p50", tuned, "us", note=f"{note}; rclpy with our settings")
    bench.add("reference_vs_rclpy", _ratio(plain, reference), "x", note="medians; as it comes")
    bench.add("reference_vs_rclpy_tuned", _ratio(tuned, reference), "x", note="medians")
    for name in ("360p", "4k"):
        bench.add(f"reference_{name}_us_p50", by_size[name], "us", note="by reference")
    ratio = _ratio(by_size["4k"], by_size["360p"])
    bench.add("reference_4k_over_360p", ratio, "x", note="medians; 36 times the pixels")


def measure_two_processes(bench: Benchmark) -> None:
    """Films at 30 Hz, in turns: by a stage's topic, by rclpy as it comes and with our settings."""
    ways = (runtime_between.OURS, runtime_between.PLAIN, runtime_between.TUNED)
    films = {way: runtime_between.Crossing(0, []) for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            films[way] += runtime_between.crossing(way, WIDTH, HEIGHT, FILM // ROUNDS)
    ours, plain, tuned = films.values()
    note = f"two processes, {WIDTH}×{HEIGHT} rgb8, {FILM} pictures at 30 Hz"
    bench.add("cross_process_ms_p50", ours.latencies_ms, "ms", note=note)
    p95_ms = float(np.percentile(ours.latencies_ms, 95))
    bench.add("cross_process_ms_p95", p95_ms, "ms", note=note)
    bench.add("cross_process_loss_percent", ours.lost_percent, "%", note=note)
    peers = {"rclpy": (plain, "as it comes"), "rclpy_tuned": (tuned, "with our settings")}
    for name, (peer, how) in peers.items():
        bench.add(f"cross_process_{name}_ms_p50", peer.latencies_ms, "ms", note=f"rclpy {how}")
        ratio = _ratio(peer.latencies_ms, ours.latencies_ms)
        bench.add(f"cross_process_vs_{name}", ratio, "x", note=f"medians; {how}")
        lost = peer.lost_percent
        bench.add(f"cross_process_{name}_loss_percent", lost, "%", note=f"rclpy {how}")


def measure_wakes(bench: Benchmark) -> None:
    """What a stage costs whenever it is handed a small object, or hears a message."""
    wakes = ROUNDS * PICTURES
    delivered, executed = wake_ms_by_delivery(wakes), wake_ms_by_executor(wakes)
    note = "processor time of the process for an object that nothing is done with"
    bench.add("wake_ms", delivered, "ms", note=f"{note}; delivery thread")
    bench.add("wake_executor_ms", executed, "ms", note=f"{note}; rclpy executor")
    ratio = _ratio(executed, delivered)
    bench.add("wake_vs_executor", ratio, "x", note="median executor over median delivery thread")
    kept, anew = message_ms_by_node_executor(wakes), message_ms_by_rclpy(wakes)
    note = "processor time of the executor's thread for a message of DDS, 12 subscriptions"
    bench.add("message_ms", kept, "ms", note=f"{note}; wait set kept")
    bench.add("message_rclpy_ms", anew, "ms", note=f"{note}; rclpy executor")
    bench.add("message_vs_rclpy", _ratio(anew, kept), "x", note="medians")
    ours, scipys = quaternion_us(wakes)
    bench.add("quaternion_us", ours, "us", note="one rotation matrix to a quaternion")
    scipy_note = f"SciPy {np.median(scipys):.0f} us"
    bench.add("quaternion_vs_scipy", _ratio(scipys, ours), "x", note=scipy_note)


def _ratio(over: list[float], under: list[float]) -> float:
    return float(np.median(over) / np.median(under))


if __name__ == "__main__":
    main()
