# SPDX-License-Identifier: Apache-2.0
"""The step from `scene` to `map`: once, when the scale is known well enough, and refined after.

Before it everything is in scene units and says so. At it every keyframe moves and grows at once.
After it positions from outside hold the pose graph as anchors, so that drift ends; it settles anew
when half as much again has been measured, when the newest positions lie off the map, and after a
minute, not at each fix, since every change is baked into the mesh. Where the positions say by then
that the map is tilted, it turns once more. Positions that come later, after a marker or a phone's
odometry gave the size, turn the map into their axes first: once their heading is known, and never
from GPS back to a phone's. Only what hangs on one connected part counts in a fit: a part that was
put beside it by a guess tells nothing of the map.
"""

from __future__ import annotations

import logging
import math
from collections import Counter

import numpy as np
from jaxtyping import Float64

from worldsystem_core.geometry.se3 import rotation_angle_rad
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.geometry.vertical import estimate_up
from worldsystem_core.reconstruction import MovedKeyframes, ScaleState
from worldsystem_core.sparing import Sparing
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
HEADING_KNOWN_RAD = 0.15
UP_KNOWN_RAD, UP_UNKNOWN_RAD = 0.1, 3.0
ROLL_GUESSED_RAD, NOD_GUESSED_RAD = 0.2, 0.4
"""Of cameras that all look the same way: nobody else says whether they are level, and they do not
say themselves how far they look up or down."""
TILT_KNOWN_RAD = 0.25
"""Less than the last: whoever flies sideways has to bend, or to turn the camera; straight ahead the
path itself tells how far the camera looks down."""
SIDEWAYS_SPREAD = 0.02
LEAST_UPRIGHT = 0.2
"""Where less of the pictures' up lies along the vertical, cameras look straight down or up, and do
not tell which of its ends is the upper one."""
TURNED_SIGMAS, TURNED_RAD = 4.0, 0.05
"""By more than both a fit has to turn a metric map for it to be done."""
DRIFTED_SIGMAS = 1.5
"""Of one position: so far off the map the newest together call for settling."""
ANCHORED_FOR_NS = 60_000_000_000


Vertical = tuple[Float64[np.ndarray, "3"], float, tuple[Float64[np.ndarray, "3"], float] | None]
"""`up`, `up_rad` and `nod` as `Measured` has them."""


class MetricRoot:
    """Moves the atlas to metres; `fit` is the newest `map_from_scene`, with its covariance.

    `settling` says how often a metric map may settle, which costs more the larger it is.
    """

    def __init__(
        self,
        atlas: Atlas,
        metric: MetricScale,
        believed_sigma: float,
        settling: Sparing | None = None,
    ) -> None:
        self._atlas = atlas
        self._metric = metric
        self._believed_sigma = believed_sigma
        self._settling = settling or Sparing(1.0)
        self._used, self._used_ns = 0, 0
        self._drift_left = 0.0
        self._rooted_by: set[int] = set()
        self._up_rad = UP_KNOWN_RAD
        self._step = Sim3.identity()
        self._map_from_scene = Sim3.identity()
        self.fit: MetricFit | None = None

    def update(self, *, last: bool = False) -> MovedKeyframes | None:
        """Look at what was measured since; tell what moved. `last`: use all that there is."""
        count = self._metric.sample_count
        self._used = min(self._used, count)  # where there are too many, every second one goes
        if not (count > self._used if last else self._is_worth_a_look(count)):
            return None
        self._used, self._used_ns = count, self._metric.newest_ns
        fit = self._believed()
        if self._is_held:
            if fit is not None and self._is_turned(fit):
                return self._rooted_anew(fit)
            return self._anchored()
        if fit is None:
            return None
        if self._atlas.scale is not ScaleState.METRIC:
            return self._become_metric(fit) if self._is_level(fit) else None
        if self._metric.has_positions:
            turns = self._in_other_axes and fit.heading_sigma_rad < HEADING_KNOWN_RAD
            return self._rooted(fit) if turns else None
        change = abs(float(np.log(fit.map_from_scene.scale)))
        return self._rooted(fit) if change > max(LEAST_CHANGE, fit.scale_sigma) else None

    def _is_worth_a_look(self, count: int) -> bool:
        """Whether enough was measured since; less of it will do where a metric map has drifted."""
        new = count - self._used
        if new < LEAST_NEW:
            return False
        if self._atlas.scale is not ScaleState.METRIC or self._in_other_axes:
            return new >= GROWTH_SCENE * self._used
        self._settling.wanted = new >= GROWTH_METRIC * self._used or (
            self._is_held and self._is_loose
        )
        return self._settling.is_due

    @property
    def _is_loose(self) -> bool:
        """Whether the map has gone without anchors for long, or lies off the newest positions by
        more than settling could not mend the last time."""
        if self._metric.newest_ns - self._used_ns >= ANCHORED_FOR_NS:
            return True
        return self._metric.drift_sigmas() > max(DRIFTED_SIGMAS, 2.0 * self._drift_left)

    @property
    def _is_held(self) -> bool:
        """Whether positions hold the map: it is metric and has their axes."""
        metric = self._atlas.scale is ScaleState.METRIC and self._metric.has_positions
        return metric and self._metric.axes == self._atlas.axes

    @property
    def _in_other_axes(self) -> bool:
        """Whether positions are told in axes that the map should have and has not."""
        axes = self._metric.axes
        return axes != self._atlas.axes and (axes == ENU or (axes != "" and not self._atlas.axes))

    def _believed(self) -> MetricFit | None:
        """The fit by all that is known, if it knows the scale well enough."""
        of = self._measured_part()
        up, up_rad, nod = self._up(of)
        fit = self._metric.fit(up, up_rad, nod=nod, size_sigma=self._size_sigma(), of=of)
        if fit is None:
            return None
        self._tell(fit)
        return fit if fit.scale_sigma < self._believed_sigma else None

    def _size_sigma(self) -> float:
        """How well the size is known of a metric map that was loaded, whose measurements were not
        saved; infinite for others."""
        held = self._atlas.graph.held_log_scale
        known = self._atlas.scale is ScaleState.METRIC and held < FREE_SIGMA
        return held if known else math.inf

    def _measured_part(self) -> set[int] | None:
        """The keyframes of what is to be fitted: what a loaded map is connected with, or the map
        as it became metric, or the part that most was measured of; None where that is all."""
        part_of = self._atlas.graph.parts()
        known = self._atlas.graph.restored | self._rooted_by
        parts = {part_of[key] for key in known if key in part_of}
        if not parts:
            counts: Counter[int] = Counter()
            for key, count in self._metric.count_on().items():
                if key in part_of:
                    counts[part_of[key]] += count
            parts = {part for part, _ in counts.most_common(1)}
        if parts.issuperset(part_of.values()):
            return None
        return {key for key, part in part_of.items() if part in parts}

    def taken_step(self) -> Sim3:
        """From the world of before the last update to the one after it; told once."""
        step, self._step = self._step, Sim3.identity()
        return step

    def _is_level(self, fit: MetricFit) -> bool:
        """Whether z of the map would be up, as far as positions tell: a straight path leaves the
        roll about itself to the cameras, and those that look straight down do not know it."""
        return not self._metric.has_positions or fit.tilt_sigma_rad < TILT_KNOWN_RAD

    def _is_turned(self, fit: MetricFit) -> bool:
        """Whether a map that became metric in this run lies otherwise, by what is known now."""
        turned = rotation_angle_rad(fit.map_from_scene.rotation) > TURNED_RAD
        return bool(self._rooted_by) and turned and fit.turn_sigmas > TURNED_SIGMAS

    def _become_metric(self, fit: MetricFit) -> MovedKeyframes | None:
        log.info(
            "the map is metric: one scene unit is %.3g m ± %.1f %% (%s; clocks differ by %.2f s)",
            fit.map_from_scene.scale,
            100.0 * fit.scale_sigma,
            ", ".join(self._metric.sources),
            fit.clock_s,
        )
        self._atlas.scale = ScaleState.METRIC
        part = self._measured_part()
        self._rooted_by = set(self._atlas.graph.nodes) if part is None else part
        return self._rooted(fit)

    def _rooted_anew(self, fit: MetricFit) -> MovedKeyframes | None:
        turned_deg = math.degrees(rotation_angle_rad(fit.map_from_scene.rotation))
        log.warning("the map lay %.0f° off the positions measured since: turned", turned_deg)
        self._used = 0  # it settles with the next keyframe
        return self._rooted(fit)

    def _rooted(self, fit: MetricFit) -> MovedKeyframes | None:
        self._step = fit.map_from_scene
        self._map_from_scene = fit.map_from_scene @ self._map_from_scene
        self._up_rad = max(UP_KNOWN_RAD, fit.tilt_sigma_rad)
        self._atlas.transform(fit.map_from_scene)
        self._atlas.graph.anchors = {}  # they lie in the old axes
        self._atlas.graph.sizes = {}  # and these are in the old unit
        if self._metric.axes and fit.heading_sigma_rad < HEADING_KNOWN_RAD:
            self._atlas.axes = self._metric.axes
            if self._atlas.axes == ENU:
                self._metric.keep_origin()
        return self._atlas.changed(everything=True)

    def _anchored(self) -> MovedKeyframes | None:
        with self._settling.work():
            self._atlas.graph.anchors = {
                key: anchor
                for key, anchor in self._metric.anchors().items()
                if key in self._atlas.graph.nodes
            }
            self._atlas.graph.sizes |= self._known_sizes()
            self._atlas.optimise()
        self._drift_left = self._metric.drift_sigmas()
        return self._atlas.changed()

    def _known_sizes(self) -> dict[int, tuple[float, float]]:
        """Of the part that was fitted, by what tells lengths: positions alone would undo it."""
        if self._metric.size is None:
            return {}
        log_scale, sigma = self._metric.size
        nodes, part = self._atlas.graph.nodes, self._measured_part()
        of = nodes.keys() if part is None else part
        return {key: (math.exp(log_scale) * nodes[key].scale, sigma) for key in of}

    def _tell(self, fit: MetricFit) -> None:
        """Keep the fit as from the scene as it was born, whatever the world is now."""
        self.fit = MetricFit(
            fit.map_from_scene @ self._map_from_scene, fit.covariance, fit.clock_s, fit.residual_m
        )

    def _up(self, of: set[int] | None) -> Vertical:
        """The world's vertical and how well it is known: z of a map, else from its cameras."""
        if self._atlas.scale is ScaleState.METRIC:
            return np.array([0.0, 0.0, 1.0]), self._up_rad, None
        stacked = np.array(
            [
                kept.world.pose
                for kept in self._atlas.keyframes.values()
                if self._atlas.is_placed(kept.submap) and (of is None or kept.id in of)
            ]
        ).reshape(-1, 4, 4)
        up = estimate_up(stacked)
        if len(stacked) and abs(up @ stacked[:, :3, 1].mean(axis=0)) < LEAST_UPRIGHT:
            return up, UP_UNKNOWN_RAD, None
        right = stacked[:, :3, 0]
        spread = np.linalg.eigvalsh(right.T @ right / max(len(right), 1))[1]
        if spread > SIDEWAYS_SPREAD:
            return up, UP_KNOWN_RAD, None
        return up, ROLL_GUESSED_RAD, (right.sum(axis=0), NOD_GUESSED_RAD)
