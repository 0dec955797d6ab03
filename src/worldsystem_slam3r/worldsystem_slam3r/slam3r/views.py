# SPDX-License-Identifier: Apache-2.0
"""One frame as the pipelines know it, and the networks' steps upon such frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from worldsystem_slam3r.model.decoder import Side, join_views
from worldsystem_slam3r.slam3r.networks import Networks

_TINY = 1e-8
_KEPT_REFERENCES = 48  # a frame's neighbours serve again; 3 MB each at full size
_REACH = 0.2  # of the mean distance: in training the window's camera lay among the others


@dataclass(eq=False)
class View:
    """A frame with its tokens and, once computed, its points.

    `index` counts the frames of the stream. `local_points` lie in the camera frame, their mean
    distance is 1; `world_points` lie in the frame and unit of scene `segment`. A point that is
    not trusted is (0, 0, 0). Scores are mean confidences.
    `as_source` keeps what the view shows to image-to-points and to retrieval.
    """

    index: int
    tokens: Float[Tensor, "s d"]
    segment: int = 0
    local_points: Float[Tensor, "h w 3"] | None = None
    local_confidence: Float[Tensor, "h w"] | None = None
    local_score: float = 0.0
    world_points: Float[Tensor, "h w 3"] | None = None
    world_confidence: Float[Tensor, "h w"] | None = None
    world_score: float = 0.0
    as_source: Side | None = None
    scene_from_cam: Float64[np.ndarray, "4 4"] | None = None

    @property
    def quality(self) -> float:
        """How well the frame serves as a scene frame, in [0, 1)."""
        return share_of(self.world_score) * share_of(self.local_score)

    def strengthen(self, factor: float) -> None:
        """Put the world confidence on another scale."""
        assert self.world_confidence is not None
        self.world_confidence = self.world_confidence * factor
        self.world_score *= factor


def share_of(confidence: float) -> float:
    """A confidence in [1, ∞) on the scale [0, 1); lower ones give 0."""
    return max(confidence - 1.0, 0.0) / confidence if confidence > 0 else 0.0


def mean_distance(
    points: Float[Tensor, "*views h w 3"], valid: Bool[Tensor, "*views h w"]
) -> Float[Tensor, ""]:
    """Mean distance from the origin of the valid points of all views together."""
    x, y, z = points.unbind(dim=-1)  # a norm over an axis of three is several times slower
    distance = torch.where(valid, torch.sqrt(x * x + y * y + z * z), 0.0)
    return (distance.sum() / (valid.sum() + _TINY)).clamp(min=_TINY)


def trusted(
    points: Float[Tensor, "*views h w 3"], confidence: Float[Tensor, "*views h w"], above: float
) -> Bool[Tensor, "*views h w"]:
    """Which points are finite and have a confidence above the threshold."""
    return (confidence > above) & torch.isfinite(points).all(dim=-1)


class Steps:
    """What the two networks do with views: local points, registration, retrieval.

    `normalise` divides what goes into the registration by its mean distance, references together
    and each source alone, and gives the result back in the references' unit.
    """

    def __init__(
        self, networks: Networks, *, local_threshold: float, normalise: bool = False
    ) -> None:
        self.networks = networks
        self.local_threshold = local_threshold
        self._normalise = normalise
        self._known_from: Window | None = None
        self._references: dict[tuple[int, int], tuple[Tensor, Side]] = {}

    def find_local_points(
        self, views: Sequence[View], supporting: Sequence[Sequence[View]]
    ) -> None:
        """Image to points: each view's own geometry, seen together with its supporting views.

        Views that share one sequence of supporting views share what is made of it.
        """
        sides: dict[int, Side] = {}
        for view, others in zip(views, supporting, strict=True):
            if id(others) not in sides:
                sides[id(others)] = self._sources(others)
            points, confidence = self.networks.i2p_reference(view.tokens, sides[id(others)])
            self._keep_local(view, points, confidence)

    def _sources(self, views: Sequence[View]) -> Side:
        """The views as sources of image-to-points; each is prepared once and then kept."""
        for view in views:
            if view.as_source is None:
                view.as_source = self.networks.i2p_sources(view.tokens[None])
        return join_views([view.as_source for view in views if view.as_source is not None])

    def _keep_local(
        self, view: View, points: Float[Tensor, "h w 3"], confidence: Float[Tensor, "h w"]
    ) -> None:
        valid = trusted(points, confidence, self.local_threshold)
        scaled = points / mean_distance(points, valid)
        view.local_points = torch.where(valid[..., None], scaled, 0.0)
        view.local_confidence = torch.nan_to_num(confidence, nan=0.0, posinf=0.0)

    def register(
        self,
        references: Sequence[View],
        sources: Sequence[View],
        anchor: Float64[np.ndarray, "4 4"] | None = None,
    ) -> None:
        """Local to world: give the sources points in the references' frame, and their scores.

        With `anchor` (`world_from_anchor`) the network sees the references from there, at unit
        mean distance as in its training, however far the scene has grown from its origin. What the
        references show is kept until they are seen from another window.
        """
        src_points = torch.stack([_known(view.local_points) for view in sources])
        if self._normalise:
            src_points = torch.stack([_unit_distance(points) for points in src_points])
        window = self._window_of(references, anchor)
        known = self._known_references(references, window)
        points, confidence = self.networks.l2w_sources(
            known, torch.stack([view.tokens for view in sources]), src_points
        )
        finite = torch.isfinite(points).all(dim=-1) & torch.isfinite(confidence)
        points = torch.where(finite[..., None], window.to_world(points), 0.0)
        confidence = torch.where(finite, confidence, 0.0)
        local = torch.stack([_known(view.local_confidence).mean() for view in sources])
        scores = torch.stack([confidence.mean(dim=(1, 2)), local]).tolist()  # the one wait
        for i, view in enumerate(sources):
            view.world_points, view.world_confidence = points[i], confidence[i]
            view.world_score, view.local_score = scores[0][i], scores[1][i]
            view.segment = references[0].segment

    def _window_of(
        self, references: Sequence[View], anchor: Float64[np.ndarray, "4 4"] | None
    ) -> Window:
        """The window of the last registration while it serves, else one around the references."""
        kept = self._known_from
        if kept is None or self._normalise or not kept.serves(references[0].segment, anchor):
            points = torch.stack([_known(view.world_points) for view in references])
            kept = Window.around(
                points, anchor, normalise=self._normalise, segment=references[0].segment
            )
            self._references.clear()
        self._known_from = kept
        return kept

    def _known_references(self, references: Sequence[View], window: Window) -> Side:
        """The references as the network knows them; those of late calls are not made again."""
        shown = [self._known_reference(view, window) for view in references]
        for key in list(self._references)[: -max(_KEPT_REFERENCES, len(references))]:
            del self._references[key]
        return join_views(shown)

    def _known_reference(self, view: View, window: Window) -> Side:
        points = _known(view.world_points)
        kept = self._references.pop((view.segment, view.index), None)
        if kept is None or kept[0] is not points:
            side = self.networks.l2w_references(view.tokens[None], window.from_world(points[None]))
            kept = (points, side)
        self._references[view.segment, view.index] = kept
        return kept[1]

    def serves(self, candidates: Sequence[View], queries: Sequence[View]) -> Float[Tensor, "v"]:
        """How well each candidate serves the queries, by the networks' own retrieval."""
        tokens = torch.stack([view.tokens for view in queries])
        return self.networks.retrieval_scores(tokens, self._sources(candidates))

    def retrieve(
        self, candidates: Sequence[View], queries: Sequence[View], count: int
    ) -> list[View]:
        """The `count` candidates that serve the queries best, best first.

        Not more candidates than that are all returned, in their order.
        """
        if count >= len(candidates):
            return list(candidates)
        scores = self.serves(candidates, queries)
        best = torch.argsort(scores, descending=True)[:count]
        return [candidates[i] for i in best.tolist()]


@dataclass(frozen=True, eq=False)
class Window:
    """The frame and unit in which a registration is computed."""

    unit: Float[Tensor, ""]
    world_from_anchor: Float[Tensor, "4 4"] | None
    segment: int = 0
    anchor: Float64[np.ndarray, "4 4"] | None = None
    reach: float = 0.0

    @staticmethod
    def around(
        ref_points: Float[Tensor, "r h w 3"],
        anchor: Float64[np.ndarray, "4 4"] | None,
        *,
        normalise: bool,
        segment: int = 0,
    ) -> Window:
        """The world itself; the world in another unit; or seen from `anchor` in a unit of its own.

        Without an anchor the unit counts the unknown points too, as the published pipeline does.
        """
        if anchor is None:
            everywhere = torch.ones_like(ref_points[..., 0], dtype=torch.bool)
            unit = mean_distance(ref_points, everywhere) if normalise else ref_points.new_ones(())
            return Window(unit, None, segment)
        pose = torch.as_tensor(anchor, dtype=ref_points.dtype, device=ref_points.device)
        distance = ref_points - pose[:3, 3]
        unit = mean_distance(distance, _is_known(ref_points))
        return Window(unit, pose, segment, anchor, _REACH * float(unit))

    def serves(self, segment: int, anchor: Float64[np.ndarray, "4 4"] | None) -> bool:
        """Whether references seen from `anchor` may as well be seen from here: it is close by."""
        if segment != self.segment or (anchor is None) != (self.anchor is None):
            return False
        if anchor is None or self.anchor is None:
            return True
        return float(np.linalg.norm(anchor[:3, 3] - self.anchor[:3, 3])) < self.reach

    def from_world(self, points: Float[Tensor, "r h w 3"]) -> Float[Tensor, "r h w 3"]:
        """Points as the network is shown them; unknown ones stay (0, 0, 0)."""
        if self.world_from_anchor is None:
            return points / self.unit
        rotation, position = self.world_from_anchor[:3, :3], self.world_from_anchor[:3, 3]
        moved = (points - position) @ (rotation / self.unit)
        return torch.where(_is_known(points)[..., None], moved, 0.0)

    def to_world(self, points: Float[Tensor, "k h w 3"]) -> Float[Tensor, "k h w 3"]:
        """Points as the network answered them, in the world."""
        if self.world_from_anchor is None:
            return points * self.unit
        rotation, position = self.world_from_anchor[:3, :3], self.world_from_anchor[:3, 3]
        return points * self.unit @ rotation.T + position


def _is_known(points: Float[Tensor, "*views h w 3"]) -> Bool[Tensor, "*views h w"]:
    return (points != 0).any(dim=-1)


def _known(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("a view without points cannot take part in a registration")
    return value


def _unit_distance(points: Float[Tensor, "h w 3"]) -> Float[Tensor, "h w 3"]:
    return points / mean_distance(points, torch.ones_like(points[..., 0], dtype=torch.bool))
