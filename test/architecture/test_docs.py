# SPDX-License-Identifier: Apache-2.0
"""The pages tell the truth: generated ones are fresh, links lead somewhere, examples run."""

from __future__ import annotations

import ast
import inspect
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dds_domain import own_domain

from worldsystem import graph

ROOT = Path(__file__).resolve().parents[2]
BUILT = {".venv", "build", "install", "log", "runs", ".git", ".cache", ".mypy_cache", ".ruff_cache"}
PAGES = sorted(path for path in ROOT.rglob("*.md") if not BUILT & set(path.relative_to(ROOT).parts))
EXAMPLES = ROOT / "examples"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
ABROAD = ("http://", "https://", "mailto:")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users|mnt|media|data)/[\w.-]+")
REQUIREMENTS = (
    "requirements.txt",
    "requirements-bare.txt",
    "requirements-reprocess.txt",
    "requirements-ros.txt",
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def check(tool: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / tool), "--check"]
    paths = [str(path) for path in sorted((ROOT / "src").glob("worldsystem*"))]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    }
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def prose(page: Path) -> str:
    """The page without its blocks of code, whose brackets are no links."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands(page: Path) -> list[str]:
    """The lines of the page's blocks of code, those that are continued as one."""
    blocks = re.findall(r"```.*?\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def anchors(page: Path) -> set[str]:
    """The names that a renderer gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in headings}


def requirements() -> list[str]:
    lines = [
        line.strip()
        for name in REQUIREMENTS
        for line in (ROOT / "tools" / name).read_text().splitlines()
    ]
    return [re.split(r"[\[<=>; ]", line)[0] for line in lines if line and not line.startswith("#")]


def test_the_generated_pages_are_fresh() -> None:
    done = check("parameters.py")
    assert done.returncode == 0, done.stderr


def test_the_figures_in_the_readme_are_fresh() -> None:
    done = check("tables.py")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_local_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(ABROAD):
            continue
        place, _, anchor = link.partition("#")
        target = page if not place else (page.parent / place).resolve()
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_no_path_of_one_machine(page: Path) -> None:
    assert not MACHINE_PATH.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_example_opens_the_map_to_everybody(page: Path) -> None:
    for command in commands(page):
        if "viewer.host=0.0.0.0" in command:
            assert {"viewer.token_file", "viewer.tls_certificate", "viewer.tls_key"} <= set(
                re.findall(r"[\w.]+(?==)", command)
            )
            assert {"viewer.foxglove=false", "viewer.rerun=false"} <= set(command.split())


def test_every_room_of_a_package_is_named() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = page.split("## Rooms", 1)[1].split("\n## ", 1)[0]
    parts = re.findall(r"^- \*\*(\w+)\*\*:(.*?)(?=^- |\Z)", rooms, re.MULTILINE | re.DOTALL)
    told = {name: set(re.findall(r"`([\w/]+)`", text)) for name, text in parts}
    for path in (ROOT / "src").glob("worldsystem*/worldsystem*/*/__init__.py"):
        package = path.parent.parent.name
        name = package.removeprefix("worldsystem_")
        assert path.parent.name in told[name], f"{package}: a room that nobody is told of"
    for name, words in told.items():
        folder = ROOT / "src" / f"worldsystem_{name}" / f"worldsystem_{name}"
        folder = folder if folder.exists() else ROOT / "src" / name / name
        for word in words:
            assert (folder / word).exists() or (folder / f"{word}.py").exists(), f"{name}: {word}"


def test_the_root_holds_what_a_project_is_known_by_alone() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout")
    known = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"}
    known |= {"pyproject.toml", ".dockerignore", ".gitignore", ".pre-commit-config.yaml"}
    assert {name for name in listed.stdout.splitlines() if "/" not in name} <= known


def test_every_dependency_has_its_line() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| ((?:`[\w.-]+`(?:, )?)+) \|", page, flags=re.MULTILINE)
    named = {name for cell in told for name in re.findall(r"`([\w.-]+)`", cell)}
    assert not set(requirements()) - named, "no line in docs/dependencies.md"


def test_the_readme_lists_every_launch_argument_with_its_default() -> None:
    tree = ast.parse((ROOT / "launch" / "full.launch.py").read_text())
    arguments = next(
        eval(ast.unparse(node.value), vars(graph).copy())  # some are the graph's own defaults
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ARGUMENTS"
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, (default, _) in arguments.items():
        shown = f"`{default}`" if default else "empty"
        assert f"| `{name}` | {shown} |" in readme


def test_the_readme_shows_the_example_as_it_is() -> None:
    example = (ROOT / "examples" / "without_ros.py").read_text()
    body = example.split('"""\n\n', 1)[1].rstrip()
    assert body in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=name_of)
def test_a_decision_says_why_what_was_measured_and_what_follows(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.fullmatch(r"\d{3}-[a-z0-9-]+\.md", page.name)
    for heading in ("Context", "Decision", "Measured", "Consequences"):
        assert f"\n## {heading}\n" in text


@pytest.mark.slow
def test_the_example_without_ros_leaves_a_mesh_and_a_path(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "without_ros.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "poses" in done.stdout
    assert (tmp_path / "mesh.ply").stat().st_size > 10_000
    assert len((tmp_path / "trajectory.tum").read_text().splitlines()) > 20


@pytest.mark.ros
def test_the_listening_example_prints_a_pose_that_is_published() -> None:
    rclpy = pytest.importorskip("rclpy")
    messages = pytest.importorskip("geometry_msgs.msg")
    pytest.importorskip("worldsystem_msgs")
    domain = own_domain(__file__)
    command = [sys.executable, str(EXAMPLES / "listen.py")]
    environment = os.environ | {"ROS_DOMAIN_ID": str(domain)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as listener:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain)
        try:
            node = rclpy.create_node("pose_source", context=context)
            publisher = node.create_publisher(messages.PoseStamped, "slam/pose", 10)
            wait_until(lambda: publisher.get_subscription_count() > 0)
            pose = messages.PoseStamped()
            pose.header.frame_id, pose.pose.position.x = "scene", 1.5
            publisher.publish(pose)
            assert listener.stdout is not None
            assert listener.stdout.readline() == "camera at 1.500 0.000 0.000 in scene\n"
        finally:
            listener.send_signal(signal.SIGINT)
            rclpy.shutdown(context=context)
        assert listener.wait(10) == 0


def wait_until(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"nothing after {timeout_s} s"
        time.sleep(0.05)


@pytest.mark.ros
def test_a_drone_among_several_as_the_page_starts_it_has_transforms_of_its_own(context) -> None:
    """Two that tell `odom` → `base_link` on one topic make every listener's frames jump."""
    rclpy = pytest.importorskip("rclpy")
    pytest.importorskip("worldsystem_msgs")
    from worldsystem_core.ros import topics

    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (given,) = re.findall(r"Several drones on one graph: `(--ros-args [^`]+)`", page)
    node = rclpy.create_node(
        "slam3r", context=context, cli_args=given.split(), use_global_arguments=False
    )
    try:
        for topic in (topics.TF, topics.TF_STATIC):
            assert node.resolve_topic_name(topic.name) == f"/drone1{topic.name}"
    finally:
        node.destroy_node()


def test_the_example_names_a_frame_s_fields_as_they_have_to_be_given() -> None:
    from worldsystem_core.frames import Frame

    example = (ROOT / "examples" / "without_ros.py").read_text(encoding="utf-8")
    shown = re.search(r"any Frame\(([^)]*)\)", example)
    assert shown is not None
    needed = [
        parameter.name
        for parameter in inspect.signature(Frame).parameters.values()
        if parameter.default is parameter.empty
    ]
    assert shown.group(1) == ", ".join(f"{name}=…" for name in needed)


def test_the_stream_that_a_sender_is_told_to_name_is_the_one_that_is_reconstructed() -> None:
    from worldsystem.settings_text import parse_settings
    from worldsystem_ingest.config import IngestConfig

    page = ROOT / "docs" / "troubleshooting.md"
    (command,) = [line for line in commands(page) if "ingest.token_file" in line]
    (stream,) = re.findall(r"/ws/video\?stream=(\w+)", page.read_text(encoding="utf-8"))
    given = parse_settings(command.partition("--set ")[2].split())["ingest"]
    assert given.get("stream", IngestConfig.stream) == stream


def test_drones_on_one_machine_are_told_of_every_port_that_two_would_want() -> None:
    from pkgutil import resolve_name

    from worldsystem_core.config import settings_of

    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"Several drones on one graph:.*?\n\n", page, flags=re.DOTALL)
    for stage in graph.STAGES:
        for setting in settings_of(resolve_name(stage.settings)):
            is_off = setting.name.startswith(("rerun", "frames"))  # of a node by hand
            if re.search(r"(^|_)port$", setting.name) and not is_off:
                assert f"`{stage.name}.{setting.name}`" in told
    assert "--namespace" in told
