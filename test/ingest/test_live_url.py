# SPDX-License-Identifier: Apache-2.0
"""Live streams over loopback HTTP and TCP that break, stall and come back."""

from __future__ import annotations

import io
import logging
import socket
import threading
import time

import av
import pytest
from ingest_lab import number_in, numbered_picture, wait_until
from link_lab import free_port, http_server, running, send_head, transport_stream

from worldsystem_core.errors import SourceError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sink import Summary
from worldsystem_ingest.url.backoff import Backoff


def test_a_stream_that_breaks_is_opened_again_and_ids_go_on():
    def answer(handler, connection: int) -> None:
        send_head(handler)
        handler.wfile.write(transport_stream())

    with http_server(answer) as url, running(url) as link:
        link.wait_frames(100, 20.0)
    sink = link.sink
    assert sink.ids == list(range(len(sink.ids)))
    assert [number_in(f.rgb) for f in sink.frames[:80]] == [*range(40), *range(40)]
    stamps = [f.stamp_ns for f in sink.frames]
    assert stamps == sorted(set(stamps))
    assert abs(stamps[-1] - time.time_ns()) < 60 * 10**9
    assert [u.id for u in sink.units] == sink.ids


def test_a_stream_that_stalls_is_opened_again_in_time():
    done = threading.Event()
    stalled_s: list[float] = []

    def answer(handler, connection: int) -> None:
        send_head(handler)
        if connection == 0:
            stalled_s.append(time.monotonic())
            handler.wfile.write(transport_stream())
            done.wait(15.0)
        whole = transport_stream(150)
        for at in range(0, len(whole), 188 * 4):  # far from its end when the test looks at it
            handler.wfile.write(whole[at : at + 188 * 4])
            time.sleep(0.01)

    with http_server(answer) as url, running(url, stall_s=0.5) as link:
        wait_until(lambda: bool(link.source.state.last_error))
        assert 0.5 <= time.monotonic() - stalled_s[0] < IngestConfig().stall_s
        assert "no data from" in link.source.problem()
        link.wait_frames(45)
        assert link.source.problem() == ""
        done.set()


def test_data_without_pictures_leads_to_another_connection(monkeypatch):
    monkeypatch.setattr("worldsystem_ingest.url.connection._UNDECODABLE_S", 0.5)

    def answer(handler, connection: int) -> None:
        send_head(handler)
        whole = transport_stream(120)
        first_packets = whole[: 188 * 40]
        handler.wfile.write(whole if connection else first_packets)
        while not connection:  # headers of pictures, but nothing of what is in them
            for at in range(0, len(whole), 188):
                if whole[at + 1] & 0x40:
                    handler.wfile.write(whole[at : at + 30] + b"\xff" * 158)
                    time.sleep(0.005)

    with http_server(answer) as url, running(url) as link:
        wait_until(lambda: link.source.state.connections >= 2, 15.0)
        link.wait_frames(100)


def test_a_sender_that_is_not_there_is_tried_again_until_the_attempts_are_used_up():
    with running(f"tcp://127.0.0.1:{free_port()}", connect_attempts=3) as link:
        wait_until(lambda: bool(link.results))
    assert isinstance(link.results[0], SourceError)
    assert "given up after 3 attempts" in str(link.results[0])
    assert "connection refused" in str(link.results[0])


def test_stop_ends_a_source_that_waits_for_its_sender():
    url = f"tcp://127.0.0.1:{free_port()}"
    with running(url, backoff_first_s=60.0, backoff_max_s=60.0) as link:
        wait_until(lambda: link.source.state.state == "waiting")
        assert not link.results
    assert link.results == [Summary(frames=0, broken=None)]


@pytest.mark.parametrize("scheme", ["tcp", "http", "rtsp", "rtmp"])
def test_stop_ends_an_attempt_that_gets_no_answer(scheme):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(10.0)
        with running(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/live") as link:
            asked, _ = silent.accept()
            began_s = time.monotonic()
            link.stop.set()
            wait_until(lambda: bool(link.results))
            assert time.monotonic() - began_s < 2.0, "an answer is waited for longer"
        asked.close()
    assert link.results == [Summary(frames=0, broken=None)]


@pytest.mark.parametrize("port_of", ["udp://127.0.0.1:{}", "tcp://127.0.0.1:{}?listen=1"])
def test_a_listener_waits_for_its_sender_and_stops_at_once(port_of):
    with running(port_of.format(free_port())) as link:
        wait_until(lambda: link.source.state.state == "listening")
        assert link.source.problem() == ""
        began_s = time.monotonic()
        link.stop.set()
        wait_until(lambda: bool(link.results))
        assert time.monotonic() - began_s < 2.0, "a sender is waited for longer"


def test_a_whole_download_ends_the_source():
    def answer(handler, connection: int) -> None:
        send_head(handler, Content_Length=len(transport_stream()))
        handler.wfile.write(transport_stream())

    with http_server(answer) as url, running(url) as link:
        wait_until(lambda: bool(link.results))
    assert link.results == [Summary(frames=40, broken=None)]
    assert link.source.state.connections == 1
    stamps = [f.stamp_ns for f in link.sink.frames]  # at the recording's pace, not the download's
    assert [round((s - stamps[0]) * 1e-9 * 30) for s in stamps] == list(range(40))
    assert abs(stamps[-1] - time.time_ns()) < 10**9


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("format", ["mpegts", "matroska"])
def test_a_broken_download_goes_on_where_it_broke(ranges, format):
    """The beginning comes again and is skipped; then FFmpeg asks for the rest, where it can."""
    body = transport_stream(60, format)

    def answer(handler, connection: int) -> None:
        begin = 0
        asked = handler.headers.get("Range", "")
        if ranges and asked:
            begin = int(asked.removeprefix("bytes=").split("-")[0])
            span = f"bytes {begin}-{len(body) - 1}/{len(body)}"
            send_head(handler, 206, Content_Length=len(body) - begin, Content_Range=span)
        else:
            send_head(handler, Content_Length=len(body))
        end = begin + len(body) // 3 * (1 + connection) if connection < 2 else len(body)
        handler.wfile.write(body[begin:end])

    with http_server(answer) as url, running(url) as link:
        wait_until(lambda: bool(link.results), 15.0)
    assert link.results == [Summary(frames=60, broken=None)]
    assert [number_in(f.rgb) for f in link.sink.frames] == list(range(60))
    assert link.sink.settled == list(range(60))


def test_another_download_behind_the_same_url_begins_anew_and_no_id_is_left_open():
    """B-frames keep pictures under way in the decoder when the first download breaks."""
    bodies = [whole_matroska(20, b_frames=2), whole_matroska(30, b_frames=2)]

    def answer(handler, connection: int) -> None:
        body = bodies[min(connection, 1)]
        send_head(handler, Content_Length=len(body))
        handler.wfile.write(body if connection else body[: len(body) * 2 // 3])

    with http_server(answer) as url, running(url) as link:
        wait_until(lambda: bool(link.results), 15.0)
    assert link.sink.settled == list(range(len(link.sink.settled)))
    assert [number_in(f.rgb) for f in link.sink.frames[-30:]] == list(range(30))


def test_a_download_that_ends_with_its_connection_must_hold_what_its_header_promised():
    """Without Content-Length only the container tells that something is missing."""
    body = whole_matroska(40)  # 2.7 s, so that a half is plainly too short

    def answer(handler, connection: int) -> None:
        send_head(handler)
        handler.wfile.write(body if connection else body[: len(body) // 2])

    with http_server(answer) as url, running(url) as link:
        wait_until(lambda: bool(link.results), 15.0)
    assert link.source.state.connections == 2
    assert number_in(link.sink.frames[-1].rgb) == 39


def test_a_title_in_another_encoding_than_utf_8_does_not_matter():
    body = whole_matroska(20)
    body = body.replace(b"Lavf", "Laß!".encode("latin-1"))

    def answer(handler, connection: int) -> None:
        send_head(handler, Content_Length=len(body))
        handler.wfile.write(body)

    with http_server(answer) as url, running(url) as link:
        wait_until(lambda: bool(link.results))
    assert link.results == [Summary(frames=20, broken=None)]


def test_a_codec_without_a_decoder_is_said():
    body = whole_matroska(20).replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ")

    def answer(handler, connection: int) -> None:
        send_head(handler, Content_Length=len(body))
        handler.wfile.write(body)

    with http_server(answer) as url, running(url) as link:
        wait_until(lambda: "FFmpeg cannot decode" in link.source.problem())


def whole_matroska(count: int, b_frames: int = 0) -> bytes:
    """A recording at 15 Hz whose header says how long it is."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        options = {"x264-params": f"bframes={b_frames}:b-adapt=0"}
        stream = container.add_stream("libx264", rate=15, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(count):
            picture = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("code", "words"), [(401, "user name and password"), (404, "no stream of this path")]
)
def test_a_refusal_is_told_apart_from_a_sender_that_is_away(code, words, caplog):
    caplog.set_level(logging.DEBUG)

    def answer(handler, connection: int) -> None:
        send_head(handler, code, Content_Length=0)

    with http_server(answer) as url:
        secret_url = url.replace("http://", "http://pilot:open-sesame@") + "?token=abracadabra"
        with running(secret_url) as link:
            wait_until(lambda: words in link.source.problem())
            shown = f"{link.source.facts()} {link.source.problem()} {caplog.text}"
    assert "pilot:***@" in shown
    assert "open-sesame" not in shown
    assert "abracadabra" not in shown


def test_motion_jpeg_is_a_live_source():
    def answer(handler, connection: int) -> None:
        kind = "multipart/x-mixed-replace; boundary=frame"
        send_head(handler, Content_Type=kind)
        for number in range(1000):
            jpeg = jpeg_of(number)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            handler.wfile.write(head.encode() + jpeg + b"\r\n")
            time.sleep(0.01)

    with http_server(answer) as url, running(url) as link:
        link.wait_frames(20)
    assert [number_in(f.rgb) for f in link.sink.frames[:20]] == list(range(20))
    assert link.source.state.codec == "mjpeg"


def jpeg_of(number: int) -> bytes:
    import cv2

    return bytes(cv2.imencode(".jpg", numbered_picture(number))[1])


def test_what_ffmpeg_cannot_do_is_said_at_once():
    with running("rist://127.0.0.1:5000") as link:
        wait_until(lambda: bool(link.results))
    assert "no 'rist:'" in str(link.results[0])


def test_the_state_tells_protocol_codec_and_attempts():
    told = threading.Event()

    def answer(handler, connection: int) -> None:
        send_head(handler)
        handler.wfile.write(transport_stream(150))  # more than FFmpeg looks at before it begins
        told.wait(10.0)

    with http_server(answer) as url, running(url) as link:
        link.wait_frames(30)
        facts = link.source.facts()
        told.set()
    assert (facts["link"], facts["protocol"], facts["codec"]) == ("connected", "http", "h264")
    assert facts["connections"] == 1
    assert link.source.state.state == "ended"


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_waits_double_up_to_the_limit_and_begin_anew_after_a_success(jitter):
    backoff = Backoff(0.5, 8.0, lambda: jitter)
    waits = [backoff.next_s() / (1 - 0.5 * jitter) for _ in range(6)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    backoff.succeeded()
    assert backoff.next_s() == 0.5 * (1 - 0.5 * jitter)


def test_a_sender_that_is_away_for_long_does_not_fill_the_log(caplog):
    caplog.set_level(logging.DEBUG)
    url = f"tcp://127.0.0.1:{free_port()}"
    with running(url, backoff_first_s=0.01, backoff_max_s=0.01) as link:
        wait_until(lambda: link.source.state.attempts >= 20)
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
