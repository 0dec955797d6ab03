# SPDX-License-Identifier: Apache-2.0
"""The whole system on the simulated drone, judged by what it leaves and what others saw."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest
import trimesh
from demo_run import DURATION_S, Run, browser_path
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader

from worldsystem.report.page import REPORT_NAME
from worldsystem_core.trajectory import read_tum

# The first test waits for the whole run, with the flight rendered on a machine of unknown speed.
pytestmark = pytest.mark.timeout(600)

EXPECTED_TOPICS = {
    "/camera/video": "foxglove_msgs/msg/CompressedVideo",
    "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
    "/imu/data": "sensor_msgs/msg/Imu",
    "/gps/fix": "sensor_msgs/msg/NavSatFix",
    "/slam/pose": "geometry_msgs/msg/PoseStamped",
    "/slam/path": "nav_msgs/msg/Path",
    "/slam/keyframe": "worldsystem_msgs/msg/Keyframe",
    "/mesh/delta": "worldsystem_msgs/msg/MeshDelta",
    "/segment/tracks": "worldsystem_msgs/msg/TrackArray",
    "/segment/objects": "worldsystem_msgs/msg/MapObjectArray",
    "/tf": "tf2_msgs/msg/TFMessage",
    "/tf_static": "tf2_msgs/msg/TFMessage",
    "/worldsystem/ledger": "worldsystem_msgs/msg/FrameLedger",
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
}


def figures(run: Run) -> dict[str, float]:
    return {entry["id"]: entry["value"] for entry in run.summary["results"]}


def frames_sent(run: Run) -> int:
    with (run.folder / "truth" / "frames.csv").open() as lines:
        return sum(1 for _ in csv.DictReader(lines))


def test_it_ends_by_itself_without_an_error_and_prints_where_to_look(run):
    assert run.exit_code == 0, run.output
    assert "Traceback" not in run.output
    assert "http://127.0.0.1:" in run.output
    assert "glass-to-map" in run.output


def test_every_frame_that_was_sent_is_accounted_for(run):
    assert figures(run)["demo.unexplained_frames"] == 0
    for ledger in run.summary["ledger"]:
        assert ledger["taken"] == ledger["used"] + sum(ledger["dropped"].values())
    assert run.summary["ledger"][0]["taken"] == frames_sent(run)
    assert frames_sent(run) == pytest.approx(15 * DURATION_S, abs=2)


def test_the_path_and_the_surface_are_right_within_the_demos_bounds(run):
    found = figures(run)
    assert found["demo.ate_percent"] <= 2.0
    assert found["demo.mesh_fscore"] >= 0.6


def test_trajectory_and_meshes_open_in_other_programs(run):
    assert len(read_tum(run.folder / "trajectory.tum")) > 50
    ply = trimesh.load(run.folder / "mesh.ply")
    scene = trimesh.load_scene(run.folder / "mesh.glb")
    assert len(ply.faces) > 1000
    assert sum(len(part.faces) for part in scene.geometry.values()) == len(ply.faces)
    assert np.ptp(ply.visual.vertex_colors[:, :3], axis=0).min() > 50, "the mesh has no colours"


def test_the_report_carries_its_pictures(run):
    text = (run.folder / REPORT_NAME).read_text()
    assert text.count("data:image/png;base64,") >= 4
    assert (run.folder / "pictures").is_dir()


def test_the_bag_holds_every_topic_and_rosbags_decodes_every_message(run):
    counts: Counter[str] = Counter()
    with AnyReader([run.folder / "bag"]) as reader:
        kinds = {connection.topic: connection.msgtype for connection in reader.connections}
        for connection, _, cdr in reader.messages():
            reader.deserialize(cdr, connection.msgtype)
            counts[connection.topic] += 1
    assert {topic: kinds.get(topic) for topic in EXPECTED_TOPICS} == EXPECTED_TOPICS
    assert all(counts[topic] for topic in EXPECTED_TOPICS), counts
    ledgers = {ledger["stage"]: ledger for ledger in run.summary["ledger"]}
    assert counts["/camera/video"] == frames_sent(run)
    assert counts["/camera/camera_info"] == ledgers["ingest"]["used"]
    assert counts["/segment/tracks"] == ledgers["segmenter"]["used"]
    assert counts["/slam/pose"] == len(read_tum(run.folder / "trajectory.tum"))


def test_the_mcap_library_decodes_the_same_messages_from_the_file_alone(run):
    counts: Counter[str] = Counter()
    for path in sorted((run.folder / "bag").glob("*.mcap")):
        with path.open("rb") as file:
            reader = make_reader(file, decoder_factories=[DecoderFactory()])
            for _, channel, _, _ in reader.iter_decoded_messages():
                counts[channel.topic] += 1
    with AnyReader([run.folder / "bag"]) as reader:
        assert counts == {
            topic: sum(c.msgcount for c in reader.connections if c.topic == topic)
            for topic in counts
        }
    assert set(EXPECTED_TOPICS) <= set(counts)


def test_a_plain_script_in_another_process_saw_pictures_poses_points_and_the_mesh(run):
    assert run.outside.pop("/slam/cloud") >= 1
    assert run.outside.keys() == {"/camera/image_raw", "/slam/pose", "/mesh/delta"}
    assert min(run.outside.values()) >= 3


@pytest.mark.skipif(browser_path() is None, reason="no Chromium on this machine")
def test_the_web_page_showed_the_mesh_grow(run):
    assert len(run.page_triangles) >= 3, run.page_triangles
    assert run.page_triangles[-1] > 1000


def test_the_rerun_log_is_there(run):
    assert (run.folder / "world.rrd").stat().st_size > 10_000
