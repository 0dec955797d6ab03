# SPDX-License-Identifier: Apache-2.0
"""The step from `scene` to `map`: once, when the scale is known well enough, and refined after.

Before it everything is in scene units and says so. At it every keyframe moves and grows at once.
After it positions from outside hold the pose graph as anchors, so that drift ends; it settles anew
whenever half as much again has been measured, not at each fix, since every change is baked into the
mesh. Positions that come later, after a marker or a phone's odometry gave the size, turn the map
into their axes first: once their heading is known, and never from GPS back to a phone's.
"""

from __future__ import annotations

import logging
import math

import numpy as np
from jaxtyping import Float64

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.geometry.vertical import estimate_up
from worldsystem_core.reconstruction import MovedKeyframes, ScaleState
from worldsystem_slam3r.graph.atlas import Atlas
from worldsystem_slam3r.graph.pose_graph import FREE_SIGMA
from worldsystem_slam3r.scale.enu import ENU
from worldsystem_slam3r.scale.fit import MetricFit
from worldsystem_slam3r.scale.metric import MetricScale

log = logging.getLogger(__name__)

LEAST_NEW = 5
GROWTH_SCENE = 0.2
GROWTH_METRIC = 0.5
LEAST_CHANGE = 0.01
HEADING_KNOWN_RAD = 0.1
UP_KNOWN_RAD, UP_GUESSED_RAD = 0.1, 0.4
SIDEWAYS_SPREAD = 0.02


class MetricRoot:
    """Moves the atlas to metres; `fit` is the newest `map_from_scene`, with its covariance."""

    def __init__(self, atlas: Atlas, metric: MetricScale, believed_sigma: float) -> None:
        self._atlas = atlas
        self._metric = metric
        self._believed_sigma = believed_sigma
        self._used = 0
        self._step = Sim3.identity()
        self._map_from_scene = Sim3.identity()
        self.fit: MetricFit | None = None

    def update(self, *, last: bool = False) -> MovedKeyframes | None:
        """Look at what was measured since; tell what moved. `last`: use all that there is."""
        count = self._metric.sample_count
        self._used = min(self._used, count)  # where there are too many, every second one goes
        if not count or count - self._used < (1 if last else self._wanted()):
            return None
        self._used = count
        up, up_rad = self._up()
        fit = self._metric.fit(up, up_rad, size_sigma=self._size_sigma())
        if fit is None:
            return None
        self._tell(fit)
        if fit.scale_sigma >= self._believed_sigma:
            return None
        if self._atlas.scale is not ScaleState.METRIC:
            return self._become_metric(fit)
        if self._metric.has_positions:
            return self._by_positions(fit)
        change = abs(float(np.log(fit.map_from_scene.scale)))
        return self._rooted(fit) if change > max(LEAST_CHANGE, fit.scale_sigma) else None

    def _wanted(self) -> float:
        """How many new measurements are worth a look."""
        settled = self._atlas.scale is ScaleState.METRIC and not self._in_other_axes
        return max(LEAST_NEW, (GROWTH_METRIC if settled else GROWTH_SCENE) * self._used)

    @property
    def _in_other_axes(self) -> bool:
        """Whether positions are told in axes that the map should have and has not."""
        axes = self._metric.axes
        return axes != self._atlas.axes and (axes == ENU or (axes != "" and not self._atlas.axes))

    def _by_positions(self, fit: MetricFit) -> MovedKeyframes | None:
        """Hold the map by them where it has their axes; turn it into those where it should."""
        if self._metric.axes == self._atlas.axes:
            return self._anchored()
        turns = self._in_other_axes and fit.heading_sigma_rad < HEADING_KNOWN_RAD
        return self._rooted(fit) if turns and self._measures_the_map() else None

    def _size_sigma(self) -> float:
        """How well the size is known of a metric map that was loaded, whose measurements were not
        saved; infinite for others."""
        held = self._atlas.graph.held_log_scale
        known = self._atlas.scale is ScaleState.METRIC and held < FREE_SIGMA
        return held if known else math.inf

    def _measures_the_map(self) -> bool:
        """Whether positions hang on what the loaded map is connected with. A part of this session
        may lie beside it by a guess: that tells nothing of the map."""
        graph = self._atlas.graph
        part_of = graph.parts()
        of_map = {part_of[key] for key in graph.restored if key in part_of}
        on = {part_of[key] for key in self._metric.positions_on if key in part_of}
        return not of_map or bool(of_map & on)

    def moved(self, world_from_cam: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
        """A pose of before the last update, after it."""
        pose, self._step = self._step.apply_pose(world_from_cam), Sim3.identity()
        return pose

    def _become_metric(self, fit: MetricFit) -> MovedKeyframes | None:
        log.info(
            "the map is metric: one scene unit is %.3g m ± %.1f %% (%s; clocks differ by %.2f s)",
            fit.map_from_scene.scale,
            100.0 * fit.scale_sigma,
            ", ".join(self._metric.sources),
            fit.clock_s,
        )
        self._atlas.scale = ScaleState.METRIC
        return self._rooted(fit)

    def _rooted(self, fit: MetricFit) -> MovedKeyframes | None:
        self._step = fit.map_from_scene
        self._map_from_scene = fit.map_from_scene @ self._map_from_scene
        self._atlas.transform(fit.map_from_scene)
        self._atlas.graph.anchors = {}  # they lie in the old axes
        if self._metric.axes and fit.heading_sigma_rad < HEADING_KNOWN_RAD:
            self._atlas.axes = self._metric.axes
        return self._atlas.changed(everything=True)

    def _anchored(self) -> MovedKeyframes | None:
        self._atlas.graph.anchors = {
            key: anchor
            for key, anchor in self._metric.anchors().items()
            if key in self._atlas.graph.nodes
        }
        self._atlas.optimise()
        return self._atlas.changed()

    def _tell(self, fit: MetricFit) -> None:
        """Keep the fit as from the scene as it was born, whatever the world is now."""
        self.fit = MetricFit(
            fit.map_from_scene @ self._map_from_scene, fit.covariance, fit.clock_s, fit.residual_m
        )

    def _up(self) -> tuple[Float64[np.ndarray, "3"], float]:
        """The world's vertical and how well it is known: z of a map, else from the cameras."""
        if self._atlas.scale is ScaleState.METRIC:
            return np.array([0.0, 0.0, 1.0]), UP_KNOWN_RAD
        poses = [k.world.pose for k in self._atlas.keyframes.values() if self._is_placed(k.submap)]
        stacked = np.array(poses).reshape(-1, 4, 4)
        right = stacked[:, :3, 0]
        spread = np.linalg.eigvalsh(right.T @ right / max(len(right), 1))[1]
        return estimate_up(stacked), UP_KNOWN_RAD if spread > SIDEWAYS_SPREAD else UP_GUESSED_RAD

    def _is_placed(self, submap: int) -> bool:
        return self._atlas.is_placed(submap)
