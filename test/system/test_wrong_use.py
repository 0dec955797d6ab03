# SPDX-License-Identifier: Apache-2.0
"""Wrong use gets an answer that a person can act on, and leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import av
import numpy as np
import pytest
from dds_domain import own_domain
from demo_run import free_ports

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem.cli import main


def worldsystem(*words, out, timeout_s=120.0):
    """Run the command with viewers on free ports; the finished process."""
    web, foxglove, video = free_ports(3)
    ports = ["--web-port", web, "--foxglove-port", foxglove, "--port", video]
    command = [sys.executable, "-m", "worldsystem.cli", *words, "--out", out, *ports]
    return subprocess.run(
        [str(word) for word in command] + ["--set", "viewer.rerun=false"],
        env=os.environ | {"ROS_DOMAIN_ID": str(own_domain(__file__))},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def a_video(path, frames=40):
    """A short H.264 stream of drifting noise, as raw Annex-B."""
    rng = np.random.default_rng(0)
    width = max(400, 160 + 2 * frames)
    picture = rng.integers(0, 256, (96, width, 3), dtype=np.uint8)
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "8", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(frames):
            shown = np.ascontiguousarray(picture[:, 2 * number : 2 * number + 160])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())


def further(words: list[str], answer: str) -> Any:
    """A case that takes the same way as another one; each starts the whole system."""
    return pytest.param(words, answer, marks=pytest.mark.slow, id=words[1])


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["run", "/no/such/clip.mp4"], "does not exist"),
        further(["run", "text.mp4"], "is not a video"),
        further(["run", "empty"], "holds no images"),
        further(["run", "camera:7"], "there is no camera 7; cameras of this machine"),
        further(["run", "telepathy://me"], "unknown kind of source 'telepathy:'"),
        (["run", "clip.h264", "--backend", "abacus"], "choose one of: geometric"),
        (["run", "clip.h264", "--set", "mesher.voxl=1"], "unknown setting(s) ['voxl']; known:"),
        (["run", "clip.h264", "--set", "voxel"], "not of the form node.name=value"),
        (["run", "clip.h264", "--set", "mesh.voxel=1"], "no node is called mesh; known: bridge, "),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else None,
)
def test_an_answer_names_what_is_wrong_and_what_is_right(words, answer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty").mkdir()
    a_video(tmp_path / "clip.h264")
    done = worldsystem(*words, out=tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert answer in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_port_in_use_is_named_with_the_way_out(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = worldsystem(
            "run", "server:", "--set", f"viewer.web_port={port}", out=tmp_path / "out"
        )
    assert done.returncode == 2
    assert f"port {port} is already in use" in done.stderr
    assert "web_port" in done.stderr


def test_a_truncated_video_is_processed_up_to_the_break_and_said_so(tmp_path):
    whole, cut = tmp_path / "whole.h264", tmp_path / "cut.mp4"
    a_video(whole)
    with av.open(str(cut), "w", options={"movflags": "frag_keyframe+empty_moov"}) as target:
        source = av.open(str(whole))
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                packet.pts = packet.dts = number * packet.duration
                packet.stream = stream
                target.mux(packet)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 2 // 3])
    done = worldsystem("run", cut, "--headless", out=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    ledger = json.loads((tmp_path / "out" / "summary.json").read_text())["ledger"]
    assert 5 < ledger[0]["used"] < 40
    assert "note:" in done.stdout


@pytest.fixture
def waiting_server(tmp_path):
    """`worldsystem run server:`, once it listens; its results go to `out`."""
    (video,) = free_ports(1)
    command = [sys.executable, "-m", "worldsystem.cli", "run", "server:", "--headless"]
    process = subprocess.Popen(
        [*command, "--port", str(video), "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # also under `nohup`
    )
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", video)) == 0:
                break
        time.sleep(0.2)
    yield process
    process.kill()
    process.wait(10.0)


def test_ctrl_c_ends_a_waiting_server_in_order(waiting_server, tmp_path):
    process = waiting_server
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60.0)
    assert process.returncode == 0
    assert "report.html" in output
    assert (tmp_path / "out" / "bag" / "metadata.yaml").exists()


def test_a_terminal_that_goes_away_costs_nothing_of_the_run(waiting_server, tmp_path):
    process = waiting_server
    process.stdout.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(60.0) == 0
    assert (tmp_path / "out" / "report.html").exists()
    assert (tmp_path / "out" / "bag" / "metadata.yaml").exists()


def test_ctrl_c_ends_a_plain_loop_with_its_results(tmp_path):
    a_video(tmp_path / "clip.h264", frames=200)
    command = [sys.executable, "-m", "worldsystem.cli", "run", "clip.h264", "--no-ros"]
    process = subprocess.Popen(
        [*command, "--realtime", "--out", "out"], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60.0
    while not (tmp_path / "out").exists():
        assert time.monotonic() < deadline, "it did not begin"
        time.sleep(0.05)
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    assert process.wait(60.0) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert 0 < summary["ledger"][0]["used"] < 200
    assert (tmp_path / "out" / "trajectory.tum").exists()


def test_a_recording_that_does_not_exist_is_said_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "worldsystem.cli", "bag", "recover", str(tmp_path / "none")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "none" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_that_cannot_even_be_looked_at_is_named_with_the_reason(tmp_path, capsys):
    """As in another user's folder; a name that is too long is refused to root, too."""
    name = "x" * 300
    assert main(["run", name, "--headless", "--out", str(tmp_path / "out")]) == 2
    assert f"worldsystem: {name}: {os.strerror(errno.ENAMETOOLONG)}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [["replay"], ["reprocess"], ["runs", "show"], ["runs", "compare"], ["runs", "--folder"]],
    ids=" ".join,
)
def test_a_place_that_no_command_can_look_at_is_named_with_the_reason(
    words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    name = "x" * 300
    assert main([*words, name]) == 2
    told = capsys.readouterr().err
    assert f"worldsystem: {name}" in told
    assert os.strerror(errno.ENAMETOOLONG) in told
    assert not list(tmp_path.iterdir())
