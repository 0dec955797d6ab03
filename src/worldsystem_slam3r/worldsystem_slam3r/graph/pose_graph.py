# SPDX-License-Identifier: Apache-2.0
"""Keyframes as nodes of Sim(3), odometry and loops as edges, solved by GTSAM.

Monocular odometry drifts in scale too, so a node is a similarity (Strasdat, Montiel, Davison,
"Scale drift-aware large scale monocular SLAM", RSS 2010). An ordinary least-squares solve comes
first; when a loop disagrees with it, graduated non-convexity decides which loops to believe (Yang,
Antonante, Tzoumas, Carlone, IEEE RA-L 5(2), 2020).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import gtsam
import numpy as np
from jaxtyping import Float64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from worldsystem_core.geometry.sim3 import Sim3

GAUGE_SIGMA = 1e-6
FREE_SIGMA = 1e3
WEAK_TURN_RAD = 0.1
GUESSED_LOG_SCALE = 1.0
"""Of a part whose size only positions tell: a factor of e about what it was when they came. By
those that are metres off, one that hardly moved would become any size."""
DISAGREES = 4.0
"""Root mean square of an edge's seven weighted residuals above which it disagrees."""
MAX_ITERATIONS = 60
RELATIVE_TOLERANCE = 1e-6
BELIEVED = 0.5


@dataclass(frozen=True, eq=False)
class Edge:
    """A measured `a_from_b` between keyframes, each in its own unit.

    Standard deviations: turn [rad], shift [units of b], natural logarithm of the scale.
    """

    a: int
    b: int
    a_from_b: Sim3
    turn_rad: float
    shift: float
    log_scale: float
    is_loop: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """The two ends, in order."""
        return (self.a, self.b)

    @cached_property
    def factor(self) -> gtsam.BetweenFactorSimilarity3:
        """As GTSAM takes it: made once, since the graph settles many times with the same edges."""
        sigmas = np.repeat([self.turn_rad, self.shift, self.log_scale], [3, 3, 1])
        noise = gtsam.noiseModel.Diagonal.Sigmas(sigmas)
        return gtsam.BetweenFactorSimilarity3(self.a, self.b, _similarity(self.a_from_b), noise)


@dataclass(frozen=True, eq=False)
class Anchor:
    """Where a node lies in the world, measured from outside (GPS), with its covariance."""

    position: Float64[np.ndarray, "3"]
    covariance: Float64[np.ndarray, "3 3"]


@dataclass(frozen=True)
class Solution:
    """What a solve did: the loops it does not believe, and the root mean square residual."""

    rejected: tuple[tuple[int, int], ...]
    residual: float


class PoseGraph:
    """The nodes' similarities `world_from_node`, and what was measured between them.

    Each connected part keeps its oldest node where it is, unless anchors hold the part; then that
    node, where it is one of those `restored` from a map, keeps its turn and size as firmly as
    `held_turn_rad` and `held_log_scale` say, and any other its size as `sizes` does.
    """

    def __init__(self) -> None:
        self.nodes: dict[int, Sim3] = {}
        self.edges: dict[tuple[int, int], Edge] = {}
        self.anchors: dict[int, Anchor] = {}
        self.held_turn_rad, self.held_log_scale = WEAK_TURN_RAD, FREE_SIGMA
        self.restored: set[int] = set()
        self.sizes: dict[int, tuple[float, float]] = {}
        """By node, its scale as far as it is known, and the standard deviation of the logarithm."""

    @property
    def loops(self) -> list[Edge]:
        """The edges that are not odometry."""
        return [edge for edge in self.edges.values() if edge.is_loop]

    def add_node(self, id: int, world_from_node: Sim3) -> None:
        """A new keyframe, or a new place of one that is there."""
        self.nodes[id] = world_from_node

    def add_edge(self, edge: Edge) -> None:
        """A measurement; one between the same two takes the place of the older."""
        if edge.a not in self.nodes or edge.b not in self.nodes:
            raise ValueError(f"edge {edge.key}: both nodes must be in the graph")
        self.edges[edge.key] = edge

    def remove_node(self, id: int) -> None:
        """Take a keyframe out; odometry goes on between its neighbours."""
        touching = [edge for edge in self.edges.values() if id in edge.key]
        before = [e for e in touching if e.b == id and not e.is_loop]
        after = [e for e in touching if e.a == id and not e.is_loop]
        for edge in touching:
            del self.edges[edge.key]
        if before and after and (before[0].a, after[0].b) not in self.edges:
            self.add_edge(_joined(before[0], after[0]))
        del self.nodes[id]
        self.anchors.pop(id, None)
        self.sizes.pop(id, None)

    def contract(self, otherwise: Edge) -> None:
        """Give node `b` what is known of how `a` lies to the rest, where it has no edge of its
        own, and what was measured of its place. Without an edge between the two this one is taken
        for it.

        Node `a` stays, but keeps that edge alone: what it was given on is not to count twice.
        """
        old, heir = otherwise.key
        old_from_heir = self.edges.get((old, heir), otherwise)
        if (heir, old) in self.edges:
            old_from_heir = _reversed(self.edges[heir, old])
        for edge in [e for e in self.edges.values() if old in e.key and heir not in e.key]:
            own = edge if edge.b == old else _reversed(edge)
            if (own.a, heir) not in self.edges and (heir, own.a) not in self.edges:
                self.add_edge(replace(_joined(own, old_from_heir), is_loop=True))
            del self.edges[edge.key]
        self._give_anchor(old, heir)

    def _give_anchor(self, old: int, heir: int) -> None:
        """What says where one lies says where the other does, as far beside it as it is now.

        Else the few anchors that are left would decide how large the map is.
        """
        given = self.anchors.pop(old, None)
        if given is None:
            return
        step = self.nodes[heir].translation - self.nodes[old].translation
        moved = replace(given, position=given.position + step)
        own = self.anchors.get(heir)
        self.anchors[heir] = moved if own is None else _combined(own, moved)

    def neighbours(self, ids: Iterable[int], steps: int) -> set[int]:
        """`ids` and all nodes up to `steps` edges away."""
        found, rim = set(ids), set(ids)
        for _ in range(steps):
            rim = {
                other
                for edge in self.edges.values()
                for end, other in (edge.key, edge.key[::-1])
                if end in rim
            } - found
            found |= rim
        return found

    def parts(self) -> dict[int, int]:
        """The number of the connected part that each node belongs to."""
        ids = list(self.nodes)
        row = {key: i for i, key in enumerate(ids)}
        a = [row[edge.a] for edge in self.edges.values()]
        b = [row[edge.b] for edge in self.edges.values()]
        links = coo_array((np.ones(len(a)), (a, b)), shape=(len(ids), len(ids)))
        _, label = connected_components(links, directed=False)
        return dict(zip(ids, label.tolist(), strict=True))

    def oldest(self) -> set[int]:
        """The nodes by which the parts are held."""
        return set(self._oldest())

    def optimise(self) -> Solution:
        """Move the nodes to where they agree best with the edges; drop loops that do not fit."""
        if not self.edges:
            return Solution((), 0.0)
        graph, loop_rows = self._factors()
        start = _values(self.nodes)
        result = gtsam.LevenbergMarquardtOptimizer(graph, start, _settings()).optimize()
        rejected: tuple[tuple[int, int], ...] = ()
        if loop_rows and self._disagree(graph, result):
            rejected = self._unbelieved(graph, loop_rows, start)
            for key in rejected:
                del self.edges[key]
            graph, _ = self._factors()
            result = gtsam.LevenbergMarquardtOptimizer(graph, start, _settings()).optimize()
        self.nodes = {key: _sim3(result.atSimilarity3(key)) for key in self.nodes}
        residual = np.sqrt(2.0 * graph.error(result) / (7.0 * graph.size()))
        return Solution(rejected, float(residual))

    def _disagree(self, graph: gtsam.NonlinearFactorGraph, values: gtsam.Values) -> bool:
        worst = max(graph.at(i).error(values) for i in range(len(self.edges)))
        return bool(np.sqrt(2.0 * worst / 7.0) > DISAGREES)

    def _unbelieved(
        self,
        graph: gtsam.NonlinearFactorGraph,
        loop_rows: dict[int, tuple[int, int]],
        start: gtsam.Values,
    ) -> tuple[tuple[int, int], ...]:
        settings = gtsam.GncLMParams(_settings())
        settings.setKnownInliers([i for i in range(graph.size()) if i not in loop_rows])
        solver = gtsam.GncLMOptimizer(graph, start, settings)
        solver.optimize()
        weights = solver.getWeights()
        return tuple(key for row, key in loop_rows.items() if weights[row] < BELIEVED)

    def _factors(self) -> tuple[gtsam.NonlinearFactorGraph, dict[int, tuple[int, int]]]:
        """All measurements (edges first, in their order), and the rows that are loops."""
        graph, loop_rows = gtsam.NonlinearFactorGraph(), {}
        for row, edge in enumerate(self.edges.values()):
            graph.add(edge.factor)
            if edge.is_loop:
                loop_rows[row] = edge.key
        for node, anchor in self.anchors.items():
            graph.add(self._anchor_factor(node, anchor))
        for node, (place, sigmas) in self._held().items():
            noise = gtsam.noiseModel.Diagonal.Sigmas(sigmas)
            graph.add(gtsam.PriorFactorSimilarity3(node, _similarity(place), noise))
        return graph, loop_rows

    def _anchor_factor(self, id: int, anchor: Anchor) -> gtsam.PriorFactorSimilarity3:
        """A prior on the position alone; the node's own axes and unit are those of its error."""
        node = self.nodes[id]
        covariance = np.diag(np.full(7, FREE_SIGMA**2))
        turned = node.rotation.T @ anchor.covariance @ node.rotation
        covariance[3:6, 3:6] = turned / node.scale**2
        noise = gtsam.noiseModel.Gaussian.Covariance(covariance)
        place = replace(node, translation=anchor.position)
        return gtsam.PriorFactorSimilarity3(id, _similarity(place), noise)

    def _held(self) -> dict[int, tuple[Sim3, Float64[np.ndarray, "7"]]]:
        """The oldest node of each part, where it is held, and how firmly.

        Anchors hold their part; its turn stays weakly held, as those on one line leave it open, and
        so does its size, which those in one place do not tell.
        """
        held = {}
        for node, anchors in self._oldest().items():
            place, sigmas = self.nodes[node], np.full(7, GAUGE_SIGMA)
            if anchors >= 3 and node in self.restored:
                sigmas = np.repeat([self.held_turn_rad, FREE_SIGMA, self.held_log_scale], [3, 3, 1])
            elif anchors >= 3:
                scale, log_scale = self.sizes.setdefault(node, (place.scale, GUESSED_LOG_SCALE))
                place = replace(place, scale=scale)
                sigmas = np.repeat([WEAK_TURN_RAD, FREE_SIGMA, log_scale], [3, 3, 1])
            held[node] = place, sigmas
        return held

    def _oldest(self) -> dict[int, int]:
        """The oldest node of each part, and how many nodes of the part have an anchor."""
        oldest: dict[int, int] = {}
        anchored: dict[int, int] = {}
        for node, part in self.parts().items():
            oldest[part] = min(node, oldest.get(part, node))
            anchored[part] = anchored.get(part, 0) + (node in self.anchors)
        return {node: anchored[part] for part, node in oldest.items()}


def _combined(a: Anchor, b: Anchor) -> Anchor:
    """Both measurements of one place, each weighed by its covariance."""
    share_of_a = b.covariance @ np.linalg.inv(a.covariance + b.covariance)
    position = b.position + share_of_a @ (a.position - b.position)
    return Anchor(position, share_of_a @ a.covariance)


def _joined(first: Edge, second: Edge) -> Edge:
    unit = 1.0 / second.a_from_b.scale
    return Edge(
        first.a,
        second.b,
        first.a_from_b @ second.a_from_b,
        float(np.hypot(first.turn_rad, second.turn_rad)),
        float(np.hypot(first.shift * unit, second.shift)),
        float(np.hypot(first.log_scale, second.log_scale)),
    )


def _reversed(edge: Edge) -> Edge:
    unit = edge.a_from_b.scale
    turned = edge.a_from_b.inverse()
    return replace(edge, a=edge.b, b=edge.a, a_from_b=turned, shift=edge.shift * unit)


def _settings() -> gtsam.LevenbergMarquardtParams:
    settings = gtsam.LevenbergMarquardtParams()
    settings.setMaxIterations(MAX_ITERATIONS)
    settings.setRelativeErrorTol(RELATIVE_TOLERANCE)
    return settings


def _similarity(transform: Sim3) -> gtsam.Similarity3:
    """GTSAM's map is s (R p + t), ours s R p + t."""
    rotation, scale = gtsam.Rot3(transform.rotation), transform.scale
    return gtsam.Similarity3(rotation, transform.translation / scale, scale)


def _sim3(similarity: gtsam.Similarity3) -> Sim3:
    scale = float(similarity.scale())
    return Sim3(scale, similarity.rotation().matrix(), scale * similarity.translation())


def _values(nodes: dict[int, Sim3]) -> gtsam.Values:
    values = gtsam.Values()
    for key, node in nodes.items():
        values.insert(key, _similarity(node))
    return values
