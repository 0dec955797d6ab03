# SPDX-License-Identifier: Apache-2.0
"""A stage that dies is begun anew, in time, and what came before it is kept."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dds_domain import own_domain
from demo_run import free_ports
from plain_keyframe import plain_keyframe
from rosbags.highlevel import AnyReader

from worldsystem.graph import STAGES
from worldsystem.stage_process import StageProcess
from worldsystem.supervision import (
    LONGEST_DELAY_S,
    SILENT_S,
    STARTING_S,
    WELL_S,
    Action,
    StageWatch,
    chosen,
)
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.splats.world import SplatWorld
from worldsystem_core.trajectory import read_tum
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher

LENS_IS_FOUND = 26
"""Keyframes; until then all may be withdrawn and come again, which is another map."""
TO_KILL = ("mesher", "viewer", "segmenter", "slam3r")
CLIP = Path(__file__).parents[3] / "shared" / "data" / "gopro_karma_drone" / "karma.mp4"


def test_a_stage_that_dies_once_is_back_at_once():
    watch = StageWatch(0.0)
    watch.heard(1.0)
    assert watch.state == "running"
    watch.ended(10.0)
    assert watch.state == "restarting"
    assert watch.due(10.0) is Action.START
    watch.started(10.0)
    assert watch.state == "starting"
    assert watch.restarts == 1


def test_one_that_dies_again_and_again_waits_longer_each_time_but_never_for_ever():
    watch, now, waits = StageWatch(0.0), 0.0, []
    for _ in range(10):
        watch.ended(now)
        begin = now
        while watch.due(now) is not Action.START:
            now += 0.05
        waits.append(round(now - begin, 2))
        watch.started(now)
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(LONGEST_DELAY_S, abs=0.1)
    now += WELL_S + 0.1
    watch.ended(now)
    assert watch.due(now + 0.3) is Action.START, "it was well for long, so it is back at once"


def test_one_that_needs_a_person_is_tried_once_a_minute():
    """As where its port was taken meanwhile: each try costs seconds of the processors."""
    watch, tries = StageWatch(0.0), 0
    watch.heard(1.0)
    watch.ended(2.0, by_settings=True)
    for now in np.arange(3.0, 603.0, 0.1):
        if watch.due(now) is Action.START:
            assert watch.waits_for_a_person
            tries += 1
            watch.started(now)
            watch.ended(now + 1.0, by_settings=True)
    assert 9 <= tries <= 10
    watch.started(700.0)
    watch.ended(740.0)
    assert not watch.waits_for_a_person
    assert watch.due(740.0) is Action.START, "it ran for long, so it is back at once"


def test_one_that_hangs_is_killed_and_one_that_starts_slowly_is_not():
    watch = StageWatch(0.0)
    assert watch.due(STARTING_S - 1) is Action.NOTHING
    assert watch.due(STARTING_S + 1) is Action.KILL
    watch.heard(STARTING_S - 1)
    assert watch.due(STARTING_S + SILENT_S - 2) is Action.NOTHING
    assert watch.due(STARTING_S + SILENT_S) is Action.KILL


@pytest.mark.parametrize("heard", [True, False])
def test_one_that_waits_for_a_device_is_told_to_die_only_now_and_then(heard):
    watch, now = StageWatch(0.0), STARTING_S + 1
    if heard:
        watch.heard(now - SILENT_S - 1)
    for _ in range(3):
        assert watch.due(now) is Action.KILL
        watch.killed(now)
        assert watch.due(now + SILENT_S - 1) is Action.NOTHING
        now += SILENT_S + 1
    watch.ended(now)
    assert watch.due(now) is Action.START


class Unkillable:
    """A process that waits for a disk: a signal reaches it when that answers."""

    pid = 1

    def poll(self):
        return None

    def kill(self):
        pass

    def wait(self, timeout):
        raise subprocess.TimeoutExpired("recorder", timeout)


def test_a_process_that_cannot_be_killed_holds_nobody_up(tmp_path, caplog):
    from worldsystem.graph import STAGES
    from worldsystem.stage_process import StageProcess

    process = StageProcess(STAGES[0], tmp_path / "ingest", {}, tmp_path)
    process._process = Unkillable()
    process.kill()
    assert "has not ended yet" in caplog.text
    assert process.exit_code is None


def test_a_stage_that_cannot_be_begun_anew_is_tried_again_later_and_leaves_no_spare():
    pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
    from worldsystem.separate import SeparateApp

    ended, watch = [], StageWatch(0.0)

    class Full:
        def start(self, spare, **further):
            raise OSError(28, "No space left on device")

    app = SimpleNamespace(
        _node=lambda _: SimpleNamespace(observer=SimpleNamespace(began_anew=lambda _: None)),
        _as_before=lambda _: {},
        _spares=SimpleNamespace(take=lambda: SimpleNamespace(end=lambda: ended.append(True))),
    )
    watch.ended(1.0)
    waits = []
    for _ in range(4):
        SeparateApp._begin_anew(app, "mesher", Full(), watch)
        waits.append(next(s for s in np.arange(0, 20, 0.05) if _is_due(watch, s)))
    assert waits == sorted(waits)
    assert waits[0] > 0
    assert ended == [True] * 4
    assert watch.restarts == 0


def _is_due(watch: StageWatch, later_s: float) -> bool:
    return watch.due(watch.ended_s + later_s) is Action.START


def test_one_who_watches_and_was_asleep_kills_nobody():
    watch = StageWatch(0.0)
    watch.heard(1.0)
    watch.forgive(-0.9)
    watch.forgive(100.0)
    assert watch.due(102.0) is Action.NOTHING
    assert watch.due(102.0 + SILENT_S) is Action.KILL, "what does not answer then hangs"


def test_a_sign_from_before_the_sleep_takes_nothing_of_what_was_forgiven():
    watch = StageWatch(0.0)
    watch.heard(100.0)
    watch.forgive(59.0)
    watch.heard(100.0)
    assert watch.due(160.0) is Action.NOTHING
    watch.heard(165.0)
    assert watch.due(165.0 + SILENT_S) is Action.NOTHING
    assert watch.due(166.0 + SILENT_S) is Action.KILL


def test_a_sign_of_life_of_the_process_before_does_not_count():
    watch = StageWatch(0.0)
    watch.ended(1.0)
    watch.heard(1.1)
    watch.started(2.0)
    assert watch.state == "starting"


@pytest.mark.parametrize("stage", ["mesher", "splats"])
def test_a_stage_begun_anew_keeps_the_voxel_that_it_told_of(stage):
    facts = {"begun_voxel": str(0.1 + 0.2), "blocks": "7"}
    assert chosen(stage, facts) == {"begun_voxel": 0.1 + 0.2}
    assert chosen(stage, {}) == {}
    assert chosen("viewer", facts) == {}


@pytest.mark.parametrize("stage", ["mesher", "splats"])
def test_a_stage_that_dies_after_a_reset_takes_no_voxel_of_the_map_before(stage):
    """However often it dies before the new map's first keyframe has come."""
    camera = Camera(width=96, height=72, fx=96.0, fy=96.0, cx=47.5, cy=35.5)
    keyframe = replace(
        plain_keyframe(1).keyframe,
        camera=camera,
        pointmap=pointmap_from_depth(np.full((72, 96), 2.0, np.float32), camera),
        confidence=np.ones((72, 96), np.float32),
        rgb=np.zeros((72, 96, 3), np.uint8),
    )
    mesher, splats = (
        Mesher(MeshConfig(device="cpu", begun_voxel=0.07)),
        SplatWorld(begun_voxel=0.07),
    )
    world = mesher if stage == "mesher" else splats
    kept: dict[str, object] = {}

    def of_the_next_life() -> object:
        kept.update(chosen(stage, {"begun_voxel": str(world.begun_voxel)}))
        return kept["begun_voxel"]

    try:
        assert of_the_next_life() == 0.07, "it has seen no keyframe yet, and may die again"
        assert mesher.integrate(keyframe)
        assert splats.add(keyframe)
        assert of_the_next_life() == pytest.approx(0.07)
        world.remove([1])
        assert of_the_next_life() == 0.0
    finally:
        mesher.close()


def test_what_a_person_asked_of_a_stage_is_not_forgotten_with_its_process():
    assert chosen("segmenter", {"prompt": "red box @0.400"}) == {"prompt": "red box @0.400"}
    assert chosen("segmenter", {"prompt": ""}) == {"prompt": ""}, "all objects, whatever the config"
    assert chosen("recorder", {"recording": "/run/bag"}) == {"record_at_start": True}
    assert chosen("recorder", {"recording": "no", "waiting": "False"}) == {"record_at_start": False}
    assert chosen("recorder", {"recording": "no", "waiting": "True"}) == {"record_at_start": True}
    assert chosen("recorder", {}) == chosen("segmenter", {}) == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not CLIP.exists(), reason="the recordings are not here")
def test_every_stage_killed_in_a_run_is_back_and_every_frame_accounted_for(tmp_path):
    web, fox = free_ports(2)
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "worldsystem.cli", "run", str(CLIP), "--separate"),
            *("--out", str(tmp_path / "run"), "--web-port", str(web), "--foxglove-port", str(fox)),
            *("--duration", "60"),
            *("--set", "viewer.rerun=false", "mesher.metrics_port=0", "ingest.loop=true"),
        ],
        env=os.environ | {"ROS_DOMAIN_ID": str(own_domain(__file__))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    killed = []
    for line in run.stdout:
        lines.append(line)
        keyframes = re.search(r"(\d+) keyframes", line)
        if keyframes and int(keyframes[1]) > LENS_IS_FOUND and len(killed) < len(TO_KILL):
            name = TO_KILL[len(killed)]
            kill(name, run.pid)
            killed.append(name)
    assert run.wait() == 0, "".join(lines)
    output = "".join(lines)
    assert killed == list(TO_KILL), output
    for name in killed:
        assert f"{name} ended (signal 9) and is begun anew" in output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    figures = {entry["id"]: entry["value"] for entry in summary["results"]}
    assert figures["demo.unexplained_frames"] == 0
    poses = read_tum(tmp_path / "run" / "trajectory.tum")
    assert len(poses) > 60
    with AnyReader([tmp_path / "run" / "bag"]) as reader:
        assert any(c.topic == "/slam/pose" and c.msgcount for c in reader.connections)
        told = [c for c in reader.connections if c.topic == "/mesh/statistics"]
        statistics = [reader.deserialize(m[2], m[0].msgtype) for m in reader.messages(told)]
    later = [each.voxel for each in statistics if each.keyframes > LENS_IS_FOUND]
    assert len(set(later)) == 1, "it goes on as before"


def kill(stage: str, parent: int) -> None:
    """Kill the process of a stage that `parent` runs, as the kernel would for want of memory."""
    found = subprocess.run(
        ["pgrep", "-P", str(parent), "-f", f"/{stage} --ros-args"], capture_output=True, text=True
    ).stdout.split()
    assert found, f"{stage} does not run"
    os.kill(int(found[0]), signal.SIGKILL)
    time.sleep(0.1)


def test_a_stage_is_begun_anew_also_where_the_folder_of_its_settings_was_cleaned_away(tmp_path):
    process = StageProcess(STAGES[0], tmp_path / "ingest", {"port": 5101}, tmp_path / "settings")
    spare = SimpleNamespace(become=lambda stage, arguments: Path(arguments[-1]).read_text())
    process.start(spare)
    assert "port: 5101" in process._process
