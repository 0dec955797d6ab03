# SPDX-License-Identifier: Apache-2.0
"""However long the video, the back-end keeps no more than its settings allow."""

from __future__ import annotations

import gc
import mmap
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import golden_folder, tiny_networks

from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.slam3r.backend import Slam3rBackend
from worldsystem_slam3r.slam3r.offline import OfflineScene
from worldsystem_slam3r.slam3r.shots import Shot
from worldsystem_slam3r.slam3r.views import View

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from slam3r_memory import (
    EVERYTHING_COUNTS,
    PX,
    endless_video,
    resident_mb,
    slope_mb_per_1000,
    stream,
)

torch.set_num_threads(1)

SMALL = {"buffer_frames": 10}


def held_by(kind: type) -> int:
    return sum(issubclass(type(item), kind) for item in gc.get_objects())


def test_the_number_of_frames_and_arrays_kept_does_not_grow():
    config = Slam3rConfig(**{"backend": "slam3r", **EVERYTHING_COUNTS, **SMALL})
    backend = Slam3rBackend(tiny_networks(), config, picture_px=PX)
    kept: list[Counter[str]] = []
    for frame in endless_video(360):
        backend.feed(frame)
        if frame.id in (119, 239, 359):
            gc.collect()
            kept.append(
                Counter(views=held_by(View), shots=held_by(Shot), tensors=held_by(torch.Tensor))
            )
    most = config.buffer_frames + config.stride_max + 12
    assert 10 < kept[0]["views"] <= most
    assert 2 < kept[0]["shots"] <= most
    assert kept[2]["views"] <= kept[0]["views"] + 4
    assert kept[2]["tensors"] <= kept[0]["tensors"] + 40


@pytest.mark.slow
def test_a_thousand_frames_leave_memory_where_it_was():
    golden_folder()
    memory, _ = stream(tiny_networks(), 1000, warm_up=400, **SMALL)
    # Pages that the allocator happens to take weigh more over 600 frames than over 10,000.
    assert slope_mb_per_1000(memory) < 1.0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_frames_cost_less_than_half_a_megabyte_per_thousand():
    golden_folder()
    memory, seconds = stream(tiny_networks(), 10_000, warm_up=1000)
    assert slope_mb_per_1000(memory) < 0.5
    assert np.median(seconds[1000:1500]) / np.median(seconds[-500:]) > 0.8


def test_memory_is_told_in_megabytes():
    before = resident_mb()
    with mmap.mmap(-1, 40_000_000) as block:  # an array may get memory that was freed before
        for _ in range(40):
            block.write(bytes(1_000_000))
        assert 30 < resident_mb() - before < 60


class Glances:
    """Networks that trust every window alike, and note how many frames are kept meanwhile."""

    def __init__(self) -> None:
        self.scene = OfflineScene(self, lambda _: torch.zeros(3, 2, 2), 5000)
        self.encoded = self.most_kept = 0

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        self.encoded += len(images)
        return torch.zeros(len(images), 4, 2)

    def i2p(self, tokens: torch.Tensor, ref: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.most_kept = max(self.most_kept, len(self.scene._views))
        return torch.zeros(len(tokens), 2, 2, 3), torch.ones(len(tokens), 2, 2)


def test_the_search_for_a_stride_keeps_no_frames_of_the_video():
    networks = Glances()
    assert networks.scene._chosen_stride() == 1
    assert networks.most_kept <= 7
    assert networks.encoded <= 20 * 10 * 7  # strides, windows of each, frames of each
