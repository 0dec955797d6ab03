# SPDX-License-Identifier: Apache-2.0
"""The rooms of the house: who may import whom, and who may know ROS."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for path in (ROOT / "src").glob("worldsystem*/worldsystem*/**/*.py") if path.is_file()
)
STAGES = {"ingest", "slam3r", "mesh", "segment", "storage", "viewer", "sim", "bridge"}
ROS_MODULES = re.compile(
    r"^(rclpy|ament_index_python|launch|launch_ros|\w+_msgs|\w+_interfaces|builtin_interfaces)(\.|$)"
)


def imports(path: Path) -> set[str]:
    """Every module that the file imports, at its head or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def package_of(path: Path) -> str:
    return path.relative_to(ROOT / "src").parts[0]


def knows_ros(path: Path) -> bool:
    """`node.py`, the core's `ros` room, and the runner that starts nodes."""
    parts = path.relative_to(ROOT / "src").parts
    return (
        path.name == "node.py"
        or parts[:3] == ("worldsystem_core", "worldsystem_core", "ros")
        or parts in RUNNERS
    )


RUNNERS = {("worldsystem", "worldsystem", name) for name in ("app.py", "separate.py")}


def test_there_is_something_to_check():
    assert len(SOURCES) > 50


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_a_package_imports_only_what_lies_below_it(path):
    own = package_of(path)
    allowed = {own, "worldsystem_core", "worldsystem_msgs"}
    if own == "worldsystem":
        allowed |= {f"worldsystem_{stage}" for stage in STAGES}
    ours = {name.split(".")[0] for name in imports(path) if name.startswith("worldsystem")}
    assert ours <= allowed


@pytest.mark.parametrize(
    ("room", "above"), [("charts", ("evaluation", "report")), ("evaluation", ("report",))]
)
def test_a_report_is_made_of_an_evaluation_and_both_of_charts(room, above):
    files = [path for path in SOURCES if path.parts[-3:-1] == ("worldsystem", room)]
    assert files
    upwards = tuple(f"worldsystem.{name}" for name in above)
    assert not [name for path in files for name in imports(path) if name.startswith(upwards)]


def rooms_needed(package: str) -> dict[str, set[str]]:
    """Each folder of a package, and the folders beside it that its files import from."""
    folder = ROOT / "src" / package / package
    rooms = {path.name for path in folder.iterdir() if any(path.glob("*.py"))}
    return {
        room: {
            name.split(".")[1]
            for path in (folder / room).rglob("*.py")
            for name in imports(path)
            if name.startswith(f"{package}.")
        }
        & rooms - {room}
        for room in rooms
    }


@pytest.mark.parametrize("package", sorted({package_of(path) for path in SOURCES}))
def test_no_two_rooms_of_a_package_need_each_other(package):
    TopologicalSorter(rooms_needed(package)).prepare()  # raises `CycleError`, which names them


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_only_nodes_and_the_ros_room_know_ros(path):
    ros = {name for name in imports(path) if ROS_MODULES.match(name)}
    room = {name for name in imports(path) if name.startswith("worldsystem_core.ros")}
    if not knows_ros(path):
        assert not ros
        assert not room


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_a_file_tells_one_story(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert ast.get_docstring(ast.parse(text)), "no module docstring"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_a_function_does_one_step(path):
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > 60
    ]
    assert not long
