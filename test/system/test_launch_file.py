# SPDX-License-Identifier: Apache-2.0
"""What can be known of the launch file without launch_ros: it names what is really there."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import pytest

from worldsystem.graph import (
    MAP_EVERY_S,
    RAW_OUTSIDE_MAX_PX,
    SIMULATOR,
    STAGES,
    Choice,
    simulator_parameters,
    stages,
)
from worldsystem.settings_text import config_words, parse_settings, word_of
from worldsystem_core.config import config_from
from worldsystem_sim.config import SimConfig

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
LAUNCH_FILE = Path(__file__).resolve().parents[2] / "launch" / "full.launch.py"


class Recorded:
    """Stands in for a launch action or substitution and keeps what it was made with."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs

    def perform(self, context):
        return context[self.args[0]]


@pytest.fixture
def launch_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # without `out` a run's folder is made below
    names = {
        "launch": ("LaunchContext", "LaunchDescription"),
        "launch.actions": (
            "DeclareLaunchArgument",
            "OpaqueFunction",
            "SetEnvironmentVariable",
        ),
        "launch.substitutions": ("LaunchConfiguration",),
        "launch_ros": (),
        "launch_ros.actions": ("ComposableNodeContainer", "Node"),
        "launch_ros.descriptions": ("ComposableNode",),
    }
    for module_name, classes in names.items():
        module = types.ModuleType(module_name)
        for name in classes:
            setattr(module, name, type(name, (Recorded,), {}))
        monkeypatch.setitem(sys.modules, module_name, module)
    spec = importlib.util.spec_from_file_location("full_launch", LAUNCH_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def given(launch_file, **changes):
    return {name: default for name, (default, _) in launch_file.ARGUMENTS.items()} | changes


def test_the_arguments_that_users_know_are_declared(launch_file):
    launch_file.generate_launch_description()
    assert {"source", "backend", "device", "record", "viewer", "composed"} <= set(
        launch_file.ARGUMENTS
    )


def test_shared_memory_of_the_dead_is_freed_before_any_node_begins(launch_file, monkeypatch):
    """And by no process beside them: that could take what a starting node has just made."""
    freed = []
    monkeypatch.setattr(launch_file, "clean_stale_segments", lambda: freed.append(True))
    (actions,) = launch_file.generate_launch_description().args
    assert freed == [True]
    kinds = {type(action).__name__ for action in actions}
    assert kinds == {"DeclareLaunchArgument", "SetEnvironmentVariable", "OpaqueFunction"}


def test_composed_is_one_container_with_every_stage_and_a_simulator_beside_it(launch_file):
    container, simulator = launch_file.nodes(given(launch_file))
    components = container.kwargs["composable_node_descriptions"]
    wanted = [stage.plugin for stage in reversed(STAGES) if stage.name != "bridge"]
    assert [c.kwargs["plugin"] for c in components] == wanted
    assert simulator.kwargs["executable"] == SIMULATOR.executable


def test_not_composed_is_one_process_each_with_the_same_parameters(launch_file, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    run = given(launch_file, composed="false", out="/run")
    processes = [p.kwargs["parameters"][0] for p in launch_file.nodes(run)[:-1]]
    container = launch_file.nodes(given(launch_file, out="/run"))[0]
    components = [
        c.kwargs["parameters"][0] for c in container.kwargs["composable_node_descriptions"]
    ]
    differ = {
        key: (alone.get(key), together.get(key))
        for alone, together in zip(processes, components, strict=True)
        for key in alone.keys() | together.keys()
        if alone.get(key) != together.get(key)
    }
    assert differ == {
        "own_process": (False, True),  # a process of its own has no need of a further one
        "map": ("/run/map", None),  # a segmenter that can die alone keeps its objects
        "map_every_s": (MAP_EVERY_S, None),
        "raw_outside_max_px": (RAW_OUTSIDE_MAX_PX, None),  # pictures of every size reach the others
    }


def test_what_can_die_alone_keeps_its_map_but_no_new_run_goes_on_in_an_old_one(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    folder = str(tmp_path / "map")

    def maps(*, composed: bool) -> dict[str, object]:
        run = stages(Choice(out=tmp_path), composed=composed)
        return {stage.name: given["map"] for stage, given in run if "map" in given}

    assert maps(composed=True) == {"slam3r": folder}
    assert maps(composed=False) == {"slam3r": folder, "segmenter": folder}
    (tmp_path / "map").mkdir()
    assert maps(composed=True) == {}


@pytest.mark.parametrize(
    ("source", "processors", "own"), [("sim", 2, True), ("sim", 1, False), ("clip.mp4", 2, False)]
)
def test_live_and_with_a_core_to_spare_the_reconstruction_has_a_process(
    tmp_path, monkeypatch, source, processors, own
):
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    (tmp_path / "clip.mp4").touch()
    monkeypatch.chdir(tmp_path)
    given = {stage.name: each for stage, each in stages(Choice(source=source, out=tmp_path))}
    assert given["slam3r"]["own_process"] is own
    assert given["slam3r"]["prompt_depth"] is (source == "sim")


@pytest.mark.parametrize(
    ("source", "processors", "threads"),
    [("sim", 1, 1), ("sim", 2, 1), ("sim", 4, None), ("clip.mp4", 2, None)],
)
def test_live_on_few_processors_the_tracker_waits_for_no_second_thread(
    tmp_path, monkeypatch, source, processors, threads
):
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    (tmp_path / "clip.mp4").touch()
    monkeypatch.chdir(tmp_path)
    run = stages(Choice(source=source, out=tmp_path))
    assert {stage.name: each for stage, each in run}["slam3r"].get("threads") == threads


def test_any_parameter_can_be_set_from_the_command_line(launch_file):
    run = given(launch_file, set="ingest.host=0.0.0.0 mesher.voxel=0.05")
    components = launch_file.nodes(run)[0].kwargs["composable_node_descriptions"]
    parameters = {c.kwargs["name"]: c.kwargs["parameters"][0] for c in components}
    assert parameters["ingest"]["host"] == "0.0.0.0"
    assert parameters["mesher"]["voxel"] == 0.05


def test_a_source_other_than_the_simulator_starts_none_and_viewers_can_be_left_out(launch_file):
    run = given(launch_file, source="rtsp://cam/1", viewer="false", record="false")
    (container,) = launch_file.nodes(run)
    names = [c.kwargs["name"] for c in container.kwargs["composable_node_descriptions"]]
    assert names == ["monitor", "reporter", "segmenter", "mesher", "slam3r", "ingest"]


@pytest.mark.parametrize(("word", "recorded"), [("True", True), ("FALSE", False)])
def test_true_and_false_are_understood_in_capitals_too(launch_file, word, recorded):
    container, *_ = launch_file.nodes(given(launch_file, record=word, composed="True"))
    components = container.kwargs["composable_node_descriptions"]
    assert ("recorder" in [c.kwargs["name"] for c in components]) is recorded


@pytest.mark.parametrize("name", ["record", "viewer", "composed"])
def test_an_argument_that_is_neither_true_nor_false_is_refused(launch_file, name):
    with pytest.raises(RuntimeError, match=f"{name}:=maybe is neither true nor false"):
        launch_file.nodes(given(launch_file, **{name: "maybe"}))


@pytest.mark.parametrize("stage", [*STAGES, SIMULATOR], ids=lambda stage: stage.name)
def test_every_plugin_and_executable_of_the_graph_exists(stage):
    from ament_index_python.packages import get_package_prefix

    from worldsystem_core.ros.container import load_class
    from worldsystem_core.ros.stage_node import StageNode

    assert issubclass(load_class(stage.plugin), StageNode)
    prefix = Path(get_package_prefix(stage.package))
    assert (prefix / "lib" / stage.package / stage.executable).exists()


@pytest.mark.parametrize("composed", [True, False])
def test_every_parameter_the_graph_sets_is_one_of_the_stages_settings(tmp_path, composed):
    from dataclasses import fields
    from importlib import import_module

    configs = {
        "ingest": "worldsystem_ingest.config:IngestConfig",
        "slam3r": "worldsystem_slam3r.config:Slam3rConfig",
        "mesher": "worldsystem_mesh.config:MeshConfig",
        "segmenter": "worldsystem_segment.config:SegmentConfig",
        "splats": "worldsystem_viewer.splats.config:SplatsConfig",
        "viewer": "worldsystem_viewer.config:ViewerConfig",
        "recorder": "worldsystem_storage.config:StorageConfig",
        "reporter": "worldsystem.config:ReporterConfig",
        "monitor": "worldsystem.config:MonitorConfig",
    }
    for stage, parameters in stages(Choice(out=tmp_path), composed=composed):
        module, name = configs[stage.name].split(":")
        known = {item.name for item in fields(getattr(import_module(module), name))}
        assert parameters.keys() <= known


@pytest.mark.parametrize("composed", ["true", "false"])
def test_every_process_is_given_the_time_to_finish(launch_file, composed):
    run = launch_file.nodes(given(launch_file, composed=composed))
    for patience in ("sigterm_timeout", "sigkill_timeout"):
        assert all(float(process.kwargs[patience]) >= 60.0 for process in run)


def test_the_simulators_process_understands_every_kind_of_setting(tmp_path):
    given = ["simulator.loop=true", "simulator.seed=3", "simulator.loss=0.5", "simulator.out=7"]
    choice = Choice(out=tmp_path, duration_s=10.0, extra=parse_settings(given))
    words = [word_of(name, value) for name, value in simulator_parameters(choice).items()]
    config = config_from(SimConfig, config_words(SimConfig, words))
    assert (config.loop, config.seed, config.loss, config.out) == (True, 3, 0.5, "7")
    assert (config.flight, config.duration_s) == ("demo", 10.0)


@pytest.mark.parametrize(
    "name",
    [
        "FASTRTPS_DEFAULT_PROFILES_FILE",
        "FASTDDS_DEFAULT_PROFILES_FILE",
        "ROS_AUTOMATIC_DISCOVERY_RANGE",
    ],
)
def test_what_a_person_has_set_for_dds_is_not_replaced(launch_file, monkeypatch, name):
    def is_set() -> bool:
        (actions,) = launch_file.generate_launch_description().args
        kind = "SetEnvironmentVariable"
        return name in {action.args[0] for action in actions if type(action).__name__ == kind}

    monkeypatch.delenv(name, raising=False)
    assert is_set()
    monkeypatch.setenv(name, "a_persons_own")
    assert not is_set()
