# SPDX-License-Identifier: Apache-2.0
"""An export into a folder that holds an earlier one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from worldsystem_storage.export.cameras import export_colmap, export_colmap_text
from worldsystem_storage.export.recorded import RecordedKeyframe, RecordedRun, Recording

HEIGHT, WIDTH = 6, 8


def run_of(folder: Path, count: int) -> RecordedRun:
    """A run of so many keyframes of a wall."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    wall = np.stack([(u - 3.5) / 8.0, (v - 2.5) / 8.0, np.ones(u.shape)], -1).astype(np.float32)
    keyframes = [
        RecordedKeyframe(
            id=number,
            stamp_ns=number,
            world_from_cam=np.eye(4),
            K=np.array([[8.0, 0.0, 3.5], [0.0, 8.0, 2.5], [0.0, 0.0, 1.0]]),
            pointmap=wall,
            confidence=np.ones((HEIGHT, WIDTH), np.float32),
            rgb=np.full((HEIGHT, WIDTH, 3), 90, np.uint8),
        )
        for number in range(count)
    ]
    return RecordedRun(folder, Recording(keyframes))


@pytest.mark.parametrize(
    ("first", "second"),
    [(export_colmap, export_colmap_text), (export_colmap_text, export_colmap)],
    ids=["text over binary", "binary over text"],
)
def test_the_newer_of_two_models_in_one_folder_is_the_one_that_is_read(tmp_path, first, second):
    first(run_of(tmp_path, 3), tmp_path / "out")
    model = second(run_of(tmp_path, 1), tmp_path / "out")
    assert len(pycolmap.Reconstruction(str(model)).images) == 1
    assert len({path.suffix for path in model.iterdir()}) == 1
