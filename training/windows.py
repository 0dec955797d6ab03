# SPDX-License-Identifier: Apache-2.0
"""What the networks learn from: a few views of one room, with the true points of their pixels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, UInt8
from pixels import Pixels
from scenes import random_room, random_walk

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse
from worldsystem_sim.render import Renderer

_FOV_DEG = (50.0, 85.0)


@dataclass(frozen=True, eq=False)
class Clip:
    """n views of a walk through one room; z-depth [m], NaN where there is only sky."""

    rgb: UInt8[np.ndarray, "n h w 3"]
    depth_m: Float32[np.ndarray, "n h w"]
    world_from_cam: Float64[np.ndarray, "n 4 4"]
    K: Float64[np.ndarray, "3 3"]

    def __len__(self) -> int:
        return len(self.rgb)

    def own_points(self, views: np.ndarray) -> Float32[np.ndarray, "v h w 3"]:
        """Points of views in their own cameras' frames [m]; NaN for the sky."""
        return np.asarray(self._rays * self.depth_m[views][..., None])

    def points(
        self, view: int, target_from_world: Float[np.ndarray, "4 4"]
    ) -> Float32[np.ndarray, "h w 3"]:
        """The point of each pixel of `view` in another frame [m]; NaN for the sky."""
        own = self.own_points(np.array([view]))
        return np.asarray(_moved(own, target_from_world @ self.world_from_cam[[view]])[0])

    @cached_property
    def _rays(self) -> Float32[np.ndarray, "h w 3"]:
        """Direction of each pixel in the camera's frame, its z one."""
        v, u = np.mgrid[: self.rgb.shape[1], : self.rgb.shape[2]]
        x, y = (u - self.K[0, 2]) / self.K[0, 0], (v - self.K[1, 2]) / self.K[1, 1]
        return np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Views:
    """A batch of windows: pictures in -1 … 1, true points in one frame each, and which are valid.

    `points` are in the frame of the window, in units of their mean distance from its origin, and
    zero where `valid` is false. `own` are those of each view in its own camera's frame, each in
    units of its own mean distance.
    """

    images: Float[torch.Tensor, "b v 3 h w"]
    points: Float[torch.Tensor, "b v h w 3"]
    own: Float[torch.Tensor, "b v h w 3"]
    valid: Bool[torch.Tensor, "b v h w"]

    def to(self, device: str) -> Views:
        """The same on another device."""
        tensors = (self.images, self.points, self.own, self.valid)
        return Views(*(tensor.to(device) for tensor in tensors))

    def at(self, pixels: Pixels) -> Views:
        """The same pictures with the truth of some pixels only."""
        truth = (pixels.of(x, axis=2) for x in (self.points, self.own, self.valid))
        return Views(self.images, *truth)


def film_rooms(
    seeds: range, frames: int, size_px: int, *, threads: int = 1, kept: Path | None = None
) -> list[Clip]:
    """One clip for each seed; `threads` rooms are rendered at a time.

    With `kept`, rooms are read from that folder where they lie there, and else written to it.
    """

    def one(seed: int) -> Clip:
        if kept is None:
            return film_room(seed, frames, size_px)
        path = kept / f"room_{seed}_{frames}_{size_px}.npz"
        if not path.is_file():
            write_clip(path, film_room(seed, frames, size_px))
        with np.load(path) as content:
            return Clip(*(content[field.name] for field in fields(Clip)))

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, seeds))


def write_clip(path: Path, clip: Clip) -> None:
    """Write a clip so that it is either there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.npz")
    np.savez(unfinished, **{field.name: getattr(clip, field.name) for field in fields(Clip)})
    unfinished.replace(path)


def film_room(seed: int, frames: int, size_px: int) -> Clip:
    """A walk through the room of `seed`, with a field of view and an exposure of its own."""
    rng = np.random.default_rng([seed, 23])
    camera = Camera.from_horizontal_fov(size_px, size_px, np.deg2rad(rng.uniform(*_FOV_DEG)))
    renderer = Renderer(random_room(seed), camera)
    poses = random_walk(seed, frames)
    swing = 2.0 ** (0.3 * np.cumsum(rng.normal(0, 0.15, frames)).clip(-2, 2))
    seen = [renderer.render(pose, float(e)) for pose, e in zip(poses, swing, strict=True)]
    depth = np.stack([view.depth_m for view in seen])
    depth[~np.isfinite(depth)] = np.nan
    return Clip(np.stack([view.rgb for view in seen]), depth, poses, camera.K)


def reference_windows(
    clips: list[Clip], rng: np.random.Generator, *, batch: int, views: int
) -> Views:
    """Windows in the frame of their first view, which lies in the middle of the others."""
    chosen = []
    for _ in range(batch):
        clip = clips[int(rng.integers(len(clips)))]
        stride = int(rng.integers(1, 1 + max(1, min(12, (len(clip) - 1) // views))))
        first = int(rng.integers(0, len(clip) - stride * (views - 1)))
        around = first + stride * np.arange(views)
        middle = views // 2
        order = np.concatenate([[around[middle]], np.delete(around, middle)])
        chosen.append(_window(clip, order, inverse(clip.world_from_cam[order[0]])))
    return _batched(chosen)


def world_windows(clips: list[Clip], rng: np.random.Generator, *, batch: int, views: int) -> Views:
    """Windows in the frame of a further camera of the clip, views spread over a stretch of it."""
    chosen = []
    for _ in range(batch):
        clip = clips[int(rng.integers(len(clips)))]
        reach = min(len(clip), int(rng.integers(2 * views, 8 * views)))
        first = int(rng.integers(0, len(clip) - reach + 1))
        order = first + rng.choice(reach, views + 1, replace=False)
        chosen.append(_window(clip, order[1:], inverse(clip.world_from_cam[order[0]])))
    return _batched(chosen)


@dataclass(frozen=True, eq=False)
class _Window:
    rgb: UInt8[np.ndarray, "v h w 3"]
    points: Float32[np.ndarray, "v h w 3"]
    own: Float32[np.ndarray, "v h w 3"]
    valid: Bool[np.ndarray, "v h w"]


def _window(clip: Clip, order: np.ndarray, target_from_world: Float[np.ndarray, "4 4"]) -> _Window:
    own = clip.own_points(order)
    points = _moved(own, target_from_world @ clip.world_from_cam[order])
    valid = np.isfinite(own[..., 2])
    unit_own = np.stack([_in_units_of_the_mean(p, m) for p, m in zip(own, valid, strict=True)])
    return _Window(clip.rgb[order], _in_units_of_the_mean(points, valid), unit_own, valid)


def _moved(
    points: Float32[np.ndarray, "v h w 3"], target_from_own: Float[np.ndarray, "v 4 4"]
) -> Float32[np.ndarray, "v h w 3"]:
    pose = target_from_own.astype(np.float32)
    flat = points.reshape(len(points), -1, 3) @ pose[:, :3, :3].transpose(0, 2, 1)
    return np.asarray((flat + pose[:, None, :3, 3]).reshape(points.shape))


def _in_units_of_the_mean(
    points: Float32[np.ndarray, "*s 3"], valid: Bool[np.ndarray, "*s"]
) -> Float32[np.ndarray, "*s 3"]:
    clean = np.where(valid[..., None], points, np.float32(0.0))
    mean = np.sqrt(np.einsum("...c,...c->...", clean, clean)).sum() / (valid.sum() + 1e-8)
    return np.asarray(clean / np.float32(max(float(mean), 1e-8)), dtype=np.float32)


def _batched(windows: list[_Window]) -> Views:
    rgb = torch.from_numpy(np.stack([w.rgb for w in windows]))
    return Views(
        images=rgb.permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0,
        points=torch.from_numpy(np.stack([w.points for w in windows])),
        own=torch.from_numpy(np.stack([w.own for w in windows])),
        valid=torch.from_numpy(np.stack([w.valid for w in windows])),
    )
