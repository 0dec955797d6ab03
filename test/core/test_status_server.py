# SPDX-License-Identifier: Apache-2.0
"""Metrics and health over HTTP: who may look, and that nobody else can listen."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from worldsystem_core.errors import ConfigError
from worldsystem_core.status_server import Health, StatusServer, StatusSettings


@contextlib.contextmanager
def serving(*, well: bool = True, **settings: str) -> Iterator[StatusServer]:
    account = {"nodes": 3, "problem": "" if well else "the disk is full"}
    server = StatusServer(
        StatusSettings(**settings), lambda: b"frames 7\n", lambda: Health(well, account)
    )
    yield server
    server.close()


def ask(
    server: StatusServer,
    path: str,
    *,
    header: str = "",
    scheme: str = "http",
    trust: ssl.SSLContext | None = None,
) -> tuple[int, str]:
    request = urllib.request.Request(f"{scheme}://127.0.0.1:{server.port}{path}")
    if header:
        request.add_header("Authorization", header)
    try:
        with urllib.request.urlopen(request, timeout=5, context=trust) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def tokens(tmp_path: Path) -> str:
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"prometheus": "secret", "grafana": "other"}))
    return str(file)


def test_without_tokens_everybody_who_reaches_the_port_sees_all() -> None:
    with serving() as server:
        assert ask(server, "/metrics") == (200, "frames 7\n")
        status, body = ask(server, "/health?")
        assert (status, json.loads(body)["nodes"]) == (200, 3)
        assert ask(server, "/etc/passwd")[0] == 404


def test_with_tokens_metrics_need_one_in_the_header_or_the_address(tokens: str) -> None:
    with serving(token_file=tokens) as server:
        assert ask(server, "/metrics")[0] == 401
        assert ask(server, "/metrics", header="Bearer guess")[0] == 401
        assert ask(server, "/metrics", header="Basic secret")[0] == 401
        assert ask(server, "/metrics?token=")[0] == 401
        assert ask(server, "/metrics?token=%FF%FE")[0] == 401
        assert ask(server, "/metrics", header="Bearer secret") == (200, "frames 7\n")
        assert ask(server, "/metrics?token=other") == (200, "frames 7\n")


def test_a_load_balancer_without_a_token_learns_only_whether_all_is_well(tokens: str) -> None:
    with serving(token_file=tokens) as server:
        assert ask(server, "/health") == (200, '{"status": "ok"}')
        assert json.loads(ask(server, "/health?token=secret")[1])["nodes"] == 3
    with serving(token_file=tokens, well=False) as server:
        assert ask(server, "/health") == (503, '{"status": "degraded"}')
        assert "disk" in ask(server, "/health", header="bearer secret")[1]


def test_a_token_never_reaches_the_log(
    tokens: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(token_file=tokens) as server:
        assert ask(server, "/metrics?token=secret")[0] == 200
        assert ask(server, "/nowhere?token=secret")[0] == 404
    assert "secret" not in caplog.text + "".join(capfd.readouterr())


def test_tls_keeps_those_out_who_do_not_speak_it(tmp_path: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    files = {
        "tls_certificate": str(tmp_path / "cert.pem"),
        "tls_key": str(tmp_path / "key.pem"),
    }
    trust = ssl.create_default_context(cafile=files["tls_certificate"])
    with serving(**files) as server:
        assert ask(server, "/metrics", scheme="https", trust=trust) == (200, "frames 7\n")
        with pytest.raises(OSError):  # noqa: PT011 - whatever way the connection breaks off
            ask(server, "/metrics")
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            ask(server, "/metrics", scheme="https", trust=ssl.create_default_context())
        assert ask(server, "/health", scheme="https", trust=trust)[0] == 200


def test_tokens_and_certificates_that_cannot_be_used_are_told_with_their_setting() -> None:
    for settings in ({"token_file": "/no/such"}, {"tls_key": "/no/such"}):
        with pytest.raises(ConfigError, match=rf"monitor\.port: `{next(iter(settings))}`"):
            StatusServer(
                StatusSettings(**settings, setting="monitor.port"), bytes, lambda: Health(True, {})
            )


def test_no_name_server_is_asked_before_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the field none may answer, which takes ten seconds to find out."""
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("asked DNS for our own name"))
    with serving(host="0.0.0.0") as server:
        assert ask(server, "/metrics")[0] == 200


def test_a_host_that_is_no_address_is_told_with_the_setting() -> None:
    settings = StatusSettings(host="nohost.invalid", setting="mesher.metrics_port")
    with pytest.raises(ConfigError, match=r"mesher\.metrics_port: 'nohost\.invalid' is no address"):
        StatusServer(settings, bytes, lambda: Health(True, {}))


def test_it_serves_where_there_is_only_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving(host="::1") as server:
        address = f"http://[::1]:{server.port}/metrics"
        assert urllib.request.urlopen(address, timeout=5).read() == b"frames 7\n"


@pytest.mark.parametrize("written", ["pässwort", " abc\n"])
def test_a_token_that_is_accepted_opens(tmp_path: Path, written: str) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"friend": written}))
    token = written.strip()
    with serving(token_file=str(file)) as server:
        sent = token.encode().decode("latin-1")  # as curl sends it: UTF-8, byte for byte
        assert ask(server, "/metrics", header=f"Bearer {sent}")[0] == 200
        assert ask(server, f"/metrics?token={quote(token)}")[0] == 200
        assert ask(server, "/metrics", header="Bearer guess")[0] == 401


@pytest.mark.parametrize("token", ["\ud800", "  ", 7])
def test_a_token_that_nobody_could_send_is_refused(tmp_path: Path, token: object) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"friend": token}))
    with pytest.raises(ConfigError, match="the token of 'friend' must be a text"):
        StatusServer(StatusSettings(token_file=str(file)), bytes, lambda: Health(True, {}))


@pytest.mark.parametrize("name", ["token_file", "tls_key"])
def test_a_home_that_is_not_known_is_told_with_the_setting(name: str, tmp_path: Path) -> None:
    (tmp_path / "certificate").write_text("")
    settings = {"tls_certificate": str(tmp_path / "certificate")} if name == "tls_key" else {}
    settings[name] = "~nobody_of_this_name/file"
    with pytest.raises(ConfigError, match=f"`{name}` ~nobody_of_this_name/file cannot be read"):
        StatusServer(StatusSettings(**settings), bytes, lambda: Health(True, {}))
