# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a choice is said before any stage is made."""

from __future__ import annotations

import inspect
import re
from pkgutil import resolve_name

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem.app import App
from worldsystem.cli import main
from worldsystem.foreseen import check
from worldsystem.graph import SIMULATOR, STAGES, Choice, simulator_parameters
from worldsystem.pipeline import run_pipeline
from worldsystem.separate import SeparateApp
from worldsystem_core.config import Config
from worldsystem_core.errors import WorldSystemError

WRONG = {
    "a file at nobody's home": ({"source": "~nobody_here/clip.mp4"}, "clip.mp4 does not exist"),
    "a name of other bytes": ({"source": "clip\udcff.mp4"}, r"clip\?\.mp4 is no name in UTF-8"),
    "a token and a certificate that the drone does not have": (
        {"extra": {"ingest": {"token_file": "t.json", "tls_certificate": "c.pem"}}},
        r"past ingest\.tls_certificate and ingest\.token_file; .*wss://NAME:5001\?token=TOKEN",
    ),
    "a host that is empty": ({"extra": {"ingest": {"host": ""}}}, "host is empty"),
    "a time without end": (
        {"extra": {"ingest": {"stall_s": float("inf")}}},
        "stall_s = inf is not a number",
    ),
    "an unknown setting": ({"extra": {"mesher": {"voxl": 0.1}}}, "did you mean voxel?"),
    "a value out of its limits": ({"extra": {"mesher": {"threads": 0}}}, "threads = 0 is outside"),
    "text for a number": ({"extra": {"mesher": {"voxel": "fine"}}}, "must be float, not str"),
    "an unknown setting of the drone": (
        {"extra": {"simulator": {"wings": 2}}},
        r"\['wings'\]; known: ",
    ),
    "a port that the drone cannot know": (
        {"extra": {"ingest": {"port": 0}}},
        "any free port, which the simulator would not know; choose one",
    ),
    "a drone's odd picture": ({"extra": {"simulator": {"width": 641}}}, "odd.* take 640 or 642"),
    "a drone's seed of many digits": (
        {"extra": {"simulator": {"seed": 2**63}}},
        r"is outside \[0, 2147483647\]",
    ),
    "a drone's share that is no number": (
        {"extra": {"simulator": {"loss": float("nan")}}},
        "loss = nan is not a number",
    ),
    "a drone's server that is none": (
        {"extra": {"simulator": {"url": "127.0.0.1:5001"}}},
        "write it as ws://127",
    ),
    "Rerun with nowhere to log to": (
        {"extra": {"viewer": {"rerun_serve": False}}},
        "viewer.rerun needs rerun_serve or rerun_file",
    ),
    "a port of Foxglove's that is none": (
        {"extra": {"viewer": {"foxglove_port": 87650}}},
        r"foxglove_port = 87650 is outside \[0, 65535\]",
    ),
    "an unknown back-end": ({"backend": "abacus"}, "choose one of: geometric"),
    "a file that is not there": ({"source": "/no/such/clip.mp4"}, "does not exist"),
    "a file: that is not there": ({"source": "file:///no/such.mp4"}, "/no/such.mp4 does not exist"),
    "ground truth that is not there": (
        {"source": __file__, "extra": {"reporter": {"truth": "/no/such.tum"}}},
        "there is no ground truth at /no/such.tum",
    ),
    "ground truth that is no trajectory": (
        {"source": __file__, "extra": {"reporter": {"truth": __file__}}},
        "test_foreseen.py is not a trajectory",
    ),
    "an unknown scheme": ({"source": "telepathy://me"}, "unknown kind of source 'telepathy:'"),
}
RIGHT = ("sim", "sim:orbit", "server:", "rtsp://127.0.0.1/x", "camera:0", "webrtc:", "bag:/x")


@pytest.mark.parametrize("runner", [App, SeparateApp], ids=["composed", "separate"])
@pytest.mark.parametrize("wrong", WRONG)
def test_it_is_said_before_any_stage_is_made(wrong, runner, tmp_path, monkeypatch):
    chosen, answer = WRONG[wrong]
    monkeypatch.setattr(runner, "_run", lambda *_: pytest.fail("stages are being made"))
    app = runner(Choice(out=tmp_path / "out", **chosen), status=False)
    with pytest.raises(WorldSystemError, match=answer):
        app.run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", RIGHT)
def test_what_may_be_right_is_not_refused(source, tmp_path):
    check(Choice(source=source, out=tmp_path))
    check(Choice(source=source, out=tmp_path), composed=False)


def test_a_file_that_is_there_is_not_refused(tmp_path):
    odd = tmp_path / "a:name.mp4"
    odd.write_bytes(b"")
    for source in (str(odd), f"file://{odd}", str(tmp_path)):
        check(Choice(source=source, out=tmp_path / "out"))


def test_any_free_port_is_right_for_whoever_tells_the_drone_where_to_send_to(tmp_path):
    free = {"ingest": {"port": 0}}
    check(Choice(source="server:", out=tmp_path, extra=free))
    check(Choice(out=tmp_path, extra=free | {"simulator": {"url": "ws://127.0.0.1:5009"}}))


@pytest.mark.parametrize("source", ["sim", "server:"])
def test_the_truth_of_a_flight_may_still_come(source, tmp_path):
    truth = {"reporter": {"truth": str(tmp_path / "truth")}}
    check(Choice(source=source, out=tmp_path / "out", extra=truth))


@pytest.mark.parametrize("wrong", WRONG)
def test_a_plain_loop_says_it_too_and_leaves_nothing(wrong, tmp_path):
    chosen, answer = WRONG[wrong]
    with pytest.raises(WorldSystemError, match=answer):
        run_pipeline(Choice(out=tmp_path / "out", **chosen))
    assert not (tmp_path / "out").exists()


def test_a_plain_loop_leaves_nothing_of_what_turns_out_to_be_no_source(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorldSystemError, match="holds no images"):
        run_pipeline(Choice(source=str(tmp_path / "empty"), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_plain_loop_compares_with_no_truth_that_is_not_there(tmp_path):
    with pytest.raises(WorldSystemError, match=r"there is no ground truth at /no/such\.tum"):
        run_pipeline(Choice(source=__file__, out=tmp_path / "out"), truth="/no/such.tum")


def test_stages_apart_go_on_in_the_map_of_another_run_only_where_a_person_says_so(tmp_path):
    (tmp_path / "map").mkdir()
    choice = Choice(out=tmp_path)
    check(choice)  # these begin without it
    with pytest.raises(WorldSystemError, match="map is of another run; choose another --out"):
        check(choice, composed=False)
    own = {"slam3r": {"map": str(tmp_path / "map")}}
    check(Choice(out=tmp_path, extra=own), composed=False)


def test_a_plain_loop_has_no_stages_that_could_be_processes(tmp_path, capsys):
    words = ["run", __file__, "--no-ros", "--separate", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "leave it or --separate out" in capsys.readouterr().err


def test_parameters_of_every_node_are_not_refused(tmp_path):
    given = {"use_sim_time": True, "qos_overrides./image.publisher.depth": 3}
    check(Choice(out=tmp_path, extra={"mesher": given}))


@pytest.mark.parametrize("stage", [*STAGES, SIMULATOR], ids=lambda stage: stage.name)
def test_a_stages_settings_are_those_that_its_node_reads(stage):
    settings = resolve_name(stage.settings)
    assert issubclass(settings, Config)
    source = inspect.getsource(resolve_name(stage.plugin))
    assert re.search(rf'__init__\(\s*"{stage.name}", {settings.__name__},', source)


@pytest.mark.parametrize(
    ("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("10.0.0.2", "10.0.0.2")]
)
def test_the_drone_is_told_the_host_that_the_server_listens_at(host, reached, tmp_path):
    choice = Choice(out=tmp_path, extra={"ingest": {"host": host}})
    assert simulator_parameters(choice)["url"] == f"ws://{reached}:5001"


def test_ground_truth_whose_name_is_of_other_bytes_is_refused_like_a_source(tmp_path):
    for node, setting in (("reporter", "truth"), ("slam3r", "map")):
        extra = {node: {setting: "of\udcff.tum"}}
        choice = Choice(source=__file__, out=tmp_path / "out", extra=extra)
        with pytest.raises(WorldSystemError, match=r"of\?\.tum is no name in UTF-8"):
            check(choice)
