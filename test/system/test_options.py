# SPDX-License-Identifier: Apache-2.0
"""What options of the command line mean for the stages."""

from __future__ import annotations

import pytest

from worldsystem.cli import _choice, _parser
from worldsystem.graph import stages
from worldsystem.sent import FRAMES_FILE, frames_sent


def parameters_of(*words: str) -> dict[str, dict[str, object]]:
    choice = _choice(_parser().parse_args(["run", *words]))
    return {stage.name: parameters for stage, parameters in stages(choice)}


@pytest.mark.parametrize("source", ["server:", "server://127.0.0.1:5002", "webrtc:"])
def test_a_focal_length_counts_for_senders_that_tell_no_camera(source):
    given = parameters_of(source, "--focal", "920")
    assert given["slam3r"]["focal_px"] == 920.0
    assert "focal_px" not in parameters_of(source)["slam3r"], "what a sender tells counts"


@pytest.mark.parametrize("source", ["clip.mp4", "rtsp://127.0.0.1/drone", "camera:0", "ws://x:1"])
def test_a_focal_length_is_the_camera_of_a_file_or_url(source):
    given = parameters_of(source, "--focal", "920")
    assert given["ingest"]["focal_px"] == 920.0
    assert "focal_px" not in given["slam3r"]


def test_what_is_set_by_name_goes_before_an_option():
    given = parameters_of("server:", "--focal", "920", "--set", "slam3r.focal_px=500")
    assert given["slam3r"]["focal_px"] == 500


@pytest.mark.parametrize(
    ("source", "sent"), [("sim:orbit", 2), ("server:", 2), ("runs/x/bag", None), ("c.mp4", None)]
)
def test_what_a_simulator_sent_is_awaited_of_its_flight_and_not_of_a_recording(
    source, sent, tmp_path
):
    (tmp_path / FRAMES_FILE).write_text("frame_id,sent\n0,1\n1,1\n")
    assert frames_sent(str(tmp_path), source) == sent
    assert frames_sent("", source) is None
