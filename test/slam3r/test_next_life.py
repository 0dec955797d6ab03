# SPDX-License-Identifier: Apache-2.0
"""A back-end that begins again: which map it goes on in, and what is told of the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from drifting_backend import DriftingBackend, Film, film, ring_poses

from worldsystem_core.reconstruction import (
    Event,
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
    ScaleState,
)
from worldsystem_slam3r import backend as backends
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.maps.content import SavedMap
from worldsystem_slam3r.maps.next_life import MARK, end_map, is_ended, kept_keyframes
from worldsystem_slam3r.running import Answer, RunningHere, WorkerEnded


@pytest.fixture(scope="module")
def ring() -> Film:
    return film(ring_poses(17)[:8])


@pytest.fixture(autouse=True)
def oracle(ring, monkeypatch) -> None:
    """Every back-end that is opened here knows the truth."""
    monkeypatch.setitem(backends._MAKERS, "geometric", lambda _: DriftingBackend([ring]))


def keyframes(events: list[Event]) -> list[Keyframe]:
    return [event.keyframe for event in events if isinstance(event, NewKeyframe)]


def told(answers: list[Answer]) -> list[int]:
    return [each.id for answer in answers for each in keyframes(answer.events)]


def fed(running: RunningHere, frames) -> list[int]:
    return [key for frame in frames for key in told(running.feed(frame))]


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "map"


@pytest.fixture
def config(folder) -> Slam3rConfig:
    return Slam3rConfig(map=str(folder), map_every_s=100.0)


def test_nobody_goes_on_by_himself_in_a_map_that_a_reset_has_ended(ring, folder, config):
    first = RunningHere(config)
    assert fed(first, ring.frames[:4]) == [0, 1, 2, 3]
    first.begin_anew(4)  # and it dies before the first picture of the new map
    assert sorted(SavedMap(folder).nodes["id"]) == [0, 1, 2, 3], "a person can have it back"
    assert kept_keyframes(config.map) == frozenset()
    second = RunningHere(config, first_id=4)
    assert fed(second, ring.frames[4:5]) == [4]
    second.finish()
    assert kept_keyframes(config.map) == {4}
    third = RunningHere(config, first_id=5)
    assert fed(third, ring.frames[5:6])[:1] == [4]


def test_a_session_that_ends_right_after_a_reset_leaves_the_next_an_empty_map(ring, config):
    first = RunningHere(config)
    fed(first, ring.frames[:4])
    first.begin_anew(4)
    first.finish()
    assert fed(RunningHere(config), ring.frames[4:5]) == [0]


def test_a_copy_of_a_map_that_has_ended_has_not(ring, folder, config, tmp_path):
    running = RunningHere(config)
    fed(running, ring.frames[:2])
    running.begin_anew(2)
    shutil.copytree(folder, tmp_path / "copy")
    assert is_ended(folder)
    assert kept_keyframes(str(tmp_path / "copy")) == {0, 1}


def test_a_map_that_has_ended_counts_again_once_it_is_loaded(ring, folder, config):
    running = RunningHere(config)
    fed(running, ring.frames[:2])
    running.begin_anew(2)
    assert "loaded 2 keyframes" in running.map_service("load_map", str(folder))
    assert kept_keyframes(config.map) == {0, 1}
    assert not (folder / MARK).exists()


def test_where_there_is_no_map_nothing_is_kept_and_nothing_ends(tmp_path):
    assert kept_keyframes("") == frozenset()
    assert kept_keyframes(str(tmp_path)) == frozenset()
    end_map(tmp_path)
    assert not is_ended(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def stage_in(context, monkeypatch):
    """Makes a stage with settings, and the list of what it tells of keyframes."""
    from rclpy.parameter import Parameter

    from worldsystem_slam3r.node import Slam3rNode

    stages = []

    def made(**settings: object):
        given = [Parameter(name, value=value) for name, value in settings.items()]
        stage, heard = Slam3rNode(context=context, parameter_overrides=given), []
        monkeypatch.setattr(stage._keyframe_out, "publish", lambda told, **_: heard.append(told))
        stages.append(stage)
        return stage, heard

    yield made
    for stage in stages:
        stage.close()


@pytest.mark.ros
@pytest.mark.parametrize("every_s", [100.0, 0.0], ids=["kept saved", "only loaded"])
def test_a_worker_that_dies_after_a_reset_comes_back_with_an_empty_map(
    stage_in, ring, folder, every_s
):
    from worldsystem_msgs.srv import Reset

    before = RunningHere(Slam3rConfig())
    fed(before, ring.frames[:4])
    before.map_service("save_map", str(folder))
    stage, heard = stage_in(map=str(folder), map_every_s=every_s)
    stage._on_frame(ring.frames[4])
    old = {keyframe.id for keyframe in keyframes(heard)}
    assert old >= {0, 1, 2}, "the loaded ones"
    assert stage._on_reset(Reset.Request(), Reset.Response()).success
    stage._revive(WorkerEnded("killed"))
    heard.clear()
    stage._on_frame(ring.frames[5])
    new = {keyframe.id for keyframe in keyframes(heard)}
    assert new
    assert not new & old
    assert stage._trajectory.keyframe_ids == tuple(new)


@pytest.mark.ros
def test_keyframes_told_after_the_last_save_are_withdrawn_when_the_worker_comes_back(
    stage_in, ring, config
):
    stage, heard = stage_in(map=config.map, map_every_s=config.map_every_s)
    for frame in ring.frames[:4]:
        stage._on_frame(frame)
    stage._running.map_service("save_map", config.map)
    for frame in ring.frames[4:6]:
        stage._on_frame(frame)
    assert [keyframe.id for keyframe in keyframes(heard)] == list(range(6))
    heard.clear()
    for _ in range(2):  # killed again before a picture came
        stage._revive(WorkerEnded("killed"))
    (gone,) = heard
    assert isinstance(gone, RemovedKeyframes)
    assert gone.ids == gone.wrong == (4, 5)
    assert stage._trajectory.keyframe_ids == (0, 1, 2, 3)
    for frame in ring.frames[6:]:
        stage._on_frame(frame)
    stage.input_ended()
    ids = {keyframe.id for keyframe in keyframes(heard)}
    assert ids == {0, 1, 2, 3, 6, 7}, "no number of those withdrawn is given again"


@pytest.mark.ros
def test_a_worker_that_comes_back_in_the_unit_of_before_begins_with_all_keyframes_withdrawn(
    stage_in, ring, config
):
    """The map turned metric after its last save: who has it in metres would count sizes twice."""
    stage, heard = stage_in(map=config.map, map_every_s=config.map_every_s)
    for frame in ring.frames[:4]:
        stage._on_frame(frame)
    stage._running.map_service("save_map", config.map)
    places = {keyframe.id: keyframe.world_from_cam for keyframe in keyframes(heard)}
    assert list(places) == [0, 1, 2, 3]
    stage._publish([MovedKeyframes(places, dict.fromkeys(places, 5.0), ScaleState.METRIC)])
    heard.clear()
    stage._revive(WorkerEnded("killed"))
    (gone,) = heard
    assert isinstance(gone, RemovedKeyframes)
    assert gone.ids == gone.wrong == (0, 1, 2, 3)
    assert stage.facts()["state"] == "lost"
    stage._on_frame(ring.frames[4])
    again = keyframes(heard)[:3]
    assert [(each.id, each.scale) for each in again] == [(k, ScaleState.SCENE) for k in range(3)]
    assert stage._trajectory.scale is ScaleState.SCENE
