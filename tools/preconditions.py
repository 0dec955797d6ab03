# SPDX-License-Identifier: Apache-2.0
"""What the set-up needs of the machine and of the place, looked at before anything is fetched.

Plain standard library: `setup.py` uses it before anything is installed.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

APT_LIBRARIES = {
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libGL.so.1": "libgl1",
    "libgomp.so.1": "libgomp1",
    "libX11.so.6": "libx11-6",
}
TEST_PEERS = {  # a file of each package, and the package
    "usr/bin/ffmpeg": "ffmpeg",
    "usr/bin/srt-live-transmit": "srt-tools",
    "usr/lib/python3/dist-packages/gi/__init__.py": "python3-gi",
    "usr/lib/*/girepository-1.0/GstRtspServer-1.0.typelib": "gir1.2-gst-rtsp-server-1.0",
    "usr/lib/*/gstreamer-1.0/libgstapp.so": "gstreamer1.0-plugins-base",
    "usr/sbin/rabbitmq-server": "rabbitmq-server",
    "usr/lib/*/gstreamer-1.0/libgstrtp.so": "gstreamer1.0-plugins-good",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

LEAST_FREE_GB = 3.0
"""With less, nothing fits, however small the builds of the libraries are."""

OLDEST_GLIBC = (2, 35)
"""That of Open3D's wheels; those of ROS are content with 2.28."""


class SetupError(Exception):
    """Something is missing that the set-up cannot provide; the message says what to do."""


def check_place(root: Path) -> None:
    """Raises `SetupError` for a path that cannot be built in."""
    if any(sign in " :\"'" for sign in str(root)):
        raise SetupError(
            f"the path {root} has a space, a colon or a quote, which ROS's build tools do not "
            "take; move the checkout"
        )


def check_room(root: Path, environment: Path) -> None:
    """Raises `SetupError` where a first set-up is sure to fill the disk."""
    if (environment / "pyvenv.cfg").exists():
        return
    disk = shutil.disk_usage(root)
    if disk.total and disk.free < LEAST_FREE_GB * 1e9:  # some file systems tell 0 for all
        raise SetupError(
            f"{disk.free / 1e9:.1f} GB are free at {root}, and the set-up needs about 15 "
            "(7 with a build of torch for the CPU); make room, or move the checkout"
        )


def check_python() -> None:
    """Raises `SetupError` in a Python that ROS's wheels are not for."""
    if sys.version_info[:2] not in ((3, 11), (3, 12)):
        raise SetupError(
            f"Python {sys.version.split()[0]} is not supported; use 3.11 or 3.12, "
            "e.g. `make demo PYTHON=python3.11`; where the system has neither, pyenv or uv "
            "brings one"
        )


def check_environment(environment: Path) -> None:
    """Raises `SetupError` for somebody's virtual environment of another Python: one that is made
    over it would keep that Python's programs."""
    if (environment / "stamps/environment").exists():
        return  # of an earlier set-up, which may be removed
    theirs, ours = version_of(told_of(environment)), own_version()
    if theirs not in ("", ours):
        raise SetupError(
            f"{environment} is a virtual environment of Python {theirs}, which the set-up did not "
            f"make, and this is Python {ours}; move it away, or remove it"
        )


def check_machine(ros: str) -> None:
    """Raises `SetupError` where there are no wheels; `ros` is the sourced distribution or ''."""
    machine = platform.machine()
    if machine != "x86_64" and not ros:
        raise SetupError(
            f"there are wheels of ROS for x86_64 only, and this machine is {machine}; install and "
            "source a ROS 2 (Jazzy or Kilted), which is used then"
        )
    library, version = platform.libc_ver()
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if library == "glibc" and numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_GLIBC:
        raise SetupError(
            f"glibc {version} is too old for the wheels of Open3D, which need 2.35; use a newer "
            "system, such as Ubuntu 22.04 or Debian 12"
        )


def missing_for_python() -> list[str]:
    """Packages of what this Python lacks to build and to make environments; `python3-dev` would be
    that of the system's own Python."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if headers.exists() and importlib.util.find_spec("ensurepip") is not None:
        return []
    return [f"python{own_version()}-dev", f"python{own_version()}-venv"]


def missing_libraries() -> list[str]:
    """Packages of the libraries that Open3D needs and that do not load."""
    return [package for so, package in APT_LIBRARIES.items() if not loads(so)]


def missing_test_peers() -> list[str]:
    """Packages of the senders and servers that are not installed."""
    return [package for file, package in TEST_PEERS.items() if not any(Path("/").glob(file))]


def has_browser() -> bool:
    return any(shutil.which(name) for name in BROWSERS)


def loads(shared_object: str) -> bool:
    try:
        ctypes.CDLL(shared_object)
    except OSError:
        return False
    return True


def made_elsewhere(environment: Path) -> bool:
    """Whether an earlier set-up made this virtual environment in another place, or with another
    Python than this one. In doubt it did not."""
    if not (environment / "stamps/environment").exists():
        return False  # whoever made it, it was not the set-up
    told = told_of(environment)
    if version_of(told) not in ("", own_version()):
        return True
    python = re.search(r"^executable = (/.*)$", told, re.MULTILINE)
    if python and is_another(Path(python[1]), own_python()):
        return True  # of the same version, yet its library does not fit the other's program
    place = re.search(r"^command = .*? -m venv [^/\n]*(/.*)$", told, re.MULTILINE)
    return place is not None and is_another(Path(place[1]), environment)


def built_with_another_ros(build: Path, places: list[str]) -> bool:
    """Whether an earlier build found its ROS in none of `places`: CMake keeps what it found once,
    and a message package that this ROS had was not built."""
    try:
        told = (build / "worldsystem_msgs/CMakeCache.txt").read_text(errors="replace")
    except OSError:
        return False
    found = re.search(r"^ament_cmake_DIR:PATH=(/.*)$", told, re.MULTILINE)
    if found is None:
        return False
    names = {Path(found[1]), Path(found[1]).resolve()}
    known = {Path(place) for place in places} | {Path(place).resolve() for place in places}
    return not any(name.is_relative_to(place) for name in names for place in known)


def told_of(environment: Path) -> str:
    """What a virtual environment tells of itself; '' for none."""
    try:
        return (environment / "pyvenv.cfg").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def version_of(told: str) -> str:
    """Python's version without its patch, as venv, virtualenv and uv write it; '' when not told."""
    version = re.search(r"^version(?:_info)? *= *(\d+\.\d+)", told, re.MULTILINE)
    return version[1] if version else ""


def own_version() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def own_python() -> Path:
    """The Python that runs this, not a virtual environment's link to it."""
    return Path(getattr(sys, "_base_executable", sys.executable))


def is_another(place: Path, environment: Path) -> bool:
    """Whether `place` is gone or another folder, not this one under another name."""
    try:
        return not place.samefile(environment)
    except FileNotFoundError:
        return True
    except OSError:
        return False


@contextmanager
def alone(root: Path, tell: Callable[[], None]) -> Iterator[None]:
    """Be the only set-up that works in `root`; calls `tell` when it must wait for another."""
    handle = os.open(root, os.O_RDONLY)
    try:
        wait_for_lock(handle, tell)
        yield
    finally:
        os.close(handle)


def wait_for_lock(handle: int, tell: Callable[[], None]) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        tell()
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        return  # a file system without locks, as some over a network are
