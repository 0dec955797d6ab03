# SPDX-License-Identifier: Apache-2.0
"""`ros2 launch worldsystem full.launch.py`: the whole system, from the graph in worldsystem.graph.

`composed:=true` loads the nodes into one Python container, where frames pass by reference;
`composed:=false` runs one process each, with the same classes and topics.
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_path
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import ComposableNodeContainer, Node
from launch_ros.descriptions import ComposableNode

from worldsystem.graph import SIMULATED_S, SIMULATOR, Choice, simulator_parameters, stages
from worldsystem.run_folder import made_run_folder
from worldsystem.settings_text import parse_settings
from worldsystem_core.stale_segments import clean_stale_segments

ARGUMENTS = {
    "source": ("sim", "sim, server:, a file, a folder of images, a URL, or camera:0"),
    "backend": (Choice.backend, "reconstruction back-end"),
    "device": (Choice.device, "where the mesh lives: auto, cpu or cuda"),
    "record": ("true", "record an MCAP bag"),
    "viewer": ("true", "serve the web page, Foxglove and Rerun"),
    "composed": ("true", "all nodes in one process"),
    "duration": (str(SIMULATED_S), "length of the simulated flight [s]"),
    "out": ("", "folder of the run; empty = runs/<time> in the working directory"),
    "set": ("", "any parameters, as 'ingest.host=0.0.0.0 mesher.voxel=0.05'"),
}
ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
# Nodes finish what they hold and write the report on SIGINT; that takes longer than launch waits.
PATIENCE = {"sigterm_timeout": "90", "sigkill_timeout": "90"}


def generate_launch_description() -> LaunchDescription:
    """The arguments, the environment, and then the nodes that the arguments choose.

    Shared memory of the dead is freed here, before any of them begins (docs/decisions/076).
    """
    clean_stale_segments()
    profile = str(get_package_share_path("worldsystem") / "config" / "fastdds.xml")
    dds = {f"{name}_DEFAULT_PROFILES_FILE": profile for name in ("FASTRTPS", "FASTDDS")}
    dds["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SYSTEM_DEFAULT"
    unset = {name: value for name, value in dds.items() if name not in os.environ}
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()
            ),
            *(SetEnvironmentVariable(*pair) for pair in (ENVIRONMENT | unset).items()),
            OpaqueFunction(function=nodes),
        ]
    )


def nodes(context: LaunchContext) -> list:
    """The simulator, when it is the source, and the stages: composed, or one process each."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    choice = Choice(
        source=given["source"],
        backend=given["backend"],
        device=given["device"],
        record=is_true("record", given["record"]),
        viewer=is_true("viewer", given["viewer"]),
        realtime=True,
        duration_s=float(given["duration"]),
        out=Path(given["out"]) if given["out"] else made_run_folder(Path.cwd() / "runs"),
        extra=parse_settings(given["set"].split()),
    )
    simulator = [
        Node(
            package=SIMULATOR.package,
            executable=SIMULATOR.executable,
            name=SIMULATOR.name,
            parameters=[simulator_parameters(choice)],
            output="screen",
            **PATIENCE,
        )
    ]
    composed = is_true("composed", given["composed"])
    run = _container(choice) if composed else _processes(choice)
    return run + (simulator if choice.simulated else [])


def is_true(name: str, text: str) -> bool:
    """What the argument `name` says, in capitals or not; `RuntimeError` where it is neither."""
    answers = {"true": True, "false": False}
    if text.lower() not in answers:
        raise RuntimeError(f"{name}:={text} is neither true nor false")
    return answers[text.lower()]


def _container(choice: Choice) -> list:
    components = [
        ComposableNode(
            package=stage.package, plugin=stage.plugin, name=stage.name, parameters=[parameters]
        )
        for stage, parameters in reversed(stages(choice))
    ]
    return [
        ComposableNodeContainer(
            package="worldsystem_core",
            executable="container",
            name="worldsystem",
            namespace="",
            composable_node_descriptions=components,
            output="screen",
            **PATIENCE,
        )
    ]


def _processes(choice: Choice) -> list:
    return [
        Node(
            package=stage.package,
            executable=stage.executable,
            name=stage.name,
            parameters=[parameters],
            output="screen",
            **PATIENCE,
        )
        for stage, parameters in reversed(stages(choice, composed=False))
    ]
