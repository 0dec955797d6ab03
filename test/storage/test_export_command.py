# SPDX-License-Identifier: Apache-2.0
"""Commands that write files say in one line what the disk refused, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from worldsystem.cli import main
from worldsystem_core.trajectory import read_tum

PLACES = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 2.0, 0.5]])


@pytest.fixture
def flight(tmp_path: Path) -> Path:
    """The `.mcap` of a camera's path, alone in its folder."""
    types = get_typestore(Stores.ROS2_JAZZY)
    make = types.types
    kind = "nav_msgs/msg/Path"

    def header(sec: int) -> object:
        stamp = make["builtin_interfaces/msg/Time"](sec, 0)
        return make["std_msgs/msg/Header"](stamp, "map")

    turn = make["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    poses = [
        make["geometry_msgs/msg/PoseStamped"](
            header(n),
            make["geometry_msgs/msg/Pose"](make["geometry_msgs/msg/Point"](*place), turn),
        )
        for n, place in enumerate(PLACES)
    ]
    with Writer(tmp_path / "made", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        line = writer.add_connection("/slam/path", kind, typestore=types)
        writer.write(line, 1, types.serialize_cdr(make[kind](header(0), poses), kind))
    (made,) = (tmp_path / "made").glob("*.mcap")
    (tmp_path / "flights").mkdir()
    return made.rename(tmp_path / "flights" / "flight.mcap")


def test_a_bag_of_one_file_is_exported_beside_it(flight):
    assert main(["export", str(flight), "--to", "tum"]) == 0
    path = read_tum(flight.parent / "flight" / "export" / "tum" / "trajectory.tum")
    np.testing.assert_allclose(path.world_from_cam[:, :3, 3], PLACES)


@pytest.mark.parametrize(
    "command",
    [
        ["export", "BAG", "--to", "tum", "--out", "FILE/out"],
        ["export", "BAG", "--to", "kitti", "--out", "FILE"],
        ["bag", "cut", "BAG", "--out", "FILE/out"],
        ["bag", "merge", "BAG", "--out", "FILE/out"],
        ["import", "BAG", "--out", "FILE/out"],
    ],
    ids=lambda command: "-".join(command[:2] if command[0] == "bag" else command[:1]),
)
def test_where_nothing_can_be_written_is_said_in_one_line(flight, tmp_path, capsys, command):
    (tmp_path / "file").write_text("")
    words = [word.replace("BAG", str(flight)) for word in command]
    assert main([word.replace("FILE", str(tmp_path / "file")) for word in words]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"worldsystem: {tmp_path / 'file'}")
    assert len(told.splitlines()) == 1


def test_a_run_that_is_not_there_is_named_and_no_folder_is_made_for_it(tmp_path, capsys):
    for kind in ("ply", "tum", "points", "mp4"):
        assert main(["export", str(tmp_path / "nowhere"), "--to", kind]) == 2
        assert "nowhere is not there" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
