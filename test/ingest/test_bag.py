# SPDX-License-Identifier: Apache-2.0
"""Bags of ROS 1 and 2 as sources: pictures, stamps, the camera, telemetry, and breaks."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import bag_lab
import numpy as np
import pytest
import yaml
from bag_lab import (
    START_NS,
    camera_info,
    foreign_mcap,
    header,
    kind,
    pictures,
    stamp_of,
    write_ros1,
    write_ros2,
)
from conftest import shared_data
from ingest_lab import MemorySink, number_in, numbered_picture
from mcap.writer import CompressionType
from rosbags.rosbag2 import StoragePlugin

from worldsystem_core.errors import SourceError
from worldsystem_core.telemetry import (
    AttitudeSample,
    BatterySample,
    OdometrySample,
    PressureSample,
)
from worldsystem_ingest.bag import BagSource
from worldsystem_ingest.bag.mcap_file import McapFile
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sink import Summary
from worldsystem_storage.bag_writer import BagWriter
from worldsystem_storage.config import StorageConfig


def played(path: Path, **settings) -> tuple[MemorySink, Summary]:
    sink = MemorySink()
    return sink, BagSource(path, IngestConfig(**settings)).run(sink, threading.Event())


def numbers(sink: MemorySink) -> list[int]:
    return [number_in(frame.rgb) for frame in sink.frames]


def write_bag(tmp_path: Path, form: str, count: int) -> Path:
    """The same pictures in one of the forms that bags have."""
    if form == "ros1":
        return write_ros1(tmp_path / "run.bag", pictures(count, store=bag_lab.ROS1))
    if form == "ros1 lz4":
        return write_ros1(tmp_path / "run.bag", pictures(count, store=bag_lab.ROS1), "LZ4")
    plugin = StoragePlugin.SQLITE3 if form == "db3" else StoragePlugin.MCAP
    folder = write_ros2(tmp_path / "run", pictures(count), plugin)
    return next(folder.glob("*.mcap")) if form == "mcap file" else folder


@pytest.mark.parametrize("form", ["mcap", "mcap file", "db3", "ros1", "ros1 lz4"])
def test_every_picture_of_a_bag_comes_in_order_with_its_header_stamp(tmp_path, form):
    sink, summary = played(write_bag(tmp_path, form, 12))
    assert summary == Summary(frames=12, broken=None)
    assert sink.ids == numbers(sink) == list(range(12))
    assert [frame.stamp_ns for frame in sink.frames] == [stamp_of(n) for n in range(12)]


def test_a_header_without_a_stamp_gets_the_time_of_recording(tmp_path):
    unstamped = bag_lab.image(numbered_picture(3), "rgb8", 0)
    bag = write_ros2(tmp_path / "run", [("/image", "sensor_msgs/msg/Image", START_NS, unstamped)])
    sink, _ = played(bag)
    assert sink.frames[0].stamp_ns == START_NS + bag_lab.RECORDING_DELAY_NS


def test_of_two_topics_one_must_be_chosen_and_the_error_lists_them(tmp_path):
    bag = write_ros2(tmp_path / "run", [*pictures(3, "/left/image"), *pictures(4, "/right/image")])
    with pytest.raises(SourceError, match=r"choose one with `topic`.*/left/image.*/right/image"):
        BagSource(bag, IngestConfig())
    with pytest.raises(SourceError, match=r"no topic /middle .*/left/image .*3.*/right/image"):
        BagSource(bag, IngestConfig(topic="/middle"))
    sink, _ = played(bag, topic="/right/image")
    assert numbers(sink) == [0, 1, 2, 3]


def test_a_bag_without_pictures_says_what_it_holds(tmp_path):
    info = ("/camera_info", "sensor_msgs/msg/CameraInfo", START_NS, camera_info(START_NS))
    bag = write_ros2(tmp_path / "run", [info])
    with pytest.raises(SourceError, match=r"no topic of pictures.*only sensor_msgs/msg/CameraInfo"):
        BagSource(bag, IngestConfig())


def test_the_nearest_camera_info_gives_the_camera_from_the_first_picture_on(tmp_path):
    of = "sensor_msgs/msg/CameraInfo"
    messages = [
        *pictures(2, "/right/image_raw"),
        ("/left/camera_info", of, stamp_of(1), camera_info(stamp_of(1), 999.0)),
        ("/camera_info", of, stamp_of(1), camera_info(stamp_of(1), 888.0)),
        ("/right/camera_info", of, stamp_of(1), camera_info(stamp_of(1), 150.0)),
    ]
    sink, _ = played(write_ros2(tmp_path / "run", messages))
    camera = sink.frames[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (150, 151, 80, 48)
    assert camera.distortion == (0.1, 0.01, 0.0, 0.0, 0.0)
    assert sink.cameras == [(camera, "camera")]


def test_a_rectified_topic_has_the_projection_as_its_camera(tmp_path):
    info = ("/camera_info", "sensor_msgs/msg/CameraInfo", START_NS, camera_info(START_NS))
    sink, _ = played(write_ros2(tmp_path / "run", [*pictures(1, "/image_rect_color"), info]))
    camera = sink.frames[0].camera
    assert (camera.fx, camera.cx, camera.cy, camera.distortion) == (300, 81, 49, ())


def test_a_distortion_that_is_not_known_is_left_out_with_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("worldsystem_core.distortion._told", set())  # it is said once
    fisheye = camera_info(START_NS, model="equidistant", d=np.full(4, 0.1))
    info = ("/camera_info", "sensor_msgs/msg/CameraInfo", START_NS, fisheye)
    sink, _ = played(write_ros2(tmp_path / "run", [*pictures(1, "/image"), info]))
    assert sink.frames[0].camera.distortion == ()
    assert "equidistant" in caplog.text


def test_an_uncalibrated_camera_info_leaves_the_focal_length_of_the_settings(tmp_path):
    info = ("/camera_info", "sensor_msgs/msg/CameraInfo", START_NS, camera_info(START_NS, 0.0))
    bag = write_ros2(tmp_path / "run", [*pictures(1, "/image"), info])
    sink, _ = played(bag, focal_px=77.0)
    assert sink.frames[0].camera.fx == 77.0


def telemetry_messages() -> list[bag_lab.Message]:
    vector, turn = kind("geometry_msgs/msg/Vector3"), kind("geometry_msgs/msg/Quaternion")
    known, unknown = np.zeros(9), np.array([-1.0] + [0.0] * 8)
    imu = kind("sensor_msgs/msg/Imu")
    level, turned = turn(0.0, 0.0, 0.0, 1.0), turn(0.6, 0.0, 0.0, 0.8)
    rates, force = vector(0.1, 0.2, 0.3), vector(1.0, 2.0, 9.8)
    fix_status = kind("sensor_msgs/msg/NavSatStatus")
    fix, at = kind("sensor_msgs/msg/NavSatFix"), header(START_NS)
    covariance = np.diag([2.0, 2.0, 9.0]).ravel()
    return [
        ("/imu", "sensor_msgs/msg/Imu", imu(at, level, unknown, rates, known, force, known)),
        (
            "/attitude",
            "sensor_msgs/msg/Imu",
            imu(at, turned, known, rates, unknown, force, unknown),
        ),
        ("/imu2", "sensor_msgs/msg/Imu", imu(at, level, unknown, force, known, rates, known)),
        (
            "/gps",
            "sensor_msgs/msg/NavSatFix",
            fix(at, fix_status(0, 1), 1.0, 2.0, 3.0, covariance, 2),
        ),
        ("/gps", "sensor_msgs/msg/NavSatFix", fix(at, fix_status(-1, 1), 5.0, 6.0, 7.0, known, 0)),
        (
            "/baro",
            "sensor_msgs/msg/FluidPressure",
            kind("sensor_msgs/msg/FluidPressure")(at, 101300.0, 0.0),
        ),
    ]


def test_telemetry_comes_from_the_first_topic_of_each_kind(tmp_path):
    messages = [(topic, name, START_NS, m) for topic, name, m in telemetry_messages()]
    sink, _ = played(write_ros2(tmp_path / "run", [*pictures(1), *messages]))
    (imu,) = sink.samples
    assert imu.acceleration == (1.0, 2.0, 9.8)
    assert imu.angular_velocity == (0.1, 0.2, 0.3)
    (fix,) = sink.fixes  # a receiver without a fix says nothing
    assert (fix.latitude_deg, fix.longitude_deg, fix.altitude_m) == (1.0, 2.0, 3.0)
    assert (fix.horizontal_error_m, fix.vertical_error_m) == (2.0, 3.0)
    others = [s for s, _ in sink.telemetry if isinstance(s, (AttitudeSample, PressureSample))]
    assert others[0].map_from_body == (0.6, 0.0, 0.0, 0.8)
    assert others[1] == PressureSample(stamp_ns=START_NS, pressure_pa=101300.0)


@pytest.mark.parametrize("form", ["mcap", "mcap file", "ros1", "ros1 lz4"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_bag_that_was_cut_off_is_played_to_the_break(tmp_path, form, share):
    bag = write_bag(tmp_path, form, 30)
    path = next(bag.glob("*.mcap")) if bag.is_dir() else bag
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    sink, summary = played(bag)
    whole_messages = 0 if form == "ros1 lz4" else int(30 * share) - 3
    assert whole_messages <= summary.frames < 30
    assert numbers(sink) == sink.ids == list(range(summary.frames))
    assert "cut off" in (summary.broken or "")
    assert f"{summary.frames} pictures are there" in summary.broken


@pytest.mark.parametrize("packing", list(CompressionType))
def test_a_whole_mcap_is_read_by_its_index_and_a_cut_one_is_not(tmp_path, packing):
    path = foreign_mcap(tmp_path / "run.mcap", 6, compression=packing)
    assert McapFile(path).is_whole
    path.write_bytes(path.read_bytes()[:-5])
    cut = McapFile(path)
    assert not cut.is_whole
    assert cut.counts == {"/image": 6}


@pytest.mark.parametrize("packing", list(CompressionType))
def test_a_chunk_that_was_being_written_is_played_as_far_as_it_goes(tmp_path, packing):
    path = foreign_mcap(tmp_path / "run.mcap", 20, compression=packing, chunk_size=1 << 30)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])
    sink, summary = played(path)
    assert 8 <= summary.frames < 20
    assert numbers(sink) == list(range(summary.frames))


def test_a_damaged_chunk_ends_the_bag_there(tmp_path):
    path = foreign_mcap(
        tmp_path / "run.mcap", 20, compression=CompressionType.LZ4, chunk_size=50_000
    )
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    sink, summary = played(path)
    assert 5 <= summary.frames < 15
    assert numbers(sink) == list(range(summary.frames))
    assert "damaged" in (summary.broken or "")


def test_missing_files_of_a_split_bag_are_named(tmp_path):
    bag = write_ros2(tmp_path / "run", pictures(3))
    metadata = yaml.safe_load((bag / "metadata.yaml").read_text())
    metadata["rosbag2_bagfile_information"]["relative_file_paths"] += ["run_1.mcap", "run_2.mcap"]
    (bag / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    sink, summary = played(bag)
    assert numbers(sink) == [0, 1, 2]
    assert "2 of 3 files are missing (run_1.mcap, run_2.mcap)" in (summary.broken or "")


@pytest.mark.parametrize("name", ["run.mcap", "run.bag", "run.db3"])
@pytest.mark.parametrize("content", [b"", b"no bag at all" * 50])
def test_a_file_that_is_no_bag_is_an_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=f"{name} cannot be played"):
        BagSource(tmp_path / name, IngestConfig())


def test_realtime_keeps_the_pace_and_shifts_all_stamps_to_host_time(tmp_path):
    fix = telemetry_messages()[3]
    bag = write_ros2(tmp_path / "run", [*pictures(8), (fix[0], fix[1], START_NS, fix[2])])
    begin_ns = time.time_ns()
    sink, _ = played(bag, realtime=True)
    assert time.time_ns() - begin_ns >= 7 * bag_lab.STEP_NS
    assert begin_ns <= sink.frames[0].stamp_ns <= time.time_ns()
    assert sink.fixes[0].stamp_ns == sink.frames[0].stamp_ns
    np.testing.assert_array_equal(np.diff([f.stamp_ns for f in sink.frames]), bag_lab.STEP_NS)


def test_a_bag_that_our_recorder_wrote_plays(tmp_path):
    writer = BagWriter(tmp_path / "bag", StorageConfig(reserve_mib=1))
    info = ("/camera/camera_info", "sensor_msgs/msg/CameraInfo", START_NS, camera_info(START_NS))
    messages = [info, *bag_lab.video(25, "/camera/video")]
    for topic, name in {(topic, name) for topic, name, *_ in messages}:
        definition = bag_lab.ROS2.generate_msgdef(name, ros_version=2)[0]
        writer.add_topic(topic, name, definition, bag_lab.ROS2.hash_rihs01(name))
    for topic, name, at_ns, message in messages:
        data = bytes(bag_lab.ROS2.serialize_cdr(message, name))
        writer.write(topic, data, at_ns + 9_000_000, at_ns)
    writer.close()
    sink, summary = played(tmp_path / "bag")
    assert summary == Summary(frames=25, broken=None)
    assert numbers(sink) == list(range(25))
    assert [frame.stamp_ns for frame in sink.frames] == [stamp_of(n) for n in range(25)]
    assert sink.frames[0].camera.fx == 150


def third_party(name: str) -> Path:
    path = shared_data() / "ros2_mcap_thirdparty" / name
    if not path.is_file():
        pytest.skip(f"{path} is not here; set WORLDSYSTEM_DATA to the folder of recordings")
    return path


def test_a_split_of_a_bag_with_packed_messages_plays_alone():
    sink, summary = played(third_party("soccer_goal_12.mcap"))
    assert summary == Summary(frames=2, broken=None)
    assert [frame.stamp_ns for frame in sink.frames] == [8_297_777_777, 8_331_088_888]
    assert sink.frames[0].rgb.shape == (480, 640, 3)
    assert sink.frames[0].rgb.std() > 20


def test_a_bag_recorded_by_ros2_gives_camera_and_telemetry():
    path = third_party("rosbag2_2025_09_10-13_03_56_0.mcap")
    sink, summary = played(path, topic="/compressed_image")
    assert summary == Summary(frames=1, broken=None)
    assert sink.frames[0].camera.fx == 500.0
    assert sink.frames[0].rgb.mean() == pytest.approx(127.5, abs=3)  # the picture is noise
    counts = {
        kind: sum(isinstance(s, kind) for s, _ in sink.telemetry)
        for kind in (BatterySample, PressureSample)
    }
    assert counts == {BatterySample: 10, PressureSample: 10}
    assert sink.samples[0].acceleration == (0.0, 0.0, 9.81)


@pytest.mark.parametrize("form", ["mcap file", "db3", "ros1", "ros1 lz4"])
def test_whatever_is_in_a_damaged_bag_it_plays_or_is_refused_in_words(tmp_path, form):
    bag = write_bag(tmp_path, form, 6)
    path = next(bag.glob("*.db3")) if bag.is_dir() else bag
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    for round_number in range(40):
        damaged = bytearray(whole)
        begin = 0 if round_number % 3 else max(0, len(whole) - 3000)  # where indices are
        for at in rng.integers(begin, len(damaged), 1 + round_number % 5):
            damaged[at] ^= int(rng.integers(1, 255))
        end = len(damaged) if round_number % 4 else int(rng.integers(1, len(damaged)))
        path.write_bytes(damaged[:end])
        try:
            sink, _ = played(path)
        except SourceError:
            continue
        assert sink.settled == list(range(len(sink.settled)))


def test_a_camera_info_of_zeros_lets_go_of_the_camera_that_was_told_before(tmp_path):
    """So ingest tells that a sender without intrinsics took over."""
    topic, of, shown = "/camera/camera_info", "sensor_msgs/msg/CameraInfo", pictures(4)
    known = (topic, of, stamp_of(0) - 1, camera_info(stamp_of(0)))
    ended = (topic, of, stamp_of(2) - 1, camera_info(stamp_of(2), 0.0))
    sink, _ = played(write_ros2(tmp_path / "run", [known, *shown[:2], ended, *shown[2:]]))
    focal = [frame.camera and frame.camera.fx for frame in sink.frames]
    assert focal == [150.0, 150.0, None, None]


def odometry_message(topic: str, east_m: float) -> bag_lab.Message:
    of, still = "nav_msgs/msg/Odometry", kind("geometry_msgs/msg/Vector3")(0.0, 0.0, 0.0)
    at = kind("geometry_msgs/msg/Point")(east_m, -2.0, 0.5)
    pose = kind("geometry_msgs/msg/Pose")(at, kind("geometry_msgs/msg/Quaternion")(0, 0, 0.6, 0.8))
    twist = kind("geometry_msgs/msg/Twist")(still, still)
    message = kind(of)(
        header(START_NS),
        "base_link",
        kind("geometry_msgs/msg/PoseWithCovariance")(pose, np.full(36, 0.0625)),
        kind("geometry_msgs/msg/TwistWithCovariance")(twist, np.zeros(36)),
    )
    return topic, of, START_NS, message


def test_a_senders_own_odometry_is_played_and_that_of_other_programs_is_not(tmp_path):
    messages = [odometry_message("/odom", 7.0), odometry_message("/odometry/level", 1.0)]
    sink, _ = played(write_ros2(tmp_path / "run", [*pictures(1), *messages]))
    found = [sample for sample, _ in sink.telemetry]
    assert found == [
        OdometrySample(
            stamp_ns=START_NS,
            position_m=(1.0, -2.0, 0.5),
            level_from_body=(0.0, 0.0, 0.6, 0.8),
            position_error_m=0.25,
        )
    ]


def fix_message(topic: str, latitude_deg: float, covariance=(0.0,) * 9) -> bag_lab.Message:
    of, status = "sensor_msgs/msg/NavSatFix", kind("sensor_msgs/msg/NavSatStatus")(0, 1)
    fix = kind(of)(header(START_NS), status, latitude_deg, 2.0, 3.0, np.array(covariance), 1)
    return topic, of, START_NS, fix


@pytest.mark.parametrize(("own", "other"), [("", "/drone2"), ("/drone2", "")])
def test_of_two_drones_in_a_recording_each_plays_with_its_own_telemetry(tmp_path, own, other):
    fixes = [fix_message(f"{other}/gps/fix", 1.0), fix_message(f"{own}/gps/fix", 2.0)]
    videos = [m for space in (own, other) for m in bag_lab.video(3, f"{space}/camera/video")]
    bag = write_ros2(tmp_path / "run", [*fixes, *videos])
    sink, _ = played(bag, topic=f"{own}/camera/video")
    assert [fix.latitude_deg for fix in sink.fixes] == [2.0]


def test_a_recorded_fix_keeps_the_one_error_that_it_tells(tmp_path):
    spread = np.diag([2112.5, 2112.5, -1.0]).ravel()
    bag = write_ros2(tmp_path / "run", [*pictures(1), fix_message("/gps/fix", 1.0, spread)])
    (fix,) = played(bag)[0].fixes
    np.testing.assert_allclose((fix.horizontal_error_m, fix.vertical_error_m), (65.0, np.nan))
