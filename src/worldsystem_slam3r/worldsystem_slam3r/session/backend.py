# SPDX-License-Identifier: Apache-2.0
"""Any back-end with what holds its map together: loops closed, losses survived, sub-maps merged.

It takes a back-end's events and gives events of the same kinds. Keyframes of the sub-map in work go
out at once, at their corrected places. A sub-map that begins after a loss, or beside a map from
disk, is held back until a first verified overlap says where it lies; meanwhile single pictures are
located against the keyframes that are kept.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from worldsystem_core.frames import Frame
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import (
    Event,
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    ScaleState,
    TrackingState,
)
from worldsystem_core.sparing import Sparing
from worldsystem_core.telemetry import Telemetry
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.graph.atlas import Atlas, Kept
from worldsystem_slam3r.graph.lookup import Lookup
from worldsystem_slam3r.graph.loops import LoopFinder
from worldsystem_slam3r.graph.verify import Station
from worldsystem_slam3r.maps.keeper import MapKeeper
from worldsystem_slam3r.scale.fit import MetricFit
from worldsystem_slam3r.scale.metric import MetricScale
from worldsystem_slam3r.scale.root import MetricRoot
from worldsystem_slam3r.session.account import GraphCounts, graph_facts
from worldsystem_slam3r.session.held import HeldSubmap
from worldsystem_slam3r.session.opening import open_map
from worldsystem_slam3r.session.restartable import Make, RenewableBackend
from worldsystem_slam3r.session.succession import Succession

log = logging.getLogger(__name__)

HELD_POSES = 3000
EARLY_POSES = 600
SETTLING_SHARE = 0.1
"""Of the time of a live run the graph may settle for loops, and as much again for positions from
outside; what they say is done later then."""


class GraphBackend:
    """A `ReconstructionBackend` around another one (see the module)."""

    def __init__(self, backend: RenewableBackend, config: Slam3rConfig) -> None:
        self._backend = backend
        self._config = config
        self.atlas = Atlas()
        self.finder = LoopFinder(self.atlas, backend.similar_keyframes)
        self.atlas.on_rejected = self.finder.rejected
        self._lookup = Lookup(self.atlas, self.finder)
        self.counts = GraphCounts()
        self.metric = MetricScale(self._world_of, marker_m=config.marker_m)
        share = 1.0 if config.synchronous else SETTLING_SHARE
        self._root = MetricRoot(self.atlas, self.metric, config.metric_sigma, Sparing(share))
        self.maps = MapKeeper(self.atlas, self.finder, self.metric, memory_mb=config.map_mb)
        parts = (self.atlas, self.finder, self.maps, self.metric)
        self._succession = Succession(*parts, after=config.window_keyframes)
        self._held: HeldSubmap | None = None
        self._last = np.eye(4)
        self._is_seen, self._seen_ns = True, -(1 << 63)
        self._located = True
        self._lost_ns: tuple[int, int] | None = None  # stamps of the first picture and the newest
        self._answered: set[int] = set()
        self._early: list[Pose] = []
        self._unlinked: list[tuple[Kept, Keyframe]] = []
        self._settling = Sparing(share)
        if config.map:
            open_map(self, Path(config.map), config.map_every_s)

    def number_from(self, first_id: int) -> None:
        """Number keyframes on from here; only before the first frame."""
        self._backend.number_from(first_id)

    def load_map(self, folder: Path) -> str:
        """Make a saved map the world; its keyframes go out with the next pictures."""
        loaded = self.maps.load(folder)
        self._backend.number_from(loaded.next_id, loaded.next_submap)
        self._located = False
        self._is_seen = False
        self._last = self.atlas.newest_pose()
        return f"loaded {loaded.keyframes} keyframes from {folder}"

    def save_map(self, folder: Path) -> str:
        """Write the map as it is now; returns a sentence about it."""
        return self.maps.save(folder)

    def feed(self, frame: Frame) -> list[Event]:
        """Take the next frame; see the back-end's own `feed` for what is refused."""
        events = self.maps.told_again(everything=False)
        events += self._taken(self._backend.feed(frame)) + self._linked()
        if not self._located:
            events = self._looked_up(frame, events)
        if self._lost_for_s >= self._config.submap_after_s:
            self._lost_ns = None
            events += self._taken(self._backend.restart())
        self.maps.tick()
        return events

    def collect(self) -> list[Event]:
        """What the back-end has ready beside frames; loops that it closes come with the next."""
        return self._taken(self._backend.collect())

    def finish(self) -> list[Event]:
        """The stream has ended: what was held back, sub-maps without a place by dead reckoning."""
        events = self.maps.told_again(everything=True)
        events += self._taken(self._backend.finish()) + self._linked()
        if self._held is not None:
            events += self._guess_place()
        events += self._settled() if self._settling.wanted else []
        events += self._measured(last=True)
        self.maps.close()
        return events

    def observe(self, observation: Telemetry) -> None:
        """Take a measurement from beside the video (`MetricScale.observe`)."""
        if self._config.metric:
            self.metric.observe(observation)

    @property
    def map_from_scene(self) -> MetricFit | None:
        """How the scene lies in the map, once something measures metres."""
        return self._root.fit

    def begun_anew(self, make: Make) -> GraphBackend:
        """An empty map around the same back-end, whose ids go on; this graph has ended."""
        self._backend.begin_anew(make)
        self.maps.close()
        return GraphBackend(self._backend, replace(self._config, map=""))

    def close(self) -> None:
        """Let the back-end's threads end."""
        close = getattr(self._backend.inner, "close", None)
        if close is not None:
            close()

    def _taken(self, events: list[Event]) -> list[Event]:
        """What a back-end's events become."""
        out: list[Event] = []
        for event in events:
            if isinstance(event, Pose):
                out += self._pose(event)
            elif isinstance(event, NewKeyframe):
                out += self._keyframe(event.keyframe)
            elif isinstance(event, MovedKeyframes):
                out += self._moved(event)
            else:
                out += self._removed(event)
        return out

    def _pose(self, pose: Pose) -> list[Event]:
        if pose.frame_id in self._answered:
            self._answered.discard(pose.frame_id)
            return []
        if pose.state is not TrackingState.TRACKED:
            return [self._unlocated(pose)]
        self._settle_place(pose.submap)
        self._lost_ns = None
        self._located = self.atlas.is_placed(pose.submap)
        if not self._located:
            return self._hold(pose)
        told = self.atlas.told_pose(pose)
        self._see_at(told)
        self._lookup.tracked(told)
        self._note(told)
        return [told]

    def _see_at(self, told: Pose) -> None:
        if self._held is not None and not self._is_seen:
            self._held.begun_at = told.world_from_cam  # the nearest to it that is known
        self._is_seen = True
        if told.stamp_ns >= self._seen_ns:  # older ones come when a sub-map is released
            self._last, self._seen_ns = told.world_from_cam, told.stamp_ns

    def _note(self, told: Pose) -> None:
        """Let measurements be compared with it; poses before the first keyframe wait for that."""
        if told.keyframe_id in self.atlas.keyframes:
            self.metric.pose(told)
        elif not self.atlas.keyframes and len(self._early) < EARLY_POSES:
            self._early.append(told)

    def _unlocated(self, pose: Pose) -> Pose:
        if pose.state is TrackingState.LOST:
            self._located = False
            first_ns = pose.stamp_ns if self._lost_ns is None else self._lost_ns[0]
            self._lost_ns = first_ns, pose.stamp_ns
        elif self.atlas.keyframes:
            self._located = False
        return replace(pose, world_from_cam=self._last, scale=self.atlas.scale)

    def _settle_place(self, submap: int) -> None:
        """The first sub-map of all is the world."""
        if not self.atlas.keyframes and self._held is None and not self.atlas.is_placed(submap):
            self.atlas.place(submap, Sim3.identity())

    def _keyframe(self, keyframe: Keyframe) -> list[Event]:
        self._settle_place(keyframe.submap)
        kept = self.atlas.add(keyframe)
        if self.atlas.is_placed(keyframe.submap):
            told = self.atlas.told_keyframe(keyframe)
            self.maps.keyframe(told, kept)
            early, self._early = self._early, []
            for pose in early:
                self.metric.pose(replace(pose, keyframe_id=keyframe.id))
            self.metric.keyframe(told)
            self._unlinked.append((kept, keyframe))
            return [NewKeyframe(told), *self._measured()]
        self._look_at(kept, keyframe)
        events = self._hold(NewKeyframe(keyframe))
        if not self.atlas.is_placed(keyframe.submap):
            return events + self._merged(kept)
        events += self._link_loops(kept)  # one too many: the place of all was guessed
        return events + self._settled_when_due()

    def _measured(self, *, last: bool = False) -> list[Event]:
        """Where measurements from outside put the map."""
        changed = self._root.update(last=last)
        if changed is None:
            return []
        step = self._root.taken_step()
        self._last = step.apply_pose(self._last)
        if self._held is not None:
            self._held.begun_at = step.apply_pose(self._held.begun_at)
        return [changed]

    def _world_of(self, keyframe_id: int) -> Sim3 | None:
        kept = self.atlas.keyframes.get(keyframe_id)
        return kept.world if kept is not None and self.atlas.is_placed(kept.submap) else None

    def _linked(self) -> list[Event]:
        """Look closely at the newest keyframes, which are out by now; what their loops change."""
        due, self._unlinked = self._unlinked, []
        events: list[Event] = []
        for kept, keyframe in due:
            if kept.id in self.atlas.keyframes:
                self._look_at(kept, keyframe)
                events += self._link_loops(kept) + self._settled_when_due()
        return [*(events or self._settled_when_due()), *self._succession.take_due()]

    def _look_at(self, kept: Kept, keyframe: Keyframe) -> None:
        kept.station = Station.of(keyframe, kept.id)
        if self._config.replace_views:
            self._succession.note(kept)

    def _link_loops(self, kept: Kept) -> list[Event]:
        """Links to earlier keyframes; where they say so, everything has to move. One to a sub-map
        that is held back says where that lies."""
        links = self.finder.find(kept)
        joined = [self.atlas.join(link) for link in links]
        self.counts.loops += len(links)
        self.counts.merged += sum(joined)
        misfit = any(self.atlas.misfit(link) > 1.0 for link in links)
        self._settling.wanted |= misfit or any(joined)
        ends = {self.atlas.keyframes[key].submap for link in links for key in (link.a, link.b)}
        if self._held is None or self._held.number not in ends:
            return []
        log.info("sub-map %d is seen by keyframe %d: merged", self._held.number, kept.id)
        return self._release(self.atlas.correction(self._held.number)) + self._settled()

    def _settled_when_due(self) -> list[Event]:
        return self._settled() if self._settling.is_due else []

    def _settled(self) -> list[Event]:
        with self._settling.work():
            self.atlas.optimise()
        changed = self.atlas.changed()
        if changed is None:
            return []
        self.counts.corrections += 1
        log.info("loop closure moved %d keyframes", len(changed.world_from_cam))
        return [changed]

    def _moved(self, moved: MovedKeyframes) -> list[Event]:
        self.atlas.move(moved.world_from_cam)
        return [] if (changed := self.atlas.changed()) is None else [changed]

    def _removed(self, removed: RemovedKeyframes) -> list[Event]:
        self.metric.release_keyframes(removed.ids)
        for key in removed.ids:
            self.finder.forget(key)
            self.maps.remove(key)
            self.atlas.remove(key)
        if self._held is not None:
            self._held.add(removed)
        return [removed]

    def _hold(self, event: Pose | NewKeyframe) -> list[Event]:
        """Let an event of a sub-map without a place wait; when too many do, guess the place."""
        submap = event.submap if isinstance(event, Pose) else event.keyframe.submap
        events: list[Event] = []
        if self._held is not None and self._held.number != submap:
            events = self._guess_place()
        if self._held is None:
            self._held = HeldSubmap(submap, self._last)
            self.counts.submaps += 1
            log.info("sub-map %d begins; it is held back until it overlaps the map", submap)
        self._held.add(event)
        full = self._held.keyframes > self._config.submap_keyframes
        if full or self._held.poses > HELD_POSES:
            events += self._guess_place()
        return events

    def _merged(self, kept: Kept) -> list[Event]:
        """Place the held sub-map by its first believed overlap with the map."""
        links = self.finder.find(kept)
        for link in links:
            self.atlas.link(link)
        across = [
            link for link in links if self.atlas.is_placed(self.atlas.keyframes[link.a].submap)
        ]
        if not across or self._held is None:
            return []
        best = max(across, key=lambda link: link.inliers)
        a, b = self.atlas.keyframes[best.a], self.atlas.keyframes[best.b]
        place = a.world @ best.a_from_b @ Sim3.from_pose(b.submap_from_cam).inverse()
        self.counts.merged += 1
        log.info("sub-map %d overlaps keyframe %d: merged", kept.submap, best.a)
        return self._release(place) + self._settled()

    def _guess_place(self) -> list[Event]:
        """No overlap was found: the sub-map goes where the camera was last seen before it began,
        level with the map where that was in an earlier session."""
        assert self._held is not None
        unit = self.atlas.likely_unit(self._held.number)
        place = self._held.dead_reckoned(unit)
        if not self._is_seen:
            place = self.atlas.levelled(self._held.number, place)
        self.counts.guessed += 1
        log.warning(
            "sub-map %d (%d keyframes) overlaps nothing seen before: placed where the camera was "
            "last seen, until it does",
            self._held.number,
            self._held.keyframes,
        )
        return self._release(place)

    def _release(self, world_from_submap: Sim3) -> list[Event]:
        assert self._held is not None
        held, self._held = self._held, None
        self.atlas.place(held.number, world_from_submap)
        events: list[Event] = []
        for event in held.release():
            if isinstance(event, NewKeyframe):
                told = self.atlas.told_keyframe(event.keyframe)
                self.maps.keyframe(told, self.atlas.keyframes[told.id])
                self.metric.keyframe(told)
                events.append(NewKeyframe(told))
            elif isinstance(event, Pose):
                events += self._pose(event)
        return events

    def _looked_up(self, frame: Frame, events: list[Event]) -> list[Event]:
        """Locate the picture itself, and let that stand for what the back-end says of it."""
        pose = self._lookup.pose(frame, self._backend.lens)
        if pose is None:
            return events
        self.counts.relocalised += 1
        self._see_at(pose)
        others = [e for e in events if not (isinstance(e, Pose) and e.frame_id == frame.id)]
        if len(others) == len(events):
            self._answered.add(frame.id)
        return [*others, pose]

    @property
    def _lost_for_s(self) -> float:
        """As far as the back-end has told: one tells nothing until a window is full."""
        first_ns, newest_ns = self._lost_ns or (0, 0)
        return (newest_ns - first_ns) / 1e9

    @property
    def health(self) -> object:
        """What the back-end says of its own state; None where it says nothing."""
        return self._backend.health

    def facts(self) -> dict[str, object]:
        """What diagnostics say of the graph, and of the back-end in it."""
        fit = self.map_from_scene
        facts = graph_facts(self.scale, self.counts, self.metric, fit, self.finder)
        return facts | self._backend.facts()

    @property
    def scale(self) -> ScaleState:
        """Whether the world is metric."""
        return self.atlas.scale
