# SPDX-License-Identifier: Apache-2.0
"""Whole frames through SLAM3R's networks in the steady state, on any device.

Every frame is encoded, given local points with ten kept views, and registered to ten scene frames;
every fifth frame asks the buffer of a hundred for its scene frames. The oldest of the buffer makes
room for a new frame every third one, as in a long flight.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from slam3r_naive import NaiveNetworks
from torch import Tensor

from worldsystem_slam3r.model.decoder import Side, join_views
from worldsystem_slam3r.model.networks import Networks
from worldsystem_slam3r.model.retrieval import best_candidates

BUFFER = 100
SCENE_FRAMES = 10
RETRIEVE_EVERY = 5
KEEP_EVERY = 3
WARM_UP = 20
Measured = dict[str, tuple[float, str]]


class OurStream:
    """Frame by frame through our networks; what views give by themselves is kept."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        first = torch.zeros(BUFFER, 3, 224, 224, device=networks.device).uniform_(-1, 1)
        self._tokens = list(networks.encode(first))
        self._sides = [networks.i2p_sources(tokens[None]) for tokens in self._tokens]
        self._points = [unit_points(networks.device) for _ in self._tokens]
        self._chosen = list(range(SCENE_FRAMES))

    def step(self, number: int, image: Tensor) -> Tensor:
        """World points of one frame."""
        tokens = self._networks.encode(image)
        if number % RETRIEVE_EVERY == 0:
            scores = self._networks.retrieval_scores(tokens, join_views(self._sides))
            self._chosen = best_candidates(scores, SCENE_FRAMES)
        sources = join_views([self._sides[i] for i in self._chosen])
        local = self._networks.i2p_reference(tokens[0], sources).points
        references = self._networks.l2w_references(
            torch.stack([self._tokens[i] for i in self._chosen]),
            torch.stack([self._points[i] for i in self._chosen]),
        )
        world = self._networks.l2w_sources(references, tokens, local[None]).points
        if number % KEEP_EVERY == 0:
            self._replace(number // KEEP_EVERY % BUFFER, tokens)
        return world

    def _replace(self, place: int, tokens: Tensor) -> None:
        self._tokens[place] = tokens[0]
        self._sides[place] = self._side(tokens)

    def _side(self, tokens: Tensor) -> Side:
        return self._networks.i2p_sources(tokens)


class NaiveStream:
    """The same frames through the plain twin."""

    def __init__(self, naive: NaiveNetworks, device: torch.device) -> None:
        self._naive = naive
        first = torch.zeros(BUFFER, 3, 224, 224, device=device).uniform_(-1, 1)
        self._tokens = torch.cat([naive.encode(part) for part in torch.split(first, 10)])
        self._points = torch.stack([unit_points(device) for _ in range(SCENE_FRAMES)])
        self._chosen = list(range(SCENE_FRAMES))

    def step(self, number: int, image: Tensor) -> Tensor:
        """World points of one frame."""
        tokens = self._naive.encode(image)
        if number % RETRIEVE_EVERY == 0:
            scores = self._naive.retrieval_scores(tokens, self._tokens)
            self._chosen = best_candidates(scores, SCENE_FRAMES)
        chosen = self._tokens[self._chosen]
        local = self._naive.i2p(torch.cat([tokens, chosen]), 0)[0][:1]
        world = self._naive.l2w(chosen, self._points, tokens, local)[0][SCENE_FRAMES:]
        if number % KEEP_EVERY == 0:
            self._tokens[number // KEEP_EVERY % BUFFER] = tokens[0]
        return world


def unit_points(device: torch.device) -> Tensor:
    """Points one unit away, as scene frames have them on average."""
    points = torch.randn(224, 224, 3, device=device)
    return torch.nn.functional.normalize(points, dim=-1)


@torch.no_grad()
def frame_times_s(step: Callable[[int, Tensor], Tensor], frames: int, device: str) -> list[float]:
    """Seconds that each frame took until its points were on the host side's call."""
    image = torch.zeros(1, 3, 224, 224, device=device).uniform_(-1, 1)
    times = []
    for number in range(frames + WARM_UP):
        start = time.perf_counter()
        float(step(number, image)[0, 0, 0, 0])  # waits for the device
        times.append(time.perf_counter() - start)
    return times[WARM_UP:]


@torch.no_grad()
def measured_stream(networks: Networks, naive: NaiveNetworks, *, frames: int) -> Measured:
    """Rates of both, steadiness, latency and memory, each with its unit."""
    device = networks.device
    ours = OurStream(networks)
    tenth = max(20, min(500, frames // 6))
    early = frame_times_s(ours.step, tenth, str(device))
    memory_early = device_bytes(device)
    times = early + frame_times_s(ours.step, frames - tenth, str(device))
    memory_late = device_bytes(device)
    plain = frame_times_s(NaiveStream(naive, device).step, max(10, frames // 30), str(device))
    fps, plain_fps = len(times) / sum(times), len(plain) / sum(plain)
    return {
        "fps": (fps, "fps"),
        "naive_fps": (plain_fps, "fps"),
        "stream_speedup": (fps / plain_fps, "x"),
        "steady_ratio": (sum(times[:tenth]) / sum(times[-tenth:]), ""),
        "latency_p50_ms": (1e3 * statistics.median(times), "ms"),
        "latency_p99_ms": (1e3 * sorted(times)[int(0.99 * len(times))], "ms"),
        "device_early_gb": (memory_early / 1e9, "GB"),
        "device_late_gb": (memory_late / 1e9, "GB"),
        "weights_gb": (networks.weight_bytes() / 1e9, "GB"),
    }


def device_bytes(device: torch.device) -> int:
    """Memory that tensors occupy on a GPU; 0 on a CPU, which does not count it."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
