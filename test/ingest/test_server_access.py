# SPDX-License-Identifier: Apache-2.0
"""Tokens by stream, TLS, and what strangers may see."""

from __future__ import annotations

import asyncio
import datetime
import http.client
import json
import logging
import ssl
import threading
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path

import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from ingest_lab import AccessUnit, MemorySink, RunningServer, encode, packets_of, send, serving

from worldsystem_core.errors import ConfigError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.server import ServerSource

SECRET, OTHERS = "drone-secret-71", "others-secret-72"
PATHS = ["/ws/video", "/ws/phone", "/ws/h264_stream", "/ws/video/consume"]


@cache
def video() -> list[AccessUnit]:
    return encode(10)


@pytest.fixture
def tokens(tmp_path: Path) -> str:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"drone": SECRET, "*": OTHERS}))
    return str(path)


def connects(url: str, **options: object) -> bool:
    async def connect() -> bool:
        async with websockets.connect(url, **options):
            return True

    try:
        return asyncio.run(connect())
    except websockets.InvalidStatus as refused:
        answer = refused.response
    assert answer.status_code == 401
    assert "token" in json.loads(answer.body)["error"]
    return False


def page(server: RunningServer, path: str, token: str = "") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_opens_to_its_own_token_only(path, tokens):
    with serving(token_file=tokens) as server:
        drone, left = server.url(f"{path}?stream=drone"), server.url(f"{path}?stream=left")
        bearer = {"additional_headers": {"Authorization": f"Bearer {SECRET}"}}
        assert connects(drone, **bearer)
        assert connects(f"{drone}&token={SECRET}")
        assert connects(f"{left}&token={OTHERS}")
        assert not connects(drone)
        assert not connects(f"{drone}&token={OTHERS}")
        assert not connects(f"{drone}&token={SECRET[:-1]}")
        assert not connects(f"{left}&token={SECRET}")
        assert not connects(f"{drone}&token=%C3%A9%00")


def test_a_stream_without_a_token_of_its_own_is_closed_when_there_is_none_for_all(tmp_path):
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"drone": SECRET}))
    with serving(token_file=str(path)) as server:
        assert not connects(server.url(f"/ws/video?token={SECRET}"))
        assert connects(server.url(f"/ws/video?stream=drone&token={SECRET}"))
        assert list(server.source.status().streams) == ["camera", "drone"]


def test_strangers_see_only_that_the_server_runs(tokens):
    with serving(token_file=tokens) as server:
        assert json.loads(page(server, "/health")[1]) == {"status": "ok", "receiving": False}
        for path in ("/health/rtsp", "/rtsp/status", "/metrics"):
            assert page(server, path)[0] == 401
            assert page(server, path, "wrong")[0] == 401
            assert page(server, path, OTHERS)[0] == 200
        assert "streams" in json.loads(page(server, "/health", SECRET)[1])


def test_tokens_appear_nowhere(tokens, caplog):
    caplog.set_level(logging.DEBUG)
    with serving(token_file=tokens) as server:
        asyncio.run(send(server.url(f"/ws/video?token={OTHERS}"), packets_of(video())))
        connects(server.url(f"/ws/video?stream=drone&token={OTHERS}"))
        server.sink.wait_settled(10)
        seen = [page(server, p, OTHERS)[1] for p in ("/health", "/metrics", "/rtsp/status", "/no")]
    logged = [r.getMessage() for r in caplog.records if not r.name.startswith("websockets")]
    seen += [repr(server.source.facts()), server.source.problem(), *logged]
    assert not any(secret in text for secret in (SECRET, OTHERS) for text in seen)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[]", "STREAM"),
        ("{}", "STREAM"),
        ('{"drone": 5}', "'drone'"),
        ('{"drone": ""}', "'drone'"),
    ],
)
def test_a_token_file_that_cannot_be_used_is_an_error_that_names_the_parameter(
    content, says, tmp_path
):
    path = tmp_path / "tokens.json"
    if content is not None:
        path.write_text(content)
    source = ServerSource(IngestConfig(port=0, token_file=str(path)))
    with pytest.raises(ConfigError, match="token_file") as error:
        source.run(MemorySink(), threading.Event())
    assert says in str(error.value)


def test_an_open_server_on_every_network_warns_once(caplog, tokens):
    with serving(host="0.0.0.0"):
        pass
    assert [r.levelname for r in caplog.records if "token_file" in r.message] == ["WARNING"]
    caplog.clear()
    with serving(host="0.0.0.0", token_file=tokens), serving():
        pass
    assert not [r for r in caplog.records if "token_file" in r.message]


def write_certificate(folder: Path, password: bytes = b"") -> dict[str, str]:
    """A certificate for localhost that signs itself, and its key."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    sealed = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, sealed)
    )
    return {"tls_certificate": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_video_goes_in_and_out_over_tls(tmp_path):
    files = write_certificate(tmp_path)
    trust = ssl.create_default_context(cafile=files["tls_certificate"])
    old = ssl.create_default_context(cafile=files["tls_certificate"])
    old.maximum_version = ssl.TLSVersion.TLSv1_1

    async def both(server: RunningServer) -> list[bytes]:
        base = f"wss://localhost:{server.port}"
        options = {"ssl": trust, "compression": None}
        with pytest.raises((ssl.SSLError, ConnectionResetError)):  # which may overtake the alert
            await websockets.connect(f"{base}/ws/video", ssl=old)
        async with (
            websockets.connect(f"{base}/ws/h264_stream", **options) as consumer,
            websockets.connect(f"{base}/ws/video", **options) as sender,
        ):
            for packet in packets_of(video()):
                await sender.send(packet)
            return [await asyncio.wait_for(consumer.recv(), 5) for _ in video()]

    with serving(**files) as server:
        received = asyncio.run(both(server))
        server.sink.wait_settled(10)
        with pytest.raises((OSError, http.client.HTTPException)):
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/health", timeout=5)
    assert received == [u.data for u in server.sink.units]


def tls_fault(**settings: str) -> str:
    with pytest.raises(ConfigError) as error:
        ServerSource(IngestConfig(port=0, **settings)).run(MemorySink(), threading.Event())
    return str(error.value)


def test_tls_files_that_cannot_be_used_are_errors_that_name_the_parameter(tmp_path):
    one, other = write_certificate(tmp_path / "one"), write_certificate(tmp_path / "other")
    sealed = write_certificate(tmp_path / "sealed", b"password")
    certificate, key = one["tls_certificate"], one["tls_key"]
    assert "`tls_key` is not" in tls_fault(tls_certificate=certificate)
    assert "`tls_certificate` is not" in tls_fault(tls_key=key)
    missing = tls_fault(tls_certificate=certificate, tls_key=str(tmp_path / "none.pem"))
    assert "`tls_key`" in missing
    assert "none.pem" in missing
    assert "does not belong" in tls_fault(tls_certificate=certificate, tls_key=other["tls_key"])
    assert "PEM" in tls_fault(tls_certificate=certificate, tls_key=__file__)
    assert "password" in tls_fault(**sealed)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://["}, {"Origin": "http://page.example", "Host": "["}],
    ids=["origin", "host"],
)
def test_a_page_whose_address_is_none_is_refused_as_a_foreign_one(path, headers):
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    with serving() as server:
        url = f"http://127.0.0.1:{server.port}{path}"
        request = urllib.request.Request(url, headers={**upgrade, **headers})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=5)


@pytest.mark.parametrize("path", [*PATHS, "/whip"])
def test_a_site_that_leads_its_own_name_to_this_machine_sends_and_takes_nothing(path):
    led = {"Host": "page.example:5001", "Origin": "http://page.example"}
    kind = {"Content-Type": "application/sdp", "Upgrade": "websocket"}
    with serving() as server:
        url = f"http://127.0.0.1:{server.port}{path}"
        body = b"v=0\n" if path == "/whip" else None
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(
                urllib.request.Request(url, body, headers={**led, **kind}), timeout=5
            )


def test_a_camera_page_may_send_through_a_proxy_that_has_the_certificate():
    through = {"X-Forwarded-For": "203.0.113.7"}
    cases = [("https", through, False), ("https", {}, True), ("http", through, True)]
    with serving() as server:
        for scheme, more, refused in cases:
            named = {"Host": "cam.example", "Origin": f"{scheme}://cam.example"}
            kind = {"Content-Type": "application/sdp"}
            url = f"http://127.0.0.1:{server.port}/whip"
            with pytest.raises(urllib.error.HTTPError) as caught:  # at last that it is no offer
                urllib.request.urlopen(
                    urllib.request.Request(url, b"v=0\n", headers=named | kind | more), timeout=5
                )
            assert (caught.value.code == 403) is refused, (scheme, more)
