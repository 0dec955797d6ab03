# SPDX-License-Identifier: Apache-2.0
"""Bags as other programs leave them: transports in names, indices that lead nowhere, packed."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from bag_lab import START_NS, camera_info, compressed, foreign_mcap, pictures, write_ros2
from ingest_lab import MemorySink, number_in, numbered_picture

from worldsystem_core.errors import SourceError
from worldsystem_ingest.bag import BagSource
from worldsystem_ingest.bag.mcap_file import McapFile
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sink import Summary
from worldsystem_ingest.source import open_source


def played(path: Path) -> tuple[MemorySink, Summary]:
    sink = MemorySink()
    return sink, BagSource(path, IngestConfig()).run(sink, threading.Event())


@pytest.mark.parametrize(
    ("topic", "fx", "distortion"),
    [
        ("/cam/image_rect/compressed", 300, ()),
        ("/cam/image_rect_color/compressed", 300, ()),
        ("/cam/image_raw/compressed", 150, (0.1, 0.01, 0.0, 0.0, 0.0)),
        ("/cam/direct/compressed", 150, (0.1, 0.01, 0.0, 0.0, 0.0)),
    ],
)
def test_a_rectified_topic_is_known_by_its_name_before_that_of_its_transport(
    tmp_path, topic, fx, distortion
):
    picture = compressed(numbered_picture(0), START_NS)
    messages = [
        (topic, "sensor_msgs/msg/CompressedImage", START_NS, picture),
        ("/cam/camera_info", "sensor_msgs/msg/CameraInfo", START_NS, camera_info(START_NS)),
    ]
    sink, _ = played(write_ros2(tmp_path / "run", messages))
    camera = sink.frames[0].camera
    assert (camera.fx, camera.distortion) == (fx, distortion)


@pytest.mark.parametrize(
    "lacking", ["repeat_channels", "repeat_schemas", "use_chunking", "use_statistics"]
)
def test_what_an_index_does_not_repeat_is_played_from_the_file(tmp_path, lacking):
    sink, summary = played(foreign_mcap(tmp_path / "run.mcap", 6, **{lacking: False}))
    assert [number_in(frame.rgb) for frame in sink.frames] == list(range(6))
    assert summary.broken is None


def test_a_file_without_chunks_is_not_played_out_of_memory(tmp_path):
    path = foreign_mcap(tmp_path / "run.mcap", 200, use_chunking=False)
    tracemalloc.start()
    try:
        assert sum(1 for _ in McapFile(path).messages({"/image"})) == 200
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 0.4 * path.stat().st_size


def test_a_bag_that_is_packed_file_by_file_is_refused_with_what_to_do(tmp_path):
    bag = write_ros2(tmp_path / "run", pictures(2))
    (file,) = bag.glob("*.mcap")
    packed = file.with_name(f"{file.name}.zstd")
    packed.write_bytes(zstandard.compress(file.read_bytes()))
    file.unlink()
    for place in (bag, packed):
        with pytest.raises(SourceError, match="worldsystem import"):
            open_source(str(place), IngestConfig())
