# SPDX-License-Identifier: Apache-2.0
"""Wheels of the workspace, installed by `pip` into an environment where nothing is sourced."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from dds_domain import own_domain

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(sysconfig.get_path("purelib"))

pytestmark = [pytest.mark.slow, pytest.mark.ros, pytest.mark.timeout(900)]
if importlib.util.find_spec("ros_wheels_bootstrapper") is None:
    pytest.skip("ROS is not installed as wheels here", allow_module_level=True)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, str(ROOT / "tools" / "wheels.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return sorted(out.glob("*.whl"))


@pytest.fixture(scope="module")
def worldsystem(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a new environment, which borrows all libraries but ours from this one."""
    place = tmp_path_factory.mktemp("venv") / "fresh"
    venv.create(place, with_pip=False, symlinks=True)
    site = place / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    (site / "borrowed.pth").write_text(f"import site; site.addsitedir({str(SITE)!r})\n")
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install"]
    words = ["--no-deps", "--no-index", "--ignore-installed", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *words, *map(str, wheels)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place / "bin" / "worldsystem"


def run(*words: object, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run with no more than a bare terminal and the borrowed libraries' places."""
    libraries = [Path(sys.prefix) / "lib", *sorted(SITE.glob("ros_*.libs"))]
    environment = {
        "HOME": os.environ["HOME"],
        "PATH": "/usr/bin:/bin",
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "AMENT_PREFIX_PATH": sys.prefix,
        "ROS_DOMAIN_ID": str(own_domain(__file__)),
    }
    return subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=timeout_s, env=environment
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_every_file_of_every_package_is_in_its_wheel(wheels: list[Path]) -> None:
    packed = {name for wheel in wheels for name in zipfile.ZipFile(wheel).namelist()}
    for source in sorted((ROOT / "src").glob("worldsystem*/worldsystem*/**/*")):
        if source.is_file() and "__pycache__" not in source.parts:
            name = source.relative_to(ROOT / "src").as_posix().partition("/")[2]
            assert name in packed
    messages = next(wheel.name for wheel in wheels if "msgs" in wheel.name)
    assert messages.endswith(("x86_64.whl", "aarch64.whl")), "it holds machine code"


def test_no_wheel_names_a_path_of_this_machine(wheels: list[Path]) -> None:
    for wheel in wheels:
        archive = zipfile.ZipFile(wheel)
        for name in archive.namelist():
            assert not name.startswith(("/", ".."))
            if not name.endswith((".so", ".json", ".onnx", ".safetensors")):
                assert str(ROOT).encode() not in archive.read(name), name


def test_the_installed_command_runs_without_anything_sourced(worldsystem: Path) -> None:
    told = run(worldsystem, "--version")
    assert told.stdout.startswith("worldsystem 0."), told.stderr
    backends = run(worldsystem, "backends")
    assert "geometric    runs here" in backends.stdout, backends.stderr


def test_the_installed_demo_maps_and_records(worldsystem: Path, tmp_path: Path) -> None:
    words = [
        "demo",
        "--duration",
        10,
        "--headless",
        "--out",
        tmp_path / "run",
        "--port",
        free_port(),
    ]
    quiet = ["--set", "monitor.port=0", "mesher.metrics_port=0"]
    done = run(worldsystem, *words, *quiet, timeout_s=600)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["keyframes"] > 1
    assert summary["triangles"] > 1000
    assert (tmp_path / "run" / "bag" / "metadata.yaml").exists()
