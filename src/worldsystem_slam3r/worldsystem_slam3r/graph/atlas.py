# SPDX-License-Identifier: Apache-2.0
"""Where every keyframe lies: as the back-end told it, and as the graph has corrected it.

A back-end's poses are rigid and share one gauge (origin, axes, unit) within a sub-map. Here each
keyframe has a similarity `world_from_keyframe`, whose scale is the size of the keyframe's unit.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from worldsystem_core.geometry.se3 import inverse, rotation_angle_rad, rotation_angles_rad
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.geometry.vertical import estimate_up
from worldsystem_core.reconstruction import Keyframe, MovedKeyframes, Pose, ScaleState
from worldsystem_slam3r.graph.pose_graph import Edge, PoseGraph, Solution
from worldsystem_slam3r.graph.verify import Link, Station, coarse_depth, median_depth

ODOMETRY_TURN_RAD = 0.002
ODOMETRY_SHIFT_STEPS = 0.005
ODOMETRY_SHIFT_DEPTHS = 0.002
ODOMETRY_LOG_SCALE = 0.003
WORTH_DEPTHS = 0.006
WORTH_RAD = np.deg2rad(0.2)
WORTH_LOG_SCALE = 0.006
"""A link off by less than these does not make the graph settle anew."""
TOLD_DEPTHS = 0.003
TOLD_RAD = np.deg2rad(0.15)
TOLD_LOG_SCALE = 0.003


@dataclass(eq=False, kw_only=True)
class Kept:
    """What the atlas keeps of a keyframe.

    `submap_from_cam` is what the back-end says, `world` the similarity from the keyframe's frame
    and unit to the world. `told` is what `world` was when it was last told, `first_unit` the size
    of the unit in which its pointmap was told; `stem` begins the names of its files in a saved map.
    One from a saved map `is_told` only once this process has told it: who knows it from another
    has it in the unit of then.
    """

    id: int
    frame_id: int
    stamp_ns: int
    submap: int
    submap_from_cam: Float64[np.ndarray, "4 4"]
    world: Sim3
    told: Sim3
    first_unit: float
    depth: float
    stem: str = ""
    is_told: bool = True
    station: Station | None = None

    @property
    def world_from_submap(self) -> Sim3:
        """The correction at this keyframe."""
        return self.world @ Sim3.from_pose(inverse(self.submap_from_cam))

    @property
    def point_scale(self) -> float:
        """Factor from its pointmap as first told to the one of now."""
        return self.world.scale / self.first_unit


class Atlas:
    """Keyframes, sub-maps and the graph between them.

    `axes` are those of positions that were measured (`scale.enu`), empty where none turned the
    world into theirs. `on_rejected` is called with the ends of each loop that settling drops.
    """

    def __init__(self) -> None:
        self.keyframes: dict[int, Kept] = {}
        self.graph = PoseGraph()
        self.scale = ScaleState.SCENE
        self.axes = ""
        self.on_rejected: Callable[[tuple[int, int]], None] = lambda key: None
        self.newest: dict[int, int] = {}
        self.corrections = 0  # that were told
        self._placed: dict[int, Sim3] = {}
        self._session = secrets.token_hex(4)

    @property
    def has_begun(self) -> bool:
        """Whether anything was told in this world."""
        return bool(self.keyframes or self._placed)

    def is_placed(self, submap: int) -> bool:
        """Whether it is known where the sub-map lies."""
        return submap in self._placed

    def place(self, submap: int, world_from_submap: Sim3) -> None:
        """Say where a sub-map lies; keyframes of it that are there go along."""
        self._placed[submap] = world_from_submap
        for kept in self.keyframes.values():
            if kept.submap == submap:
                kept.world = world_from_submap @ Sim3.from_pose(kept.submap_from_cam)
                kept.told, kept.first_unit = kept.world, kept.world.scale
                self.graph.add_node(kept.id, kept.world)

    def mark_placed(self, submap: int) -> None:
        """The sub-map's keyframes are where they belong."""
        self._placed[submap] = self.correction(submap)

    def correction(self, submap: int, keyframe_id: int = -1) -> Sim3:
        """`world_from_submap` at a keyframe, or at the newest one where that is not known."""
        kept = self.keyframes.get(keyframe_id)
        if kept is None or kept.submap != submap:
            kept = self.keyframes.get(self.newest.get(submap, -1))
        if kept is not None:
            return kept.world_from_submap
        return self._placed.get(submap, Sim3.identity())

    def likely_unit(self, submap: int) -> float:
        """Size of a sub-map's unit if it begins as far from what it sees as the newest placed
        keyframe was; 1 where that is not known."""
        own = [k for k in self.keyframes.values() if k.submap == submap]
        others = [k for k in self.keyframes.values() if self.is_placed(k.submap)]
        if not own or not others:
            return 1.0
        newest = max(others, key=lambda kept: kept.id)
        return newest.depth * newest.world.scale / own[0].depth

    def newest_pose(self) -> Float64[np.ndarray, "4 4"]:
        """Of the newest placed keyframe, `world_from_cam`; the root's own without any."""
        placed = [k for k in self.keyframes.values() if self.is_placed(k.submap)]
        return max(placed, key=lambda kept: kept.id).world.pose if placed else np.eye(4)

    def levelled(self, submap: int, world_from_submap: Sim3) -> Sim3:
        """A guessed place of a sub-map, turned about its first camera so that the cameras of both
        have the same vertical; that of a metric map is z."""
        own = [k.submap_from_cam for k in self.keyframes.values() if k.submap == submap]
        known = [k.world.pose for k in self.keyframes.values() if self.is_placed(k.submap)]
        if not own:
            return world_from_submap
        is_metric = self.scale is ScaleState.METRIC
        up = np.array([0.0, 0.0, 1.0]) if is_metric else estimate_up(np.array(known))
        now = world_from_submap.rotation @ estimate_up(np.array(own))
        turn, _ = Rotation.align_vectors([up], [now])
        rotation = np.asarray(turn.as_matrix())
        pivot = world_from_submap.apply(own[0][:3, 3])
        return Sim3(1.0, rotation, pivot - rotation @ pivot) @ world_from_submap

    def add(self, keyframe: Keyframe) -> Kept:
        """Take a keyframe as the back-end tells it; it follows the one before it.

        It has no station yet: to look at it closely takes longer than its news may wait.
        """
        correction = self.correction(keyframe.submap)
        world = correction @ Sim3.from_pose(keyframe.world_from_cam)
        kept = Kept(
            id=keyframe.id,
            frame_id=keyframe.frame_id,
            stamp_ns=keyframe.stamp_ns,
            submap=keyframe.submap,
            submap_from_cam=np.array(keyframe.world_from_cam),
            world=world,
            told=world,
            first_unit=world.scale,
            depth=median_depth(coarse_depth(keyframe)),
            stem=f"{keyframe.id:06d}-{self._session}",
        )
        before = self.keyframes.get(self.newest.get(keyframe.submap, -1))
        self.adopt(kept)
        self.newest[keyframe.submap] = kept.id
        if before is not None:
            self.graph.add_edge(_odometry(before, kept))
        return kept

    def adopt(self, kept: Kept) -> None:
        """Take a keyframe as it is, without odometry."""
        self.keyframes[kept.id] = kept
        self.graph.add_node(kept.id, kept.world)

    def move(self, submap_from_cam: dict[int, Float64[np.ndarray, "4 4"]]) -> None:
        """The back-end has refined keyframes: their corrections stay, their odometry is new."""
        for key, pose in submap_from_cam.items():
            kept = self.keyframes.get(key)
            if kept is None:
                continue
            correction = kept.world_from_submap
            kept.submap_from_cam = np.array(pose)
            kept.world = correction @ Sim3.from_pose(kept.submap_from_cam)
            self.graph.add_node(key, kept.world)
        for edge in list(self.graph.edges.values()):
            if not edge.is_loop and (edge.a in submap_from_cam or edge.b in submap_from_cam):
                a, b = self.keyframes[edge.a], self.keyframes[edge.b]
                if a.submap == b.submap:
                    self.graph.add_edge(_odometry(a, b))

    def remove(self, id: int) -> None:
        """The back-end has withdrawn a keyframe."""
        kept = self.keyframes.pop(id, None)
        if kept is None:
            return
        self.graph.remove_node(id)
        if self.newest.get(kept.submap) == id:
            others = [k.id for k in self.keyframes.values() if k.submap == kept.submap]
            self.newest.pop(kept.submap)
            if others:
                self.newest[kept.submap] = max(others)
            elif self.is_placed(kept.submap):  # the same pictures may be told again, elsewhere
                self._placed[kept.submap] = kept.world_from_submap

    def link(self, link: Link) -> None:
        """Two keyframes were found to show the same place."""
        self.graph.add_edge(
            Edge(
                link.a,
                link.b,
                link.a_from_b,
                link.turn_rad,
                link.shift,
                link.log_scale,
                is_loop=True,
            )
        )

    def join(self, link: Link) -> bool:
        """As `link`; where nothing joined the two before, the newer part goes where it says.

        Returns whether that was so: such a part was told where the camera was last seen.
        """
        part = self.graph.parts()
        apart = part[link.a] != part[link.b]
        if apart:
            self._meet(link, part)
        self.link(link)
        return apart

    def _meet(self, link: Link, part: dict[int, int]) -> None:
        a, b = self.keyframes[link.a].world, self.keyframes[link.b].world
        oldest_a, oldest_b = (
            min(key for key, own in part.items() if own == part[end]) for end in (link.a, link.b)
        )
        moving, step = part[link.b], a @ link.a_from_b @ b.inverse()
        if oldest_a > oldest_b:
            moving, step = part[link.a], step.inverse()
        for kept in self.keyframes.values():
            if part[kept.id] == moving:
                kept.world = step @ kept.world
                self.graph.add_node(kept.id, kept.world)

    def misfit(self, link: Link) -> float:
        """How far a link is from the present places, in its tolerable deviations."""
        now = self.keyframes[link.a].world.inverse() @ self.keyframes[link.b].world
        depth = self.keyframes[link.b].depth
        off = link.a_from_b.inverse() @ now
        shift = float(np.linalg.norm(off.translation)) / (WORTH_DEPTHS * depth)
        turn = rotation_angle_rad(off.rotation) / float(WORTH_RAD)
        return max(shift, turn, abs(float(np.log(off.scale))) / WORTH_LOG_SCALE)

    def optimise(self) -> Solution:
        """Let the graph settle and take its poses over."""
        solution = self.graph.optimise()
        for key, world in self.graph.nodes.items():
            self.keyframes[key].world = world
        for rejected in solution.rejected:
            self.on_rejected(rejected)
        return solution

    def transform(self, new_from_old: Sim3) -> None:
        """The root changes: everything is where it was, seen from the new one."""
        for kept in self.keyframes.values():
            kept.world = new_from_old @ kept.world
            self.graph.add_node(kept.id, kept.world)
        self._placed = {submap: new_from_old @ place for submap, place in self._placed.items()}

    def changed(self, *, everything: bool = False) -> MovedKeyframes | None:
        """The placed keyframes that lie noticeably elsewhere than was told; they count as told."""
        placed = [kept for kept in self.keyframes.values() if self.is_placed(kept.submap)]
        poses, scales = {}, {}
        for kept in placed if everything else _noticeable(placed):
            kept.told = kept.world
            poses[kept.id] = kept.world.pose
            if kept.is_told:
                scales[kept.id] = kept.point_scale
        if not poses:
            return None
        self.corrections += 1
        return MovedKeyframes(poses, scales, self.scale if everything else None)

    def told_keyframe(self, keyframe: Keyframe) -> Keyframe:
        """The keyframe as it goes out: in the world, its points and splats in world units."""
        kept = self.keyframes[keyframe.id]
        kept.told, kept.first_unit = kept.world, kept.world.scale
        told = replace(keyframe, world_from_cam=kept.world.pose, scale=self.scale)
        return _grown(told, kept.world.scale)

    def told_again(self, keyframe: Keyframe) -> Keyframe:
        """A keyframe of a loaded map, whose points are in world units as of loading."""
        kept = self.keyframes[keyframe.id]
        ratio = kept.world.scale / kept.first_unit
        kept.told, kept.first_unit, kept.is_told = kept.world, kept.world.scale, True
        told = replace(
            keyframe, world_from_cam=kept.world.pose, scale=self.scale, submap=kept.submap
        )
        return _grown(told, ratio)

    def told_pose(self, pose: Pose) -> Pose:
        """The pose as it goes out: moved like the keyframe that it hangs on."""
        correction = self.correction(pose.submap, pose.keyframe_id)
        covariance = pose.covariance
        if covariance is not None:
            turn = np.kron(np.eye(2), correction.rotation)
            turn[:3] *= correction.scale
            covariance = turn @ covariance @ turn.T
        return replace(
            pose,
            world_from_cam=correction.apply_pose(pose.world_from_cam),
            scale=self.scale,
            covariance=covariance,
        )


def _grown(keyframe: Keyframe, factor: float) -> Keyframe:
    """A keyframe whose unit of length is `factor` times as small: all it shows has grown."""
    if factor == 1.0:
        return keyframe
    splats = keyframe.gaussians
    if splats is not None:
        splats = splats.transformed(Sim3(factor, np.eye(3), np.zeros(3)))
    points = keyframe.pointmap * np.float32(factor)
    return replace(keyframe, pointmap=points, gaussians=splats)


def _odometry(a: Kept, b: Kept) -> Edge:
    a_from_b = inverse(a.submap_from_cam) @ b.submap_from_cam
    step = float(np.linalg.norm(a_from_b[:3, 3]))
    return Edge(
        a.id,
        b.id,
        Sim3.from_pose(a_from_b),
        ODOMETRY_TURN_RAD,
        ODOMETRY_SHIFT_STEPS * step + ODOMETRY_SHIFT_DEPTHS * b.depth,
        ODOMETRY_LOG_SCALE,
    )


def _noticeable(placed: list[Kept]) -> list[Kept]:
    """Those that lie noticeably elsewhere than was told, all compared at once."""
    moved = [kept for kept in placed if kept.world is not kept.told]
    if not moved:
        return []
    now, told = [kept.world for kept in moved], [kept.told for kept in moved]
    size, before = (np.array([each.scale for each in part]) for part in (now, told))
    there, here = (np.array([each.translation for each in part]) for part in (now, told))
    turned, own = (np.array([each.rotation for each in part]) for part in (now, told))
    limits = TOLD_DEPTHS * np.array([kept.depth for kept in moved]) * size
    elsewhere = np.linalg.norm(there - here, axis=1) > limits
    elsewhere |= rotation_angles_rad(own.transpose(0, 2, 1) @ turned) > TOLD_RAD
    elsewhere |= np.abs(np.log(size / before)) > TOLD_LOG_SCALE
    return [moved[row] for row in np.flatnonzero(elsewhere)]
