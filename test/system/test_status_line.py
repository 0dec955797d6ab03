# SPDX-License-Identifier: Apache-2.0
"""The status line is for whoever reads it, and nobody has to."""

from __future__ import annotations

import io
import re
import sys
from urllib.parse import parse_qs

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem.cli import main
from worldsystem.graph import Choice, stages
from worldsystem.status_line import StatusLine
from worldsystem_ingest.config import IngestConfig
from worldsystem_viewer.config import ViewerConfig


class Gone(io.TextIOBase):
    """Standard output whose reader has ended, as that of `| head -1`."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def test_the_heading_says_the_ports_that_are_listened_on(tmp_path, capsys):
    StatusLine().heading(Choice(out=tmp_path))
    text, viewer = capsys.readouterr().out, ViewerConfig()
    for port in (viewer.web_port, viewer.foxglove_port, viewer.rerun_web_port, IngestConfig().port):
        assert f"127.0.0.1:{port}" in text
    extra = {"ingest": {"port": 1}, "viewer": {"web_port": 2, "rerun": False}}
    StatusLine().heading(Choice(out=tmp_path, extra=extra))
    text = capsys.readouterr().out
    assert "ws://127.0.0.1:1/" in text
    assert "http://127.0.0.1:2\n" in text
    assert "Rerun" not in text


def test_the_heading_and_the_reporter_are_told_no_password(tmp_path, capsys):
    choice = Choice(out=tmp_path, source="rtsp://a:s3kret@b/live")
    StatusLine().heading(choice)
    text = capsys.readouterr().out
    assert "rtsp://a:***@b/live" in text
    assert "s3kret" not in text
    given = {stage.name: parameters for stage, parameters in stages(choice)}
    assert given["reporter"]["source"] == "rtsp://a:***@b/live"
    assert given["ingest"]["source"] == choice.source


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("192.168.7.7", "192.168.7.7"),
        ("localhost", "localhost"),
        ("fd00::7", "[fd00::7]"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
    ],
)
def test_the_heading_says_the_host_that_is_listened_at(tmp_path, capsys, host, reached):
    StatusLine().heading(Choice(out=tmp_path, extra={"viewer": {"host": host}}))
    text, viewer = capsys.readouterr().out, ViewerConfig()
    assert f"http://{reached}:{viewer.web_port}\n" in text
    assert f"ws://{reached}:{viewer.foxglove_port}\n" in text
    (page,) = re.findall(rf"Rerun +http://{re.escape(reached)}:{viewer.rerun_web_port}/(\S+)", text)
    proxy = f"rerun+http://{reached}:{viewer.rerun_port}/proxy"
    assert parse_qs(page.lstrip("?")) == {"url": [proxy]}


def test_a_reader_that_goes_away_ends_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", Gone())
    line = StatusLine()
    line.heading(Choice(out=tmp_path))
    line.note("the mesher ended")
    line.end()


def test_a_terminal_without_our_letters_is_told_all_the_same(monkeypatch, tmp_path):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="latin-1"))
    line = StatusLine()
    line.heading(Choice(out=tmp_path))
    line.note("clip\udcff.mp4 → ended")
    text = shown.getvalue().decode("latin-1")
    assert "web page" in text
    assert "note: clip?.mp4 ? ended" in text


def test_the_heading_says_https_and_wss_where_there_is_a_certificate(tmp_path, capsys):
    tls = {"tls_certificate": "cert.pem", "tls_key": "key.pem"}
    StatusLine().heading(Choice(out=tmp_path, extra={"viewer": tls, "ingest": tls}))
    text, viewer = capsys.readouterr().out, ViewerConfig()
    assert f"https://127.0.0.1:{viewer.web_port}\n" in text
    assert f"wss://127.0.0.1:{viewer.foxglove_port}\n" in text
    assert f"wss://127.0.0.1:{IngestConfig().port}/ws/video" in text


def test_every_command_s_words_reach_a_terminal_without_our_letters(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="latin-1"))
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    sys.stdout.flush()
    assert "COCO" in shown.getvalue().decode("latin-1")


@pytest.mark.parametrize(("viewer", "name"), [("web", "web page"), ("foxglove", "Foxglove")])
def test_the_heading_names_no_viewer_that_is_off(tmp_path, capsys, viewer, name):
    StatusLine().heading(Choice(out=tmp_path))
    assert name in capsys.readouterr().out
    StatusLine().heading(Choice(out=tmp_path, extra={"viewer": {viewer: False}}))
    assert name not in capsys.readouterr().out
