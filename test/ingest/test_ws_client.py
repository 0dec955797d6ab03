# SPDX-License-Identifier: Apache-2.0
"""Video relayed over WebSocket: from our server and others, over links that break and stall."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
import time

import numpy as np
import pytest
from ingest_lab import (
    MemorySink,
    encode,
    numbered_picture,
    packets_of,
    send,
    serving,
    wait_until,
)
from websockets.sync.server import ServerConnection
from ws_lab import Client, hanging_server, other_server, other_tls_server, sending

from worldsystem_core import wire
from worldsystem_core.errors import SourceError
from worldsystem_core.wire import PacketType, VideoPacket
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.url.relayed import _form_of
from worldsystem_ingest.url.ws_client import WsClient


def drone_flies(server, numbers: range, gop: int = 10, pause_s: float = 0.005) -> None:
    """Send numbered pictures to our server, as a drone does."""
    units = encode(numbers.stop, gop=gop)[numbers.start :]
    asyncio.run(
        send(server.url("/ws/video"), packets_of(units, first=numbers.start), pause_s=pause_s)
    )


def test_pictures_that_our_server_relays_come_in_order():
    with serving() as server, Client(server.url("")) as client:
        wait_until(lambda: client.source.facts()["link"] == "connected")
        drone_flies(server, range(30))
        wait_until(lambda: len(client.sink.frames) >= 30)
    assert client.numbers() == list(range(30))
    assert [u.data for u in client.sink.units] == [u.data for u in server.sink.units]
    assert client.source.facts()["carries"] == "Annex-B"
    client.assert_settled_once()


def test_a_server_that_restarts_is_found_again_and_ids_go_on():
    with contextlib.ExitStack() as client_ends_last:
        with serving() as first:
            port = first.port
            client = client_ends_last.enter_context(Client(first.url("")))
            wait_until(lambda: client.source.facts()["link"] == "connected")
            drone_flies(first, range(20))
            wait_until(lambda: len(client.sink.frames) >= 20)
        wait_until(lambda: client.source.problem() != "")
        with serving(port=port) as again:
            wait_until(lambda: client.source.facts()["connections"] == 2)
            assert client.source.problem() == ""
            drone_flies(again, range(20, 40))
            wait_until(lambda: len(client.sink.frames) >= 40)
    assert client.numbers() == list(range(40))
    client.assert_settled_once()


def test_a_peer_that_hangs_is_left_within_the_time_of_a_stall():
    """A plain socket that shakes hands and then says no more, nor answers a ping."""
    connections: list[float] = []
    with hanging_server(connections) as url, Client(url, stall_s=0.5) as client:
        wait_until(lambda: len(connections) >= 3)
        assert "silent for 0.5 s" in str(client.source.facts()["last error"])
    gaps_s = np.diff(connections)
    assert (gaps_s > 0.45).all()
    assert (gaps_s < 1.5).all()


def test_a_server_without_video_is_kept_and_shows_as_a_problem():
    with serving() as server, Client(server.url(""), stall_s=0.2) as client:
        wait_until(lambda: "connected, but no video" in client.source.problem())
        assert client.source.facts()["connections"] == 1
        drone_flies(server, range(10))
        wait_until(lambda: len(client.sink.frames) >= 10)
        assert client.source.facts()["connections"] == 1
    assert client.numbers() == list(range(10))


@pytest.mark.parametrize("size", [100, 1400, 65_536])
def test_a_byte_stream_in_any_pieces_is_decoded(size):
    stream = b"".join(unit.data for unit in encode(40))
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    with other_server(sending(pieces)) as url, Client(url) as client:
        wait_until(lambda: len(client.sink.frames) >= 39)
    assert client.numbers()[:39] == list(range(39))
    client.assert_settled_once()


def test_garbage_is_counted_and_the_video_after_it_plays():
    rng = np.random.default_rng(0)
    garbage = [rng.integers(5, 255, 500, np.uint8).tobytes() for _ in range(10)]
    messages = [*garbage, "no JSON {", *[unit.data for unit in encode(20)]]
    with other_server(sending(messages)) as url, Client(url) as client:
        wait_until(lambda: len(client.sink.frames) >= 20)
    assert client.numbers() == list(range(20))
    assert client.source.facts()["bad messages"] >= 2
    client.assert_settled_once()


def test_damaged_units_cost_one_group_of_pictures():
    units = encode(30)
    data = [unit.data for unit in units]
    data[13] = data[13][:12] + bytes(range(200))
    with other_server(sending(data)) as url, Client(url) as client:
        wait_until(lambda: len(client.sink.settled) >= 30)
    assert set(client.numbers()) >= {*range(13), *range(20, 30)}
    client.assert_settled_once()


def test_a_slow_server_is_no_stall():
    messages = [unit.data for unit in encode(8)]
    with (
        other_server(sending(messages, pause_s=0.25)) as url,
        Client(url, stall_s=0.6) as client,
    ):
        wait_until(lambda: len(client.sink.frames) >= 7)
        assert client.source.facts()["connections"] == 1
    assert client.numbers()[:7] == list(range(7))


def test_joining_in_the_middle_of_a_group_waits_for_its_end():
    units = [unit.data for unit in encode(30)]
    with other_server(sending([units[0], *units[5:]])) as url, Client(url) as client:
        wait_until(lambda: len(client.sink.settled) >= 26)
    assert client.numbers()[-10:] == list(range(20, 30))


def test_a_new_connection_in_the_middle_of_a_group_does_not_refer_to_the_old():
    data = [unit.data for unit in encode(30)]
    handlers = [sending(data[:7], lambda connection: connection.close()), sending(data[14:])]

    def handler(connection: ServerConnection) -> None:
        handlers.pop(0)(connection)

    with other_server(handler) as url, Client(url) as client:
        wait_until(lambda: len(client.sink.settled) >= 23)
    assert client.numbers() == [*range(7), *range(20, 30)]
    reasons = [reason for _, reason in client.sink.drops]
    assert reasons.count("lost_on_link") == 1
    assert reasons.count("no_key_frame") == 6
    client.assert_settled_once()


@pytest.mark.parametrize("start_codes", [True, False])
def test_relayed_packets_keep_numbers_and_the_senders_times(start_codes):
    sender_ns = time.time_ns() - 10**9
    messages = packets_of(encode(30), first=100, sender_ns=sender_ns, start_codes=start_codes)
    del messages[20]  # picture 117: the first two messages are the parameter sets
    with other_server(sending(messages, pause_s=0.033)) as url, Client(url) as client:
        wait_until(lambda: len(client.sink.settled) >= 30)
    assert client.source.facts()["carries"] == "packets"
    assert (client.sink.ids[0], client.sink.settled[-1]) == (100, 129)
    assert [d for d in client.sink.drops if d[1] == "lost_on_link"] != []
    steps_ns = np.diff([frame.stamp_ns for frame in client.sink.frames[2:10]])
    np.testing.assert_allclose(steps_ns, 33_000_000, atol=12_000_000)


def test_a_config_message_gives_the_camera():
    config = '{"type": "video_config", "width": 160, "height": 96, "fx": 140.0}'
    messages = [config, *[unit.data for unit in encode(5)]]
    with other_server(sending(messages)) as url, Client(url) as client:
        wait_until(lambda: len(client.sink.frames) >= 4)
    assert client.sink.frames[0].camera.fx == 140.0


def test_the_focal_length_of_the_settings_gives_the_camera():
    messages = [unit.data for unit in encode(5)]
    with other_server(sending(messages)) as url, Client(url, focal_px=150.0) as client:
        wait_until(lambda: len(client.sink.frames) >= 4)
    assert client.sink.frames[0].camera.fx == 150.0
    assert len(client.sink.cameras) == 1


def test_the_focal_length_of_the_settings_follows_a_change_of_resolution():
    def half(number: int) -> np.ndarray:
        return numbered_picture(number)[::2, ::2]

    messages = [unit.data for unit in [*encode(5), *encode(5, pictures=half)]]
    with other_server(sending(messages)) as url, Client(url, focal_px=150.0) as client:
        wait_until(lambda: len(client.sink.frames) >= 9)
    assert [camera.fx for camera, _ in client.sink.cameras] == [150.0, 75.0]


def test_an_annexb_message_and_a_packet_are_never_mistaken_for_each_other():
    for unit in encode(30, b_frames=2):
        assert _form_of(unit.data) == "Annex-B"
    for start_codes in (True, False):
        for message in packets_of(encode(30), start_codes=start_codes):
            assert _form_of(message) == "packets"
    # bytes 0-3 hold a size that reads as a start code
    disguised = wire.pack(
        VideoPacket(
            type=PacketType.FRAME, sender_ns=1, frame_number=3, payload=b"\0\0\1\x41" + bytes(300)
        )
    )
    assert _form_of(disguised) == "packets"
    assert _form_of(b"") == _form_of(b"hello" * 10) == ""


def test_the_token_is_sent_and_never_shown():
    asked: list[str] = []

    def handler(connection: ServerConnection) -> None:
        asked.append(connection.request.path)

    with other_server(handler) as url:
        url = f"{url}?token=secret&stream=a".replace("//", "//me:secret@")
        with Client(url) as client:
            wait_until(lambda: bool(asked))
    assert asked[0] == "/ws/h264_stream?token=secret&stream=a"
    shown = str(client.source.facts()) + client.source.problem()
    assert "secret" not in shown
    assert "ws://me:***@127.0.0.1" in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://h/x?key=S&q=1", "ws://h/x?key=***&q=1"),
        ("ws://h/x?password=S", "ws://h/x?password=***"),
        ("wss://h/x?q=1&Token=S", "wss://h/x?q=1&Token=***"),
        ("ws://pilot:1/S@h/x", "ws://***@h/x"),
    ],
)
def test_passwords_and_tokens_are_never_shown(url, shown):
    assert WsClient(url, IngestConfig()).facts()["url"] == shown


@pytest.mark.parametrize("url", ["ws://pilot:12#34@h/x", "ws://pilot:12a#34@h/x"])
def test_a_password_that_ends_the_address_is_refused_with_how_to_write_it(url):
    with pytest.raises(SourceError, match=r"ws://\*\*\*@h/x is no address.*%23") as refused:
        WsClient(url, IngestConfig())
    assert not [part for part in ("12", "34") if part in str(refused.value)]


def test_an_address_that_cannot_be_called_is_named_without_its_token():
    with Client("ws://pilot@127.0.0.1:1/x?token=s3kret", connect_attempts=1) as client:
        wait_until(lambda: bool(client.results))
    assert "username provided without password" in str(client.results[0])
    assert "s3kret" not in str(client.results[0])


@pytest.mark.parametrize(("status", "hint"), [(401, "token"), (404, "path"), (503, "503")])
def test_a_refusal_is_explained(status, hint):
    def refuse(connection, request):
        return connection.respond(status, "no")

    with (
        other_server(sending([]), process_request=refuse) as url,
        Client(url, connect_attempts=1) as client,
    ):
        wait_until(lambda: bool(client.results))
    assert f"refused with status {status}" in str(client.results[0])
    assert hint in str(client.results[0])


def test_a_server_that_is_not_there_is_given_up_after_so_many_attempts():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Client(f"ws://127.0.0.1:{port}", connect_attempts=3) as client:
        wait_until(lambda: bool(client.results))
    assert "given up after 3 attempts" in str(client.results[0])
    assert isinstance(client.results[0], SourceError)


def test_a_server_that_is_away_for_long_does_not_fill_the_log(caplog):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    pace = {"backoff_first_s": 0.01, "backoff_max_s": 0.01}
    with Client(f"ws://127.0.0.1:{port}", connect_attempts=20, **pace) as client:
        wait_until(lambda: bool(client.results))
    assert "given up after 20 attempts" in str(client.results[0])
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"127.0.0.1:{port}" in warning.getMessage()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {folder}/key.pem "
        f"-out {folder}/cert.pem -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1",
        shell=True,
        check=True,
        capture_output=True,
    )
    return folder


def tls(certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
def test_a_server_that_does_not_run_is_told_in_words(addresses, monkeypatch):
    def found(host, port, *_: object, **__: object) -> list:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setattr(socket, "getaddrinfo", found)
    with Client(f"ws://localhost:{port}", connect_attempts=1) as client:
        wait_until(lambda: bool(client.results))
    assert f"localhost:{port}/ws/h264_stream: Connection refused; given up" in str(
        client.results[0]
    )


def test_a_certificate_that_is_not_trusted_is_refused_with_a_way_out(certificate):
    with (
        other_tls_server(tls(certificate), []) as url,
        Client(url, connect_attempts=1) as client,
    ):
        wait_until(lambda: bool(client.results))
    assert "certificate is not trusted" in str(client.results[0])
    assert "SSL_CERT_FILE" in str(client.results[0])


def test_video_comes_over_tls_from_a_server_that_is_trusted(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    messages = [unit.data for unit in encode(10)]
    with other_tls_server(tls(certificate), messages) as url, Client(url) as client:
        wait_until(lambda: len(client.sink.frames) >= 10, 30.0)
    assert client.numbers() == list(range(10))


def test_a_sink_that_fails_ends_the_source_with_its_error():
    class Failure(Exception):
        pass

    def fail(unit):
        raise Failure

    messages = [unit.data for unit in encode(10)]
    with other_server(sending(messages)) as url:
        sink = MemorySink()
        sink.encoded = fail
        with pytest.raises(Failure):
            WsClient(url, IngestConfig()).run(sink, threading.Event())


@pytest.mark.parametrize("url", ["ws://", "ws://host:99999", "ws://host:x", "wss:///path"])
def test_an_address_without_a_host_is_an_error(url):
    with pytest.raises(SourceError, match="is no address; write it like ws://"):
        WsClient(url, IngestConfig())


@pytest.mark.parametrize("path", ["/ws/video", "/ws/phone/"])
def test_the_senders_side_of_a_server_is_an_error_that_names_the_other(path):
    with pytest.raises(SourceError, match=r"where senders connect.*/ws/h264_stream.*server://"):
        WsClient(f"ws://127.0.0.1:5001{path}", IngestConfig())


def test_a_path_that_is_not_there_yet_is_tried_like_a_sender_that_is_away():
    asked = []

    def refuse(connection, request):
        asked.append(request.path)
        return connection.respond(404, "not yet") if len(asked) < 3 else None

    messages = [unit.data for unit in encode(20)]
    with (
        other_server(sending(messages), process_request=refuse) as url,
        Client(url) as client,
    ):
        wait_until(lambda: bool(client.sink.frames), 5.0)
    assert len(asked) == 3
