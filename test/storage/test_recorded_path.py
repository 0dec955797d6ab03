# SPDX-License-Identifier: Apache-2.0
"""The path of a run is that of its file where that is whole, else that of its bag."""

from __future__ import annotations

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from worldsystem_core.trajectory import StampedPoses, write_tum
from worldsystem_storage.export.recorded import RecordedRun, Recording


def path_of(count: int) -> StampedPoses:
    return StampedPoses(np.arange(count) * 10**9, np.tile(np.eye(4), (count, 1, 1)))


def test_a_whole_file_is_taken(tmp_path):
    write_tum(tmp_path / "trajectory.tum", path_of(5))
    assert len(RecordedRun(tmp_path, Recording(path=path_of(7))).path) == 5


@pytest.mark.parametrize("kept", [0, -5], ids=["empty", "cut off"])
def test_a_file_that_is_not_whole_is_left_out_for_the_bags_path(tmp_path, kept):
    file = tmp_path / "trajectory.tum"
    write_tum(file, path_of(5))
    file.write_bytes(file.read_bytes()[:kept])
    assert len(RecordedRun(tmp_path, Recording(path=path_of(7))).path) == 7


def test_a_camera_that_was_never_tracked_has_an_empty_path(tmp_path):
    write_tum(tmp_path / "trajectory.tum", path_of(0))
    assert len(RecordedRun(tmp_path).path) == 0


def test_a_planners_path_in_the_bag_is_not_taken_for_the_cameras(tmp_path):
    types, kind = get_typestore(Stores.ROS2_JAZZY), "nav_msgs/msg/Path"
    make = types.types
    header = make["std_msgs/msg/Header"](make["builtin_interfaces/msg/Time"](1, 0), "map")
    turn = make["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for log_ns, topic, x in ((1, "/slam/path", 1.0), (2, "/plan", 7.0)):
            place = make["geometry_msgs/msg/Point"](x, 0.0, 0.0)
            pose = make["geometry_msgs/msg/Pose"](place, turn)
            path = make[kind](header, [make["geometry_msgs/msg/PoseStamped"](header, pose)])
            line = writer.add_connection(topic, kind, typestore=types)
            writer.write(line, log_ns, types.serialize_cdr(path, kind))
    assert RecordedRun(tmp_path).path.positions[:, 0].tolist() == [1.0]
