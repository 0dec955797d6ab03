# SPDX-License-Identifier: Apache-2.0
"""Where an export of one file goes."""

from __future__ import annotations

from pathlib import Path


def output_file(out: Path, name: str) -> Path:
    """`out` itself when it names a file, else `name` in that folder, which is made."""
    path = out if out.suffix else out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
