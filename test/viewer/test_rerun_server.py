# SPDX-License-Identifier: Apache-2.0
"""Rerun's server: where it listens, what is said of one that ends, and that none is left behind."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from worldsystem_core.errors import ConfigError, PortInUse
from worldsystem_viewer import rerun_server
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.rerun_server import RerunServer
from worldsystem_viewer.rerun_sink import RerunSink

rerun = pytest.importorskip("rerun", reason="rerun-sdk is not installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_free_ports(**settings: object) -> ViewerConfig:
    return ViewerConfig(rerun_port=free_port(), rerun_web_port=free_port(), **settings)


def wait_for(ports, *, served: bool, timeout_s: float, host: str = "127.0.0.1") -> None:
    end = time.monotonic() + timeout_s
    for port in ports:
        while True:
            with socket.socket() as probe:
                if (probe.connect_ex((host, port)) == 0) is served:
                    break
            assert time.monotonic() < end, f"port {port}: served is not {served}"
            time.sleep(0.1)


@pytest.mark.parametrize(("host", "address"), [("127.0.0.2", "127.0.0.2"), ("localhost", None)])
def test_what_is_logged_goes_to_where_the_server_listens(monkeypatch, host, address):
    told, config = [], on_free_ports(host=host)
    make = rerun.GrpcSink
    monkeypatch.setattr(rerun, "GrpcSink", lambda url: told.append(url) or make(url))
    sink = RerunSink(config)
    sink.start()
    try:
        ports = config.rerun_port, config.rerun_web_port
        wait_for(ports, served=True, timeout_s=60.0, host=host)
    finally:
        sink.stop()
    (url,) = told
    place = urlsplit(url)
    assert (place.scheme, place.path, place.port) == ("rerun+http", "/proxy", config.rerun_port)
    assert place.hostname == (address or socket.gethostbyname(host))


@pytest.mark.parametrize(
    ("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")]
)
def test_a_server_on_every_network_is_reached_on_this_machine(host, reached):
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    config = on_free_ports(host=host)
    assert RerunServer(config).url == f"rerun+http://{reached}:{config.rerun_port}/proxy"


@pytest.mark.parametrize("host", ["203.0.113.7", "host..name"])
def test_a_host_that_is_none_of_this_machine_is_named(host):
    sink = RerunSink(ViewerConfig(host=host))
    with pytest.raises(ConfigError, match=r"viewer\.host"):
        sink.start()
    sink.stop()


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        sink = RerunSink(ViewerConfig(rerun_port=taken.getsockname()[1]))
        with pytest.raises(PortInUse, match="rerun_port"):
            sink.start()
        sink.stop()


def program(folder: Path, text: str) -> Path:
    made = folder / "rerun"
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(0o755)
    return made


def test_a_server_that_ends_by_itself_is_told_of_with_its_last_words(monkeypatch, tmp_path, caplog):
    ends = program(tmp_path, "echo no room for a server >&2; exit 3")
    monkeypatch.setattr(rerun_server, "_program", lambda: ends)
    server = RerunServer(on_free_ports())
    server.start()
    server._listening.join(30.0)
    assert "(code 3): no room for a server" in caplog.text
    server.end()


def test_of_a_server_that_is_ended_nothing_is_said(monkeypatch, tmp_path, caplog):
    stays = program(tmp_path, "exec sleep 600")
    monkeypatch.setattr(rerun_server, "_program", lambda: stays)
    server = RerunServer(on_free_ports())
    server.start()
    server.end()
    assert server.process.returncode is not None
    assert not server._listening.is_alive()
    assert "ended" not in caplog.text


def test_a_file_that_cannot_be_written_is_named_and_leaves_no_server_behind(monkeypatch, tmp_path):
    begun, make = [], subprocess.Popen

    def kept(*given: object, **options: object) -> subprocess.Popen:
        begun.append(make(*given, **options))
        return begun[-1]

    monkeypatch.setattr(subprocess, "Popen", kept)
    sink = RerunSink(on_free_ports(rerun_file=str(tmp_path / "missing" / "x.rrd")))
    try:
        with pytest.raises(ConfigError, match=r"viewer\.rerun_file.*x\.rrd"):
            sink.start()
        sink.stop()
        assert [child for child in begun if child.poll() is None] == []
    finally:
        for child in begun:
            child.kill()
            child.wait(10.0)


def test_rerun_with_nowhere_to_log_to_is_refused(tmp_path):
    """What is logged then stays in memory for good."""
    with pytest.raises(ConfigError, match=r"viewer\.rerun needs rerun_serve or rerun_file"):
        ViewerConfig(rerun=True, rerun_serve=False)
    assert ViewerConfig(rerun=False, rerun_serve=False).rerun_file == ""
    ViewerConfig(rerun=True, rerun_serve=False, rerun_file=str(tmp_path / "x.rrd"))
    ViewerConfig(rerun=True)


VIEWER = """
import sys
import time

from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.rerun_sink import RerunSink

sink = RerunSink(ViewerConfig(rerun_port=int(sys.argv[1]), rerun_web_port=int(sys.argv[2])))
sink.start()
time.sleep(60.0)
"""


def test_the_server_ends_with_a_viewer_that_is_killed():
    """One that lived on would hold the ports of the viewer that is begun anew."""
    ports = free_port(), free_port()
    viewer = subprocess.Popen([sys.executable, "-c", VIEWER, *map(str, ports)])
    try:
        wait_for(ports, served=True, timeout_s=60.0)
    finally:
        viewer.kill()
        viewer.wait(10.0)
    wait_for(ports, served=False, timeout_s=10.0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_server_ends_with_the_sink_though_the_logs_thread_died():
    config = on_free_ports()
    sink = RerunSink(config)
    sink.start()
    ports = config.rerun_port, config.rerun_web_port
    wait_for(ports, served=True, timeout_s=60.0)

    def fails(_: object) -> None:
        raise MemoryError

    sink._inbox.put(fails)
    sink._thread.join(timeout=30.0)
    assert not sink._thread.is_alive()
    sink.stop()
    wait_for(ports, served=False, timeout_s=10.0)


def test_what_is_logged_arrives_also_at_a_server_that_has_just_been_started():
    sink = RerunSink(on_free_ports())
    sink.start()
    try:
        sink._stream.log("world", rerun.TextLog("here"))
        sink._stream.flush(timeout_sec=30.0)  # raises when nobody took it
    finally:
        sink.stop()
