# SPDX-License-Identifier: Apache-2.0
"""What a run was made with: library versions and the checkout's commit."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

_LIBRARIES = ("numpy", "opencv-python-headless", "warp-lang", "open3d", "av", "foxglove-sdk")


def versions() -> dict[str, str]:
    """Versions of the libraries that results depend on most."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Short hash of the checkout that runs; `unknown` when there is none."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).resolve().parent,
            timeout=5.0,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
