# SPDX-License-Identifier: Apache-2.0
"""Data sets become bags that others read and that ingest plays, with every number as it was."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Writer1
from rosbags.typesys import Stores, get_typestore

from worldsystem_core.geometry.rotation import matrix_from_quaternion_xyzw
from worldsystem_core.geometry.se3 import look_at
from worldsystem_core.trajectory import StampedPoses, write_tum
from worldsystem_storage.bag_check import verify
from worldsystem_storage.bag_tools import cut, info
from worldsystem_storage.errors import StorageError
from worldsystem_storage.importing.sources import import_path

START = 1_403_636_579_763_555_584


def picture(number: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)


def pose(number: int) -> np.ndarray:
    return look_at(np.array([number, -3.0, 1.0]), np.zeros(3), np.array([0.0, 0.0, 1.0]))


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def tum(tmp_path) -> Path:
    folder = tmp_path / "rgbd_dataset_freiburg1_desk"
    rgb, depth = ["# a comment"], []
    for n in range(5):
        save(folder / f"rgb/{n}.png", picture(n))
        rgb.append(f"130503110{n}.175304 rgb/{n}.png")
    for n in range(4):
        save(folder / f"depth/{n}.png", np.full((60, 80), 5000 + 10 * n, np.uint16))
        depth.append(f"130503110{n}.185303 depth/{n}.png")
    save(folder / "depth/late.png", np.full((60, 80), 1, np.uint16))
    depth.append("1305031109.0 depth/late.png")
    (folder / "rgb.txt").write_text("\n".join(rgb))
    (folder / "depth.txt").write_text("\n".join(depth))
    stamps = np.array([1_305_031_102 * 10**9 + n for n in range(3)])
    write_tum(
        folder / "groundtruth.txt", StampedPoses(stamps, np.array([pose(n) for n in range(3)]))
    )
    return folder


def messages(bag: Path) -> dict[str, list]:
    found: dict[str, list] = {}
    with AnyReader([bag]) as reader:
        for connection, stamp, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            found.setdefault(connection.topic, []).append((stamp, message))
    return found


def test_tum_pictures_keep_their_bytes_and_their_stamps_to_the_nanosecond(tum, tmp_path):
    counts = import_path(tum, tmp_path / "bag").messages
    found = messages(tmp_path / "bag")
    stamps = [stamp for stamp, _ in found["/camera/image/compressed"]]
    assert stamps == [(1_305_031_100 + n) * 10**9 + 175_304_000 for n in range(5)]
    for n, (_, message) in enumerate(found["/camera/image/compressed"]):
        assert bytes(message.data) == (tum / f"rgb/{n}.png").read_bytes()
        assert message.format == "rgb8; png compressed bgr8"
    info = found["/camera/camera_info"][0][1]
    assert info.k[0] == 517.3
    assert list(info.d)[:2] == [0.2624, -0.9531]
    assert counts["/truth/pose"] == 3
    place = found["/truth/pose"][2][1].pose.position
    assert (place.x, place.y, place.z) == pytest.approx((2.0, -3.0, 1.0), abs=1e-6)
    assert verify(tmp_path / "bag") == []


def test_depth_goes_with_the_nearest_picture_and_is_in_millimetres(tum, tmp_path):
    import_path(tum, tmp_path / "bag")
    found = messages(tmp_path / "bag")["/camera/depth"]
    values = [int(np.frombuffer(m.data, "<u2")[0]) for _, m in found]
    assert values == [1000, 1002, 1004, 1006]  # the last picture has none within 20 ms
    assert all(m.encoding == "16UC1" for _, m in found)


def test_seven_scenes_has_its_camera_and_its_rate(tmp_path):
    folder = tmp_path / "seq-01"
    for n in range(3):
        save(folder / f"frame-{n:06d}.color.png", picture(n))
        save(folder / f"frame-{n:06d}.depth.png", np.array([[0, 65535, 1500]], np.uint16))
        np.savetxt(folder / f"frame-{n:06d}.pose.txt", pose(n))
    import_path(folder, tmp_path / "bag")
    found = messages(tmp_path / "bag")
    assert found["/camera/image/compressed"][1][0] == pytest.approx(10**9 / 30, abs=1)
    assert found["/camera/camera_info"][0][1].k[0] == 585.0
    assert list(np.frombuffer(found["/camera/depth"][0][1].data, "<u2")) == [0, 0, 1500]


def test_euroc_gives_imu_with_x_forward_and_the_cameras_pose(tmp_path):
    root = tmp_path / "MH_01" / "mav0"
    rows = []
    for n in range(3):
        save(root / f"cam0/data/{START + n}.png", picture(n)[..., 0])
        rows.append(f"{START + n},{START + n}.png")
    (root / "cam0/data.csv").write_text("#timestamp [ns],filename\n" + "\n".join(rows))
    turn = "[0, -1, 0, 0.5, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]"
    (root / "cam0/sensor.yaml").write_text(
        f"T_BS:\n  rows: 4\n  cols: 4\n  data: {turn}\nresolution: [80, 60]\n"
        "intrinsics: [458.6, 457.2, 40.0, 30.0]\ndistortion_coefficients: [-0.28, 0.07, 0.1, 0.2]\n"
    )
    (root / "imu0").mkdir()
    (root / "imu0/data.csv").write_text(f"#t,w,a\n{START},0.1,0.2,0.3,9.81,0.5,0.25\n")
    truth = root / "state_groundtruth_estimate0"
    truth.mkdir()
    (truth / "data.csv").write_text(f"#t\n{START},1,2,3,1,0,0,0,0,0,0,0,0,0,0,0,0\n")
    import_path(tmp_path / "MH_01", tmp_path / "bag")
    found = messages(tmp_path / "bag")
    assert [stamp for stamp, _ in found["/camera/image/compressed"]] == [
        START + n for n in range(3)
    ]
    assert found["/camera/image/compressed"][0][1].format == "mono8; png compressed "
    imu = found["/imu/data"][0][1]
    at_rest = imu.linear_acceleration
    assert (at_rest.x, at_rest.y, at_rest.z) == (0.25, -0.5, 9.81)
    assert imu.angular_velocity.z == 0.1
    place = found["/truth/pose"][0][1].pose.position
    assert (place.x, place.y, place.z) == (1.5, 2.0, 3.0)


def test_kitti_reads_calibration_times_and_poses(tmp_path):
    folder = tmp_path / "sequences" / "07"
    for n in range(3):
        save(folder / f"image_2/{n:06d}.png", picture(n, (37, 124)))
    (folder / "times.txt").write_text("0.000000e+00\n1.037875e-01\n2.075750e-01\n")
    numbers = "7.07e+02 0 6.0e+02 4.6e+01 0 7.07e+02 1.8e+02 0 0 0 1 0"
    (folder / "calib.txt").write_text(f"P0: {numbers}\nP2: {numbers}\n")
    (tmp_path / "poses").mkdir()
    rows = np.array([pose(n)[:3].ravel() for n in range(3)])
    np.savetxt(tmp_path / "poses" / "07.txt", rows)
    import_path(folder, tmp_path / "bag")
    found = messages(tmp_path / "bag")
    assert [s for s, _ in found["/camera/image/compressed"]] == [0, 103_787_500, 207_575_000]
    assert (found["/camera/camera_info"][0][1].width, len(found["/truth/pose"])) == (124, 3)


def test_the_true_poses_of_kitti_are_those_of_the_camera_that_took_the_pictures(tmp_path):
    """Camera 2 is 6 cm to the left of camera 0, of which the published poses are."""
    folder = tmp_path / "sequences" / "00"
    times = ["0.000000e+00", "1.037875e-01"]
    for n in range(len(times)):
        save(folder / f"image_2/{n:06d}.png", picture(n, (37, 124)))
    (folder / "times.txt").write_text("\n".join(times))
    published = (
        "7.188560000000e+02 0.000000000000e+00 6.071928000000e+02 4.538225000000e+01 "
        "0.000000000000e+00 7.188560000000e+02 1.852157000000e+02 -1.130887000000e-01 "
        "0.000000000000e+00 0.000000000000e+00 1.000000000000e+00 3.779761000000e-03"
    )
    (folder / "calib.txt").write_text(f"P2: {published}\n")
    P = np.array(published.split(), np.float64).reshape(3, 4)
    poses = [np.eye(4), pose(2)]
    (tmp_path / "poses").mkdir()
    np.savetxt(tmp_path / "poses" / "00.txt", [each[:3].ravel() for each in poses])
    import_path(folder, tmp_path / "bag")
    told = [message.pose for _, message in messages(tmp_path / "bag")["/truth/pose"]]
    place = told[0].position
    assert (place.x, place.y, place.z) == pytest.approx((-0.0599, 0.0011, -0.0038), abs=1e-4)
    seen_by_cam0 = np.array([0.4, -0.3, 7.0, 1.0])
    for world_from_cam0, cam in zip(poses, told, strict=True):
        at, turn = cam.position, cam.orientation
        rotation = matrix_from_quaternion_xyzw(np.array([turn.x, turn.y, turn.z, turn.w]))
        point = (world_from_cam0 @ seen_by_cam0)[:3] - np.array([at.x, at.y, at.z])
        np.testing.assert_allclose(P[:, :3] @ rotation.T @ point, P @ seen_by_cam0, atol=1e-6)


def test_stamps_that_numpy_wrote_are_read_to_the_last_digit(tmp_path):
    folder = tmp_path / "freiburg1"
    times = np.array([1_305_031_102.175304, 1_305_031_526.67132])
    np.savetxt(folder.with_suffix(".txt"), times)
    words = folder.with_suffix(".txt").read_text().split()
    assert words[0].endswith("e+09")
    for n in range(2):
        save(folder / f"{n}.png", picture(n))
    (folder / "rgb.txt").write_text("\n".join(f"{word} {n}.png" for n, word in enumerate(words)))
    still = np.tile([0.0, 0, 0, 0, 0, 0, 1], (2, 1))
    np.savetxt(folder / "groundtruth.txt", np.hstack([times[:, None], still]))
    import_path(folder, tmp_path / "bag")
    found = messages(tmp_path / "bag")
    exact_ns = [int(f"{time:.9f}".replace(".", "")) for time in times]
    for topic in ("/camera/image/compressed", "/truth/pose"):
        assert [stamp_ns for stamp_ns, _ in found[topic]] == exact_ns


@pytest.mark.parametrize("stamp", ["9223372036854775808", "1e300", "nan", "9300000000.5"])
def test_a_stamp_that_no_message_can_have_is_refused(tmp_path, stamp):
    folder = tmp_path / "freiburg1"
    save(folder / "0.png", picture(0))
    (folder / "rgb.txt").write_text(f"{stamp} 0.png\n")
    with pytest.raises(StorageError, match=rf"rgb\.txt: '{stamp}' is"):
        import_path(folder, tmp_path / "bag")


def test_a_bag_of_ros_1_says_the_same_as_a_bag_of_ours(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    Header, Time = store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"]
    with Writer1(tmp_path / "old.bag") as writer:
        line = writer.add_connection("/note", "std_msgs/msg/Header", typestore=store)
        for n in range(4):
            message = Header(seq=n, stamp=Time(sec=n, nanosec=7), frame_id=f"frame {n}")
            raw = store.serialize_ros1(message, "std_msgs/msg/Header")
            writer.write(line, 10**9 + n, raw)
    assert import_path(tmp_path / "old.bag", tmp_path / "bag").messages == {"/note": 4}
    found = messages(tmp_path / "bag")["/note"]
    assert [(s, m.stamp.sec, m.frame_id) for s, m in found] == [
        (10**9 + n, n, f"frame {n}") for n in range(4)
    ]


def test_a_bag_of_ros_2_keeps_its_bytes(tum, tmp_path):
    import_path(tum, tmp_path / "first")
    import_path(tmp_path / "first", tmp_path / "second")

    def raw(bag: Path) -> list[bytes]:
        with AnyReader([bag]) as reader:
            return [bytes(data) for _, _, data in reader.messages()]

    assert raw(tmp_path / "first") == raw(tmp_path / "second")


FOREIGN = {  # name, topic of its pictures, messages and pictures in it
    "rosbag2_2025_09_10-13_03_56_0.mcap": ("/compressed_image", 194, 1),
    "soccer_goal_12.mcap": ("", None, 2),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_recording_is_read_replayed_and_converted(tmp_path, name):
    import threading

    from worldsystem_ingest.config import IngestConfig
    from worldsystem_ingest.source import open_source

    path = Path(__file__).parents[3] / "shared" / "data" / "ros2_mcap_thirdparty" / name
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    topic, count, pictures = FOREIGN[name]
    counts = import_path(path, tmp_path / "bag").messages
    assert count in (None, sum(counts.values()))
    assert verify(tmp_path / "bag") == []
    assert info(path).messages == info(tmp_path / "bag").messages == sum(counts.values())
    assert cut(path, tmp_path / "cut").messages == sum(counts.values())

    def played(bag: Path, speed: float) -> list:
        frames = []

        class Sink:
            def frame(self, frame):
                frames.append(frame)

            def __getattr__(self, name):
                return lambda *arguments: None

        config = IngestConfig(topic=topic, speed=speed)
        assert open_source(str(bag), config).run(Sink(), threading.Event()).broken is None
        return frames

    theirs, ours = played(path, 0.0), played(tmp_path / "bag", 100.0)
    assert len(theirs) == len(ours) == pictures
    for a, b in zip(theirs, ours, strict=True):
        assert a.stamp_ns == b.stamp_ns
        assert np.array_equal(a.rgb, b.rgb)


def test_ingest_plays_what_was_imported(tum, tmp_path):
    import threading

    from worldsystem_ingest.config import IngestConfig
    from worldsystem_ingest.source import open_source

    import_path(tum, tmp_path / "bag")
    frames = []

    class Sink:
        def frame(self, frame):
            frames.append(frame)

        def __getattr__(self, name):
            return lambda *arguments: None

    source = open_source(str(tmp_path / "bag"), IngestConfig())
    assert source.run(Sink(), threading.Event()).broken is None
    assert len(frames) == 5
    for n, frame in enumerate(frames):
        assert np.array_equal(frame.rgb, picture(n)[..., ::-1])
        assert frame.camera.fx == pytest.approx(517.3 * 80 / 640)


def test_what_is_no_data_set_is_refused_with_the_list(tmp_path):
    with pytest.raises(StorageError, match=r"TUM RGB-D, 7-Scenes.*bags of ROS 1 and 2"):
        import_path(tmp_path, tmp_path / "bag")
    folder = tmp_path / "freiburg1"
    folder.mkdir()
    (folder / "rgb.txt").write_text("1.5 rgb/missing.png\n")
    with pytest.raises(StorageError, match=r"missing\.png cannot be read"):
        import_path(folder, tmp_path / "bag")
    (folder / "rgb.txt").write_text("yesterday rgb/missing.png\n")
    with pytest.raises(StorageError, match="no time stamp"):
        import_path(folder, tmp_path / "other")


def test_the_command_says_what_it_wrote(tum, tmp_path, capsys):
    from worldsystem.cli import main

    assert main(["import", str(tum), "--out", str(tmp_path / "bag")]) == 0
    assert "5  /camera/image/compressed" in capsys.readouterr().out
    assert main(["import", str(tum), "--out", str(tmp_path / "bag")]) == 2


def test_a_bag_that_a_crash_left_without_metadata_is_imported(tum, tmp_path):
    from worldsystem.cli import main

    counts = import_path(tum, tmp_path / "first").messages
    (tmp_path / "first" / "metadata.yaml").unlink()
    assert main(["import", str(tmp_path / "first"), "--out", str(tmp_path / "again")]) == 0
    assert {topic: len(found) for topic, found in messages(tmp_path / "again").items()} == counts
