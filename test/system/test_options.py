# SPDX-License-Identifier: Apache-2.0
"""What options of the command line mean for the stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from worldsystem.cli import _choice, _parser
from worldsystem.graph import Choice, stages
from worldsystem.sent import FRAMES_FILE, frames_sent
from worldsystem_ingest.config import IngestConfig
from worldsystem_mesh.config import MeshConfig
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_viewer.config import ViewerConfig


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


def test_a_port_is_the_stages_own_unless_it_is_given():
    ports = {"port", "web_port", "foxglove_port", "rerun_port"}
    given = parameters_of("server:")
    assert not ports & (given["ingest"].keys() | given["viewer"].keys())
    words = ["--port", "1", "--web-port", "2", "--foxglove-port", "3", "--rerun-port", "4"]
    given = parameters_of("server:", *words)
    assert given["ingest"]["port"] == 1
    assert [given["viewer"][name] for name in ("web_port", "foxglove_port", "rerun_port")] == [
        2,
        3,
        4,
    ]


def test_help_says_the_stages_own_defaults(capsys):
    with pytest.raises(SystemExit):
        _parser().parse_args(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    viewer = ViewerConfig()
    ports = [IngestConfig().port, viewer.web_port, viewer.foxglove_port, viewer.rerun_port]
    for default in (Slam3rConfig().backend, MeshConfig().device, *ports):
        assert f"(default: {default})" in text


@pytest.mark.parametrize(
    ("source", "sent"), [("sim:orbit", 2), ("server:", 2), ("runs/x/bag", None), ("c.mp4", None)]
)
def test_what_a_simulator_sent_is_awaited_of_its_flight_and_not_of_a_recording(
    source, sent, tmp_path
):
    (tmp_path / FRAMES_FILE).write_text("frame_id,sent\n0,1\n1,1\n")
    assert frames_sent(str(tmp_path), source) == sent
    assert frames_sent("", source) is None


@pytest.mark.parametrize(
    "source",
    [
        "file://{}/my%20clip.mp4",
        "FILE:{}/my%20clip.mp4",
        "bag:{}/my%20clip.mp4",
        "file:~/my%20clip.mp4",
        "~/my clip.mp4",
    ],
)
def test_a_file_is_worked_through_whole_however_it_is_named(source, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my clip.mp4").touch()
    choice = Choice(source=source.format(tmp_path), out=tmp_path / "out")
    assert choice.offline
    assert choice.plays_once


def test_a_home_is_written_out_behind_the_equals_sign_of_an_option(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    choice = _choice(_parser().parse_args(["run", "server:", "--out=~/flight", "--truth=~/gt"]))
    assert choice.out == Path("/home/ann/flight")
    assert choice.extra["reporter"]["truth"] == "/home/ann/gt"
    for command in ("bag cut", "bag merge", "import", "export", "eval a", "reprocess", "replay"):
        words = [*command.split(), "a", "--out=~/b"]
        assert _parser().parse_args(words).out == Path("/home/ann/b"), command


@pytest.mark.parametrize(
    "words",
    [
        "run a --duration nan",
        "run a --duration -1",
        "bag cut a --out b --start nan",
        "bag cut a --out b --end nan",
        "eval a b --offset inf",
        "reprocess a --cpus nan",
    ],
)
def test_a_number_that_is_none_is_wrong_use(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        _parser().parse_args(words.split())
    assert "is no number" in capsys.readouterr().err


def test_a_picture_before_which_a_flight_was_stopped_is_not_awaited(tmp_path):
    rows = "frame_number,stamp_ns,fate\n0,1,sent\n1,2,lost\n2,3,unsent\n"
    (tmp_path / FRAMES_FILE).write_text(rows)
    assert frames_sent(str(tmp_path), "sim") == 2
