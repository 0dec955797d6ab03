# SPDX-License-Identifier: Apache-2.0
"""`worldsystem doctor`: what is installed, which GPU, weights, ports; what is missing and how."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from worldsystem.config import MonitorConfig
from worldsystem_ingest.camera_device import cameras
from worldsystem_ingest.config import IngestConfig
from worldsystem_mesh.config import MeshConfig
from worldsystem_slam3r.weight_files import weights_folder
from worldsystem_viewer.config import ViewerConfig

_PORTS = {
    IngestConfig.port: "video server",
    MeshConfig.metrics_port: "mesher's metrics",
    MonitorConfig.port: "monitor",
    ViewerConfig.web_port: "web page",
    ViewerConfig.foxglove_port: "Foxglove",
    ViewerConfig.rerun_web_port: "Rerun's web viewer",
    ViewerConfig.rerun_port: "Rerun",
}
_REQUIRED = {
    "numpy": "numpy",
    "scipy": "scipy",
    "cv2": "opencv-python-headless",
    "av": "av",
    "warp": "warp-lang",
    "open3d": "open3d",
    "aiohttp": "aiohttp",
    "mcap": "mcap",
    "trimesh": "trimesh",
}
_OPTIONAL = {
    "foxglove": ("foxglove-sdk", "the Foxglove server"),
    "rerun": ("rerun-sdk", "Rerun logging"),
    "torch": ("torch==2.13.0", "the learned back-ends"),
}
_NEED_FREE_GB = 5.0
_LEAST_DRIVER = 580
"""Of NVIDIA's, for CUDA 13, which the wheels of torch and Warp bring."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is well, what was found, what to do if it is not."""

    well: bool
    what: str
    found: str
    cure: str = ""
    required: bool = True


def examine() -> int:
    """Print every finding; 1 when something required is missing."""
    findings = [finding for check in _CHECKS for finding in check()]
    for finding in findings:
        mark = "ok     " if finding.well else ("MISSING" if finding.required else "absent ")
        cure = f"  → {finding.cure}" if finding.cure and not finding.well else ""
        print(f"{mark}  {finding.what:18s} {finding.found}{cure}")
    return int(any(not finding.well and finding.required for finding in findings))


def _machine() -> Iterator[Finding]:
    yield Finding(True, "machine", f"{platform.platform()}, {os.cpu_count()} cores")
    version = platform.python_version_tuple()
    well = (int(version[0]), int(version[1])) >= (3, 11)
    yield Finding(well, "Python", platform.python_version(), "use Python 3.11 or later")
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    found = f"{free_gb:.0f} GB free here"
    yield Finding(free_gb > _NEED_FREE_GB, "disk", found, "make room: recordings need space")


def _ros() -> Iterator[Finding]:
    distro = os.environ.get("ROS_DISTRO", "")
    for module in ("rclpy", "worldsystem_msgs"):
        there = importlib.util.find_spec(module) is not None
        cure = "run `make setup`, then `source tools/env.sh`; or use `worldsystem run --no-ros`"
        yield Finding(there, module, f"ROS 2 {distro}" if there else "not found", cure)


def _libraries() -> Iterator[Finding]:
    for module, package in _REQUIRED.items():
        yield _library(module, package, "", required=True)
    for module, (package, purpose) in _OPTIONAL.items():
        yield _library(module, package, purpose, required=False)


def _library(module: str, package: str, purpose: str, *, required: bool) -> Finding:
    name = package.partition("==")[0]
    if importlib.util.find_spec(module) is None:
        found = f"not installed (for {purpose})" if purpose else "not installed"
        return Finding(False, name, found, f"pip install '{package}'", required)
    try:
        return Finding(True, name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(True, name, "installed")


def _gpu() -> Iterator[Finding]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        found = "none; everything runs on the CPU"
        yield Finding(False, "GPU", found, "", required=False)
        return
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10.0, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        yield Finding(False, "GPU", f"nvidia-smi failed: {error}", "check the driver", False)
        return
    for line in done.stdout.splitlines():
        driver = line.rpartition(",")[2].strip().partition(".")[0]
        well = not driver.isdigit() or int(driver) >= _LEAST_DRIVER
        cure = f"install NVIDIA's driver {_LEAST_DRIVER} or later; with this one all is on the CPU"
        yield Finding(well, "GPU", line.strip(), cure, required=False)


def _weights() -> Iterator[Finding]:
    place = weights_folder()
    found = str(place) if place.is_dir() else "none; the `geometric` back-ends need none"
    cure = "run `make weights`, or set WORLDSYSTEM_WEIGHTS to their folder"
    yield Finding(place.is_dir(), "weights", found, cure, False)


def _ports() -> Iterator[Finding]:
    for port, purpose in _PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                cure = f"`ss -ltnp 'sport = :{port}'` names the program that holds it"
                yield Finding(False, f"port {port}", f"taken ({purpose})", cure, False)
                continue
        yield Finding(True, f"port {port}", f"free ({purpose})")


def _cameras() -> Iterator[Finding]:
    found = cameras()
    yield Finding(bool(found), "camera", ", ".join(found) or "none", "", required=False)


_CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _machine,
    _ros,
    _libraries,
    _gpu,
    _weights,
    _ports,
    _cameras,
)
