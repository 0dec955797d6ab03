# SPDX-License-Identifier: Apache-2.0
"""Start, follow, lose, find again: what becomes of each frame of a stream."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import TrackingState
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.slam3r.bootstrap import Bootstrap, Found
from worldsystem_slam3r.slam3r.events import Outcome, Told
from worldsystem_slam3r.slam3r.judge import Judge
from worldsystem_slam3r.slam3r.live import LiveScene, LiveSettings
from worldsystem_slam3r.slam3r.networks import Networks
from worldsystem_slam3r.slam3r.pace import Pace, Viewpoint, advance
from worldsystem_slam3r.slam3r.shots import Shot, read_samples
from worldsystem_slam3r.slam3r.views import View

log = logging.getLogger(__name__)


class SceneTracker:
    """Follows the camera through one scene, or through several where the way between is not seen.

    `world_from_scene` puts them into one world: a scene that begins after the last was lost takes
    up where the camera was last seen, at the scale it was seen at.
    """

    def __init__(self, networks: Networks, config: Slam3rConfig, picture_px: int) -> None:
        self._config = config
        fixed = config.keyframe_stride
        strides = (fixed, fixed) if fixed else (config.stride_min, config.stride_max)
        self.scene = LiveScene(networks, _live_settings(config, max(strides)))
        self.pace = Pace(*strides)
        self.judge = Judge(config, picture_px)
        self.state = TrackingState.INITIALISING
        self.world_from_scene: dict[int, Sim3] = {}
        self._bootstrap = Bootstrap(
            networks,
            window=config.initial_window,
            strides=strides,
            wanted_score=config.initial_confidence,
        )
        self._shots: dict[int, Shot] = {}
        self._last: Shot | None = None
        self._last_key: Viewpoint | None = None
        self._lost_frames = 0

    def track(self, shots: Sequence[Shot]) -> Outcome:
        """Place the next shots; while following, all of them together."""
        outcome = Outcome()
        if self.state is TrackingState.TRACKED:
            self._follow(shots, outcome)
            return outcome
        for shot in shots:
            if self.state is TrackingState.INITIALISING:
                self._initialise(shot, outcome)
            elif self.state is TrackingState.LOST:
                self._seek(shot, outcome)
            else:
                self._follow([shot], outcome)
        return outcome

    def finish(self) -> Outcome:
        """The stream has ended: start with what is there, or give the held shots up."""
        outcome = Outcome()
        if self.state is TrackingState.INITIALISING:
            found = self._bootstrap.attempt_with_what_is_there()
            if found is not None:
                self._begin(found, outcome)
            else:
                self._bootstrap.give_up()
                self._tell_given_up(outcome)
        return outcome

    def _initialise(self, shot: Shot, outcome: Outcome) -> None:
        found = self._bootstrap.add(shot)
        self._tell_given_up(outcome)
        if found is not None:
            self._begin(found, outcome)

    def _tell_given_up(self, outcome: Outcome) -> None:
        for shot in self._bootstrap.given_up:
            outcome.told.append(Told(shot, TrackingState.INITIALISING))
        self._bootstrap.given_up = []

    def _begin(self, found: Found, outcome: Outcome) -> None:
        """Make a scene of a start; every held shot is placed in it, key frames and others."""
        lost_before = self.state is TrackingState.LOST
        keys, others = found.keys, found.others
        self.pace.start(found.stride)
        self.scene.begin(
            [shot.view for shot in keys],
            [shot.view for shot in others],
            found.start,
            self.pace.stride,
        )
        self._shots = {shot.view.index: shot for shot in [*keys, *others]}
        known = {view.segment for view in self.scene.buffer.views}
        place = self._place_of_new_scene()
        self.world_from_scene = {k: v for k, v in self.world_from_scene.items() if k in known}
        self.world_from_scene[self.scene.segment] = place
        ordered = [self._shots[index] for index in sorted(self._shots)]
        read_samples(ordered)
        self.judge.learn_start(keys, known)
        placed = [shot for shot in ordered if self.judge.believes(shot)]
        self.scene.forget([shot.view for shot in ordered if shot not in placed])
        self._remember(placed)
        key_indices = {shot.view.index for shot in keys}
        outcome.keyframes += [shot for shot in placed if shot.view.index in key_indices]
        self._last_key = outcome.keyframes[-1].viewpoint if outcome.keyframes else None
        if not lost_before:
            outcome.told += [Told(shot, _state(shot in placed)) for shot in ordered]
        self._set_state(_state(bool(outcome.keyframes)))
        self._bootstrap.give_up()  # the next scene is tried from the least stride again
        self._bootstrap.given_up = []
        log.info("scene %d starts with %d key frames", self.scene.segment, len(keys))

    def _place_of_new_scene(self) -> Sim3:
        if self._last is None or self._last.placement is None:
            return Sim3(1.0, np.eye(3), np.zeros(3))
        old = self.world_from_scene[self._last.view.segment]
        pose = old.apply_pose(self._last.placement.scene_from_cam)
        return Sim3(old.scale * self._last.placement.scale, pose[:3, :3], pose[:3, 3])

    def _follow(self, shots: Sequence[Shot], outcome: Outcome) -> None:
        views = [shot.view for shot in shots]
        self._register(self.scene.references(views), shots)
        placed = []
        for shot in shots:
            before = None if self._last is None else self._last.placement
            if self.judge.believes(shot, after=before):
                placed.append(shot)
                self._remember([shot])
            outcome.told.append(Told(shot, _state(shot in placed)))
        self._accept(placed, outcome)
        self._set_state(outcome.told[-1].state)

    def _seek(self, shot: Shot, outcome: Outcome) -> None:
        """Look for the lost camera, where it was last and on known ground by turns."""
        self._lost_frames += 1
        nearby = self._lost_frames % 2 == 1 and bool(self.scene.recent)
        view = shot.view
        references = self.scene.references([view]) if nearby else self.scene.known_ground(view)
        self._register(references, [shot])
        if self.judge.believes(shot, recognising=True):
            self.scene.resume(references[0].segment, view.index)
            self._remember([shot])
            self._accept([shot], outcome)
            self._bootstrap.give_up()
            self._bootstrap.given_up = []
            self._set_state(TrackingState.TRACKED)
        outcome.told.append(Told(shot, self.state))
        if self.state is TrackingState.LOST and self._lost_frames >= self._config.restart_after:
            found = self._bootstrap.add(_anew(shot))
            self._bootstrap.given_up = []
            if found is not None:
                self._begin(found, outcome)

    def _register(self, references: Sequence[View], shots: Sequence[Shot]) -> None:
        anchor = None
        if self._config.re_anchor:
            newest = max(references, key=lambda view: view.index)
            anchor = newest.scene_from_cam
        self.scene.register(references, [shot.view for shot in shots], anchor)
        read_samples(shots)

    def _remember(self, placed: Sequence[Shot]) -> None:
        for shot in placed:
            assert shot.placement is not None
            shot.view.scene_from_cam = shot.placement.scene_from_cam
            self._shots[shot.view.index] = shot
            self._last = shot

    def _accept(self, placed: list[Shot], outcome: Outcome) -> None:
        """Let the scene keep the placed shots; new key frames set the pace."""
        if not placed:
            return
        newest = placed[-1]
        still = self._last_key is not None and advance(self._last_key, newest.viewpoint).still
        upcoming = newest.view.index + 1
        chosen = self.scene.accept([shot.view for shot in placed], upcoming, still=still)
        for view in chosen:
            shot = self._shots[view.index]
            self._set_pace(shot.viewpoint)
            self.judge.learn_focal(shot)
            outcome.keyframes.append(shot)
        self._shots = {i: shot for i, shot in self._shots.items() if i in self.scene.recent}

    def _set_pace(self, key: Viewpoint) -> None:
        if self._last_key is not None and not self._config.keyframe_stride:
            frames = key.index - self._last_key.index
            self.scene.stride = self.pace.adapt(advance(self._last_key, key), frames)
        self._last_key = key

    def _set_state(self, state: TrackingState) -> None:
        if state is not self.state:
            log.info("%s → %s", self.state.name.lower(), state.name.lower())
        if state is TrackingState.TRACKED:
            self._lost_frames = 0
        self.state = state


def _anew(shot: Shot) -> Shot:
    """The same picture without what an attempt to recognise it left behind."""
    view = View(shot.view.index, shot.view.tokens, as_source=shot.view.as_source)
    return Shot(shot.picture, view)


def _state(placed: bool) -> TrackingState:
    return TrackingState.TRACKED if placed else TrackingState.LOST


def _live_settings(config: Slam3rConfig, stride_max: int) -> LiveSettings:
    return LiveSettings(
        neighbours=config.neighbours,
        scene_frames=config.scene_frames,
        retrieve_every=config.retrieve_every,
        stride_max=stride_max,
        local_confidence=config.local_confidence,
        buffer_frames=config.buffer_frames,
        buffer_strategy=config.buffer_strategy,
        seed=config.seed,
    )
