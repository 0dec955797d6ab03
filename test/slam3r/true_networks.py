# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the networks that knows the filmed room: what they would give at their best.

Points are exact but for a little noise. Like the networks', local points have any scale, and the
world is known from the references alone: whatever is wrong with these is carried on.
"""

from __future__ import annotations

from dataclasses import replace

import filmed_room
import numpy as np
import torch

from worldsystem_core.frames import Camera, Frame
from worldsystem_core.geometry.pinhole import pointmap_from_depth, project
from worldsystem_core.geometry.se3 import inverse, transform
from worldsystem_core.geometry.sim3 import fit_sim3
from worldsystem_slam3r.model.decoder import Offer, Side, Target
from worldsystem_slam3r.slam3r.intake import Intake

PX = 64
NOISE = 0.002
SURE, UNSURE = 20.0, 1.1
OVERLAP = 0.15
_EVERY = 8


class TrueNetworks:
    """Recognises the pictures it was told of by their bytes; others are geometry of nothing."""

    def __init__(self) -> None:
        self.encoded = 0
        self.broken = False
        self._rng = np.random.default_rng(7)
        self._known: dict[bytes, int] = {}
        self._poses: list[np.ndarray] = []
        self._cameras: list[Camera] = []
        self._places: list[int] = []
        self._points: dict[int, np.ndarray] = {}

    def film(
        self,
        poses: list[np.ndarray],
        camera: Camera,
        *,
        first_id: int = 0,
        place: int = 0,
        known_camera: bool = True,
    ) -> list[Frame]:
        """The room filmed from `poses`; `place` 1 looks different and shares no point with 0."""
        frames = []
        for frame, pose in zip(
            filmed_room.frames(poses, camera, first_id=first_id), poses, strict=True
        ):
            frame = replace(frame, rgb=255 - frame.rgb) if place else frame
            self.learn(frame, pose, place)
            frames.append(frame if known_camera else replace(frame, camera=None))
        return frames

    def learn(self, frame: Frame, world_from_cam: np.ndarray, place: int = 0) -> None:
        """Tell where a frame, which carries its camera, was taken."""
        picture = Intake(picture_px=PX).picture(frame)
        assert picture.camera is not None
        self._known.setdefault(picture.rgb.tobytes(), len(self._poses))
        self._poses.append(world_from_cam)
        self._cameras.append(picture.camera)
        self._places.append(place)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        self.encoded += len(images)
        pictures = ((images * 0.5 + 0.5) * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1)
        found = [self._known.get(p.contiguous().numpy().tobytes(), -1) for p in pictures]
        return torch.tensor(found, dtype=torch.float32)[:, None, None].repeat(1, 4, 2)

    def i2p(self, tokens: torch.Tensor, ref: int) -> tuple[torch.Tensor, torch.Tensor]:
        views = _indices(tokens)
        scale = self._rng.uniform(0.5, 2.0)
        maps = [self._seen_from(views[ref], view, scale) for view in views]
        return _stacked(maps)

    def i2p_sources(self, tokens: torch.Tensor) -> Side:
        return _side(tokens, tokens)

    def i2p_reference(
        self, ref_tokens: torch.Tensor, sources: Side
    ) -> tuple[torch.Tensor, torch.Tensor]:
        view = _indices(ref_tokens[None])[0]
        points, confidence = _stacked([self._seen_from(view, view, self._rng.uniform(0.5, 2.0))])
        return points[0], confidence[0]

    def l2w_references(self, tokens: torch.Tensor, points: torch.Tensor) -> Side:
        return _side(tokens, points)

    def l2w_sources(
        self, references: Side, tokens: torch.Tensor, points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        refs = _indices(references.target.stream[0])
        given = references.target.queries[0].numpy()
        return _stacked([self._registered(view, refs, given) for view in _indices(tokens)])

    def retrieval_scores(self, query_tokens: torch.Tensor, candidates: Side) -> torch.Tensor:
        queries, others = _indices(query_tokens), _indices(candidates.target.stream[0])
        scores = [np.mean([self._overlap(q, other) for q in queries]) for other in others]
        return torch.tensor(scores)

    def _seen_from(self, ref: int, view: int, scale: float) -> tuple[np.ndarray, float]:
        if self.broken:
            return np.full((PX, PX, 3), np.nan), SURE
        if min(ref, view) < 0 or self._places[ref] != self._places[view]:
            return self._nothing(), UNSURE
        points = transform(inverse(self._poses[ref]), self._world(view))
        return scale * self._noisy(points, self._poses[ref], ref), SURE

    def _registered(
        self, view: int, refs: list[int], given: np.ndarray
    ) -> tuple[np.ndarray, float]:
        if self.broken:
            return np.full((PX, PX, 3), np.nan), SURE
        seeing = [i for i, ref in enumerate(refs) if self._overlap(view, ref) > OVERLAP]
        if view < 0 or not seeing:
            return self._nothing(), UNSURE
        true = np.concatenate([self._world(refs[i])[::_EVERY, ::_EVERY] for i in seeing])
        told = np.concatenate([given[i][::_EVERY, ::_EVERY] for i in seeing])
        known = (told != 0).any(axis=-1)
        fit = fit_sim3(told[known].astype(float), true[known].astype(float))
        return fit.apply(self._noisy(self._world(view), np.eye(4), view)), SURE

    def _world(self, view: int) -> np.ndarray:
        if view not in self._points:
            depth = filmed_room.render(self._poses[view], self._cameras[view])[1]
            local = pointmap_from_depth(depth, self._cameras[view])
            self._points[view] = transform(self._poses[view], local)
        return self._points[view]

    def _noisy(self, points: np.ndarray, frame: np.ndarray, view: int) -> np.ndarray:
        """Noise along the view's rays, in proportion to their length."""
        eye = self._poses[view][:3, 3] if np.array_equal(frame, np.eye(4)) else np.zeros(3)
        size = (*points.shape[:2], 1)
        return np.asarray(eye + (points - eye) * (1.0 + NOISE * self._rng.normal(size=size)))

    def _nothing(self) -> np.ndarray:
        return self._rng.normal(loc=(0.0, 0.0, 2.0), size=(PX, PX, 3))

    def _overlap(self, a: int, b: int) -> float:
        if min(a, b) < 0 or self._places[a] != self._places[b]:
            return 0.0
        points = self._world(b)[::_EVERY, ::_EVERY].reshape(-1, 3)
        return float(
            project(transform(inverse(self._poses[a]), points), self._cameras[a])[1].mean()
        )


def _indices(tokens: torch.Tensor) -> list[int]:
    return [int(one) for one in tokens[:, 0, 0]]


def _side(tokens: torch.Tensor, also: torch.Tensor) -> Side:
    return Side(Target(tokens[None], also[None]), Offer(tokens[None], tokens[None]))


def _stacked(maps: list[tuple[np.ndarray, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    points = torch.from_numpy(np.stack([p for p, _ in maps]).astype(np.float32))
    confidence = torch.tensor([c for _, c in maps])[:, None, None]
    return points, confidence.expand(points.shape[:3]).clone()
