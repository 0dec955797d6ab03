# SPDX-License-Identifier: Apache-2.0
"""Where the recordings are, and the tools of this folder's tests on the path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def shared_data() -> Path:
    default = Path(__file__).parents[3] / "shared" / "data"
    return Path(os.environ.get("WORLDSYSTEM_DATA", default))


@pytest.fixture
def karma_mp4() -> Path:
    path = shared_data() / "gopro_karma_drone" / "karma.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is not here; set WORLDSYSTEM_DATA to the folder of recordings")
    return path
