# SPDX-License-Identifier: Apache-2.0
"""SLAM3R's networks: how exact, and how fast against the same networks written plainly.

Without options it measures the CPU: one image-to-points window, one registration, one retrieval,
each beside its plain twin in the same process and thread, on the same weights and inputs, turn by
turn. With `--device cuda` it runs whole frames through both on a GPU and prints one JSON object.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from harness import QUICK, Benchmark
from slam3r_golden import golden_folder, largest_error
from slam3r_memory import measure as measure_memory
from slam3r_naive import NaiveNetworks
from slam3r_stream import measured_stream
from torch import Tensor

from worldsystem_slam3r.model.decoder import join_views
from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld
from worldsystem_slam3r.model.networks import Networks
from worldsystem_slam3r.model.sizes import PUBLISHED, NetworkSizes

WINDOW = 11
SCENE_FRAMES = 10
CANDIDATES = 20
TURNS = 1 if QUICK else 3
SMALL = NetworkSizes(
    encoder_dim=512,
    encoder_depth=1,
    encoder_heads=8,
    decoder_dim=384,
    decoder_depth=12,
    decoder_heads=6,
)
FULL_DECODERS = NetworkSizes(
    encoder_dim=PUBLISHED.encoder_dim,
    encoder_depth=1,
    encoder_heads=PUBLISHED.encoder_heads,
    decoder_dim=PUBLISHED.decoder_dim,
    decoder_depth=PUBLISHED.decoder_depth,
    decoder_heads=PUBLISHED.decoder_heads,
)
"""The published sizes but for the encoder, which none of the three steps runs."""


def random_pair(
    sizes: NetworkSizes,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    graphs: bool = False,
    compiled: bool = False,
) -> tuple[Networks, NaiveNetworks]:
    """Our networks and their plain twin with the same random weights."""
    torch.manual_seed(0)
    i2p, l2w = ImageToPoints(sizes), LocalToWorld(sizes)
    states = [
        {key: tensor.detach().clone().to(device) for key, tensor in net.state_dict().items()}
        for net in (i2p, l2w)
    ]
    naive = NaiveNetworks(states[0], states[1], (sizes.encoder_heads, sizes.decoder_heads))
    made = Networks(i2p, l2w, device=device, dtype=dtype, graphs=graphs, compiled=compiled)
    return made, naive


def speedups(ours: Callable[[], object], plain: Callable[[], object]) -> list[float]:
    """Plain time over ours, turn by turn; who goes first alternates.

    The caller has run both once. Time is that of the one thread that computes, so that other
    programs of this machine count less.
    """
    ratios = []
    for turn in range(TURNS):
        pair = (ours, plain) if turn % 2 else (plain, ours)
        times = {step: thread_s(step) for step in pair}
        ratios.append(times[plain] / times[ours])
    return ratios


def thread_s(step: Callable[[], object]) -> float:
    """Processor seconds that this thread spends in `step`."""
    start = time.thread_time()
    step()
    return time.thread_time() - start


def agreement(ours: Tensor, plain: Tensor) -> str:
    """How far two results are apart, for the note."""
    return f"results differ by {float((ours - plain).abs().max()):.1e}"


@torch.no_grad()
def measure_steps(bench: Benchmark, sizes: NetworkSizes, size_note: str) -> None:
    """The three steps of a frame, ours beside the plain ones, in float32."""
    networks, naive = random_pair(sizes)
    noise = torch.Generator().manual_seed(1)
    tokens = torch.randn(CANDIDATES + 1, 196, sizes.encoder_dim, generator=noise)
    points = torch.randn(SCENE_FRAMES + 1, 224, 224, 3, generator=noise)
    window, scene = tokens[:WINDOW], tokens[:SCENE_FRAMES]
    kept = networks.i2p_sources(window[1:])
    candidates = networks.i2p_sources(tokens[:CANDIDATES])
    known = networks.l2w_references(scene[:-1], points[: SCENE_FRAMES - 1])
    query, new, new_points = tokens[-1:], tokens[-1:], points[-1:]

    def registered(keep: bool) -> Tensor:
        if not keep:
            references = networks.l2w_references(scene, points[:SCENE_FRAMES])
            return networks.l2w_sources(references, new, new_points).points
        newest = networks.l2w_references(scene[-1:], points[SCENE_FRAMES - 1 : SCENE_FRAMES])
        return networks.l2w_sources(join_views([known, newest]), new, new_points).points

    def registered_plainly() -> Tensor:
        return naive.l2w(scene, points[:SCENE_FRAMES], new, new_points)[0][SCENE_FRAMES:]

    def located() -> Tensor:
        return networks.i2p_reference(window[0], kept).points

    def located_plainly() -> Tensor:
        return naive.i2p(window, 0)[0][0]

    def scored() -> Tensor:
        return networks.retrieval_scores(query, candidates)

    def scored_plainly() -> Tensor:
        return naive.retrieval_scores(query, tokens[:CANDIDATES])

    figures: list[tuple[str, Callable[[], Tensor], Callable[[], Tensor], str]] = [
        ("i2p_speedup", located, located_plainly, f"window of {WINDOW} views, sources kept"),
        ("l2w_speedup", lambda: registered(True), registered_plainly, "10 + 1, nine of ten kept"),
        ("l2w_fresh_speedup", lambda: registered(False), registered_plainly, "10 + 1, none kept"),
        ("retrieval_speedup", scored, scored_plainly, f"{CANDIDATES} candidates, kept"),
    ]
    for name, ours, plain, note in figures:
        same = agreement(ours(), plain())
        bench.add(
            name,
            speedups(ours, plain),
            "x",
            note=f"float32, one thread, {size_note}, {note}; {same}",
        )


@torch.no_grad()
def measure_bfloat16(bench: Benchmark, sizes: NetworkSizes, size_note: str) -> None:
    """What bfloat16 brings on this processor, and what it costs in accuracy."""
    noise = torch.Generator().manual_seed(2)
    tokens = torch.randn(3, 196, sizes.encoder_dim, generator=noise)
    whole, _ = random_pair(sizes)
    coarse, _ = random_pair(sizes, dtype=torch.bfloat16)
    exact, rounded = whole.i2p(tokens, 0).points, coarse.i2p(tokens, 0).points
    error = float((exact - rounded).square().mean().sqrt() / exact.std())
    bench.add("bf16_points_rms", error, "", note=f"of the points' spread; 3 views, {size_note}")
    ratios = speedups(lambda: coarse.i2p(tokens, 0), lambda: whole.i2p(tokens, 0))
    flags = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    has = "avx512_bf16" in flags or "amx_bf16" in flags
    note = "bfloat16 against float32, both ours; the processor " + (
        "computes in it" if has else "has no instructions for it"
    )
    bench.add("bf16_i2p_speedup", ratios, "x", note=note)


@torch.no_grad()
def measure_compiled(bench: Benchmark, sizes: NetworkSizes, size_note: str) -> None:
    """What torch.compile brings on this processor once it is done."""
    tokens = torch.randn(WINDOW, 196, sizes.encoder_dim, generator=torch.Generator().manual_seed(3))
    plain, _ = random_pair(sizes)
    compiled, _ = random_pair(sizes, compiled=True)
    kept = plain.i2p_sources(tokens[1:])

    def step(networks: Networks) -> Tensor:
        return networks.i2p_reference(tokens[0], kept).points

    begun_s = time.perf_counter()
    step(compiled)
    first_s = time.perf_counter() - begun_s
    same = agreement(step(compiled), step(plain))
    ratios = speedups(lambda: step(compiled), lambda: step(plain))
    note = f"torch.compile, both ours, float32, {size_note}; {first_s:.0f} s to compile; {same}"
    bench.add("compiled_i2p_speedup", ratios, "x", note=note)


def measure_cpu() -> None:
    """Write the figures of this processor."""
    torch.set_num_threads(1)
    bench = Benchmark("slam3r")
    folder = golden_folder()
    if folder is None:
        print("no stored numbers here: slam3r.golden_points_max is left out", file=sys.stderr)
    else:
        bench.add("golden_points_max", largest_error(folder), "", note="scene units, ~1.5 spread")
    sizes = SMALL if QUICK else FULL_DECODERS
    size_note = "decoders half as wide" if QUICK else "full size"
    measure_steps(bench, sizes, size_note)
    measure_bfloat16(bench, SMALL, "decoders half as wide")
    if not QUICK:
        measure_compiled(bench, SMALL, "decoders half as wide")
    measure_memory(bench)
    bench.write()


def measure_device(device: str, frames: int, *, graphs: bool, compiled: bool) -> None:
    """Write whole-frame figures of a GPU, and print them as JSON."""
    os.environ.setdefault("BENCH_SUFFIX", f"_{device.replace(':', '')}")
    networks, naive = random_pair(
        PUBLISHED, device, torch.bfloat16, graphs=graphs, compiled=compiled
    )
    bench = Benchmark("slam3r")
    note = f"{torch.cuda.get_device_name(device)}, {frames} frames, bfloat16; the twin in float32"
    note += ", CUDA graphs" if graphs else ""
    note += ", compiled" if compiled else ""
    for name, (value, unit) in measured_stream(networks, naive, frames=frames).items():
        bench.add(name, value, unit, note=note)
    print(bench.write().read_text())


def main() -> None:
    """Measure the CPU, or a GPU when one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for whole frames")
    parser.add_argument("--frames", type=int, default=300 if QUICK else 3000)
    parser.add_argument("--graphs", action="store_true", help="replay CUDA graphs")
    parser.add_argument("--compiled", action="store_true", help="with torch.compile")
    options = parser.parse_args()
    if options.device == "cpu":
        measure_cpu()
    else:
        measure_device(
            options.device, options.frames, graphs=options.graphs, compiled=options.compiled
        )


if __name__ == "__main__":
    main()
