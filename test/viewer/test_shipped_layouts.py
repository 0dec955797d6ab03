# SPDX-License-Identifier: Apache-2.0
"""The layouts that are shipped name topics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS is not set up")

from worldsystem_core.ros import topics
from worldsystem_viewer.foxglove_sink import LOG_TOPIC, MESH_TOPIC, OBJECTS_TOPIC

pytestmark = pytest.mark.ros
CONFIG = Path(__file__).parents[2] / "config"
KNOWN = {f"/{topic.name.lstrip('/')}" for topic in topics.ALL}


def test_the_foxglove_layout_shows_topics_that_are_offered():
    layout = json.loads((CONFIG / "foxglove.json").read_text())
    text = json.dumps(layout["configById"])
    named = set(re.findall(r'"(/[a-z_]+/[a-z_]+)', text)) - {"/segment/set_prompt"}
    named -= {"/move_base_simple/goal"}
    assert {MESH_TOPIC, OBJECTS_TOPIC, LOG_TOPIC, "/slam/path", "/camera/video"} <= named
    assert named <= KNOWN | {MESH_TOPIC, OBJECTS_TOPIC, LOG_TOPIC}
    panels = set(re.findall(r'"((?:\w+)!(?:\w+))"', json.dumps(layout["layout"])))
    assert panels <= layout["configById"].keys()


def test_the_rviz_layout_subscribes_as_the_topics_are_published():
    layout = yaml.safe_load((CONFIG / "worldsystem.rviz").read_text())
    displays = layout["Visualization Manager"]["Displays"]
    shown = {d["Topic"]["Value"]: d["Topic"] for d in displays if "Topic" in d}
    assert {"/slam/cloud", "/slam/path", "/segment/markers", "/camera/image_raw"} <= shown.keys()
    for topic in topics.ALL:
        wanted = shown.get(f"/{topic.name}")
        if wanted:
            durability = topic.qos.durability.name.replace("_", " ").title()
            assert wanted["Durability Policy"] == durability
            assert wanted["Reliability Policy"] == topic.qos.reliability.name.title()


def test_foxglove_shows_the_camera_as_axes_since_an_arrow_would_point_to_its_right():
    """`slam/pose` has optical axes, and an arrow lies along x."""
    layout = json.loads((CONFIG / "foxglove.json").read_text())
    pose = layout["configById"]["3D!world"]["topics"]["/slam/pose"]
    assert (pose["type"], pose["axisScale"]) == ("axis", 1)
