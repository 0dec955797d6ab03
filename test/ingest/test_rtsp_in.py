# SPDX-License-Identifier: Apache-2.0
"""RTSP from a real server: pictures by number, times, and coming back after every kind of loss."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from ingest_lab import number_in, wait_until
from link_lab import (
    encode_h265,
    free_port,
    need_rtsp_server,
    numbered_units,
    rtsp_server,
    running,
    write_units,
)

COUNT = 300


@pytest.fixture
def units_file(tmp_path: Path) -> Path:
    need_rtsp_server()
    return write_units(tmp_path / "units", list(numbered_units(COUNT)))


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_every_picture_of_an_rtsp_stream_arrives_in_order_as_it_was_sent(units_file, transport):
    port = free_port()
    with (
        rtsp_server("serve", port, units_file),
        running(f"rtsp://127.0.0.1:{port}/live?transport={transport}") as link,
    ):
        link.wait_frames(60)
    shown = [number_in(f.rgb) for f in link.sink.frames]
    assert shown == list(range(shown[0], shown[0] + len(shown)))
    sent = {u.data[-200:] for u in numbered_units(COUNT)}
    assert all(u.data[-200:] in sent for u in link.sink.units)
    assert link.sink.drops == []


def test_stamps_are_the_senders_wall_clock(units_file):
    port = free_port()
    with (
        rtsp_server("serve", port, units_file),
        running(f"rtsp://127.0.0.1:{port}/live") as link,
    ):
        wait_until(lambda: link.source.facts()["stamps from"] == "sender's wall clock")
        told = len(link.sink.frames) + 1
        link.wait_frames(told + 30)
    arrivals = {u.id: u.arrival_ns for u in link.sink.units}
    stamps = {f.id: f.stamp_ns for f in link.sink.frames}
    delays_ms = [(arrivals[at] - stamps[at]) * 1e-6 for at in sorted(stamps)[told:]]
    # FFmpeg gives a picture out when the next one begins, 33 ms later: arrival cannot tell that
    assert 20.0 < sorted(delays_ms)[len(delays_ms) // 2] < 200.0
    steps_ms = [(b - a) * 1e-6 for a, b in itertools.pairwise(list(stamps.values())[told:])]
    assert 25.0 < sorted(steps_ms)[len(steps_ms) // 2] < 40.0


def test_a_server_that_is_killed_and_comes_back_is_found_again(units_file):
    port = free_port()
    with running(f"rtsp://127.0.0.1:{port}/live", backoff_first_s=0.25) as link:
        for round_ in range(2):
            with rtsp_server("serve", port, units_file):
                ready_s, before = time.monotonic(), len(link.sink.frames)
                link.wait_frames(before + 5)
                assert time.monotonic() - ready_s < 3.0
            assert link.source.state.connections == round_ + 1
    assert link.sink.ids == list(range(len(link.sink.ids)))


def test_a_server_that_freezes_is_noticed_and_opened_again_when_it_thaws(units_file):
    port = free_port()
    with (
        rtsp_server("serve", port, units_file) as server,
        running(f"rtsp://127.0.0.1:{port}/live") as link,
    ):
        link.wait_frames(10)
        server.freeze()
        frozen_s = time.monotonic()
        wait_until(lambda: bool(link.source.state.last_error))
        assert time.monotonic() - frozen_s < 3.5
        server.thaw()
        before = len(link.sink.frames)
        link.wait_frames(before + 10)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("pilot:wrong@{}/live", "user name and password"),
        ("{}/live", "user name and password"),
        ("pilot:right@{}/other", "no stream of this path"),
    ],
)
def test_a_wrong_password_and_a_wrong_path_are_told_apart(units_file, place, words):
    port = free_port()
    with (
        rtsp_server("serve", port, units_file, "--user", "pilot:right"),
        running("rtsp://" + place.format(f"127.0.0.1:{port}")) as link,
    ):
        wait_until(lambda: words in link.source.problem())
        assert "wrong" not in f"{link.source.facts()}{link.source.problem()}"


def test_the_right_password_opens_the_stream(units_file):
    port = free_port()
    with (
        rtsp_server("serve", port, units_file, "--user", "pilot:right"),
        running(f"rtsp://pilot:right@127.0.0.1:{port}/live") as link,
    ):
        link.wait_frames(10)
        assert "right" not in str(link.source.facts())


def test_h265_comes_through_as_it_was_sent(tmp_path):
    need_rtsp_server()
    units = encode_h265(60)
    port, file = free_port(), write_units(tmp_path / "units", units)
    with (
        rtsp_server("serve", port, file, "--codec", "h265"),
        running(f"rtsp://127.0.0.1:{port}/live") as link,
    ):
        link.wait_frames(40)
    shown = [number_in(f.rgb) for f in link.sink.frames[:40]]
    assert shown == list(range(shown[0], shown[0] + 40))
    assert link.source.facts()["codec"] == "hevc"
    assert {u.codec for u in link.sink.units} == {"h265"}
    sent = {u.data[-100:] for u in units}
    assert all(u.data[-100:] in sent for u in link.sink.units)
