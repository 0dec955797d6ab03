# SPDX-License-Identifier: Apache-2.0
"""Our RTSP client against servers that answer oddly, ask for passwords, or stop reading."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from ingest_lab import wait_until

from worldsystem_core.frames import EncodedFrame
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.rtsp_push.push import LINK_DOWN, LINK_SLOW, RtspPush
from worldsystem_ingest.rtsp_push.rtsp_record import RtspRecording
from worldsystem_ingest.url.backoff import Backoff
from worldsystem_ingest.url.link import LinkError

Reply = Callable[[str, int, dict[str, str]], bytes | None]
SETS = b"\0\0\0\1\x67\x42\xc0\x1f\x8c" + b"\0\0\0\1\x68\xce\x3c\x80"


def ok(number: int, *headers: str) -> bytes:
    lines = ["RTSP/1.0 200 OK", f"CSeq: {number}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def friendly(method: str, number: int, headers: dict[str, str]) -> bytes:
    return ok(number, "Session: 42;timeout=60") if method == "SETUP" else ok(number)


@contextlib.contextmanager
def fake_server(reply: Reply, *, reads_on: bool = True) -> Iterator[str]:
    """Answers each request with `reply(method, number, headers)`; None closes the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    closing = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
                with client, contextlib.suppress(OSError):
                    talk(client)

    def talk(client: socket.socket) -> None:
        received = b""
        while not closing.is_set():
            data = client.recv(65_536)
            if not data:
                return
            received += data
            while match := re.search(rb"([A-Z_]+) rtsp:(.*?)\r\n\r\n", received, re.DOTALL):
                head = match.group(0).decode()
                headers = {k.lower(): v for k, v in re.findall(r"(?m)^([\w-]+): (.*?)\r$", head)}
                end = match.end() + int(headers.get("content-length", 0))
                if len(received) < end:
                    break
                received = received[end:]
                answer = reply(match.group(1).decode(), int(headers["cseq"]), headers)
                if answer is None:
                    return
                client.sendall(answer)
                if match.group(1) == b"RECORD" and not reads_on:
                    closing.wait(20.0)
            received = received[-2000:]  # video may stand before the next request

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        closing.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def recording(url: str, timeout_s: float = 0.5) -> RtspRecording:
    return RtspRecording(url, "v=0\r\n", timeout_s, threading.Event())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", "did not answer"),
        (b"\xff" * 300_000, "more than an RTSP server would"),
        (b"RTSP/1.0 200\r\nContent-Length: -5\r\n\r\n", ""),
        (b"RTSP/1.0 two hundred\r\n\r\n", "refuses ANNOUNCE: 0"),
        (b"RTSP/1.0 500 Oh dear\r\n\r\n", "refuses ANNOUNCE: 500 Oh dear"),
        (b"RTSP/1.0 302 Moved\r\nLocation: rtsp://elsewhere\r\n\r\n", "refuses ANNOUNCE: 302"),
        (b"RTSP/1.0 200 OK\r\nContent-Length: 99999999\r\n\r\n", "did not answer"),
        (b"RTSP/1.0 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", ""),
        (b"RTSP/1.0 " + b"2" * 5000 + b" OK\r\n\r\n", "refuses ANNOUNCE: 0"),
        (b"$\0\xff\xff", "did not answer"),
        (b"RTSP/1.0 403 Forbidden\r\n\r\n", r"user name and password.*403"),
        (b"\r\n\r\n", "did not answer"),
        (b"", "did not answer"),
        (None, "closed the connection"),
    ],
)
def test_whatever_a_server_answers_ends_in_words_and_in_time(answer, words):
    with fake_server(lambda method, number, headers: answer) as place:
        began_s = time.monotonic()
        if not words:
            with recording(f"rtsp://{place}/live"):
                return
        with pytest.raises(LinkError, match=words), recording(f"rtsp://{place}/live"):
            pass
        assert time.monotonic() - began_s < 2.0


@pytest.mark.parametrize("algorithm", ["", "MD5", "SHA-256"])
def test_a_digest_is_answered_as_its_standard_says(algorithm):
    told: list[str] = []
    challenge = 'WWW-Authenticate: Digest realm="drones", nonce="n0nce"' + (
        f", algorithm={algorithm}" if algorithm else ""
    )

    def reply(method: str, number: int, headers: dict[str, str]) -> bytes:
        if "authorization" in headers:
            told.append(f"{method} {headers['authorization']}")
            return friendly(method, number, headers)
        basic = 'WWW-Authenticate: Basic realm="drones"'
        return ok(number, basic, challenge).replace(b"200 OK", b"401 Unauthorized")

    with fake_server(reply) as place, recording(f"rtsp://pilot:s%40cret@{place}/live"):
        pass
    assert [text.split()[0] for text in told[:3]] == ["ANNOUNCE", "SETUP", "RECORD"]
    uri = f"rtsp://{place}/live"

    def digest(text: str) -> str:
        return hashlib.new("sha256" if algorithm == "SHA-256" else "md5", text.encode()).hexdigest()

    ours = digest(f"{digest('pilot:drones:s@cret')}:n0nce:{digest(f'ANNOUNCE:{uri}')}")
    assert f'response="{ours}"' in told[0]
    assert "s@cret" not in "".join(told)


def test_a_server_puts_no_lines_of_its_own_into_our_requests():
    told: list[dict[str, str]] = []

    def reply(method: str, number: int, headers: dict[str, str]) -> bytes:
        told.append(headers)
        if "authorization" not in headers:
            challenge = 'WWW-Authenticate: Digest realm="a\rX-Evil: 1", nonce="b"'
            return ok(number, challenge).replace(b"200 OK", b"401 Unauthorized")
        return ok(number, "Session: 42\rX-Evil: 2")

    with fake_server(reply) as place, recording(f"rtsp://pilot:secret@{place}/live"):
        pass
    assert len(told) > 3
    assert not any("\r" in value for headers in told for value in headers.values())


def test_a_server_that_reads_no_more_costs_whole_groups_and_is_then_left():
    """First what waits overflows, which is a slow link; then nothing at all goes out."""
    with fake_server(friendly, reads_on=False) as place:
        config = IngestConfig(stall_s=1.5, relay_queue_frames=20)
        push = RtspPush(f"rtsp://{place}/live", config, Backoff(30.0, 30.0))
        try:
            for number in range(300):
                push.offer(picture(number, is_key=number % 5 == 0))
                time.sleep(0.004)
            wait_until(lambda: LINK_SLOW in push.status().lost)
            wait_until(lambda: push.status().state == "waiting")
            status = push.status()
        finally:
            push.close()
    assert re.search("takes no data|has not answered", status.last_error)
    lost = push.status().lost
    assert lost[LINK_DOWN] >= 1
    assert push.status().frames + sum(lost.values()) == 300


@pytest.mark.parametrize("comes_round", [False, True])
def test_connections_that_are_cut_at_once_are_attempts_in_vain_until_one_holds(
    monkeypatch, comes_round
):
    monkeypatch.setattr("worldsystem_ingest.rtsp_push.rtsp_record._ALIVE_EVERY_S", 0.05)
    monkeypatch.setattr("worldsystem_ingest.rtsp_push.push._PROVEN_S", 0.3)
    holds = threading.Event()

    def reply(method: str, number: int, headers: dict[str, str]) -> bytes | None:
        is_cut = method == "OPTIONS" and not holds.is_set()
        return None if is_cut else friendly(method, number, headers)

    with fake_server(reply) as place:
        config = IngestConfig(stall_s=0.5, relay_queue_frames=20)
        push = RtspPush(f"rtsp://{place}/live", config, Backoff(0.01, 0.05))
        try:
            offer_until(push, lambda: push.status().attempts >= 3)
            assert push.status().connections >= 3
            if comes_round:
                holds.set()
                offer_until(push, lambda: push.status().attempts == 0)
                assert push.status().state == "connected"
        finally:
            push.close()


def offer_until(push: RtspPush, condition: Callable[[], bool]) -> None:
    def offered() -> bool:
        push.offer(picture(0, is_key=True))
        return condition()

    wait_until(offered)


def picture(number: int, *, is_key: bool) -> EncodedFrame:
    slice_unit = b"\0\0\0\1" + (b"\x65" if is_key else b"\x41") + b"\x9a" * 100_000
    return EncodedFrame(
        id=number,
        stamp_ns=time.time_ns(),
        arrival_ns=0,
        data=SETS + slice_unit if is_key else slice_unit,
        is_key=is_key,
    )
