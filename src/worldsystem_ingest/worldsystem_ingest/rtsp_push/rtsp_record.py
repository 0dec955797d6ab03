# SPDX-License-Identifier: Apache-2.0
"""Sending to an RTSP server (RFC 2326: ANNOUNCE, SETUP, RECORD), over the one TCP connection.

PyAV could do it too, but holds the interpreter's lock while it connects (docs/decisions/016): a
server that does not answer would stop every thread of the process.
"""

from __future__ import annotations

import base64
import hashlib
import re
import select
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import unquote, urlsplit

from worldsystem_ingest.url.link import LinkError

_PORTS = {"rtsp": 554, "rtsps": 322}
_POLL_S = 0.1
_ALIVE_EVERY_S = 2.0
_MOST_ANSWER_BYTES = 65_536
_VIDEO, _CONTROL = 0, 1  # the interleaved channels that we ask for
_HEADER_LINE = re.compile(rb"(?im)^([a-z-]+):[ \t]*(.*?)\r?$")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")
_MOST_DIGITS = 9
_PARAMETER = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]*))')


@dataclass(frozen=True)
class Answer:
    """A server's answer to one request; header names are in small letters."""

    code: int
    words: str
    headers: dict[str, str]
    challenges: tuple[str, ...] = ()


class RtspRecording:
    """One connection that records; made by `with`, which announces, and tears down at its end.

    Every wait ends after `timeout_s`, or soon after `stop`, with a `LinkError`.
    """

    def __init__(self, url: str, sdp: str, timeout_s: float, stop: threading.Event) -> None:
        parts = urlsplit(url)
        self._place = f"{parts.hostname}:{parts.port or _PORTS[parts.scheme]}"
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._user = unquote(parts.username or ""), unquote(parts.password or "")
        self._secure = parts.scheme == "rtsps"
        self._address = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        self._sdp = sdp
        self._timeout_s = timeout_s
        self._stop = stop
        self._challenge = ""
        self._session = ""
        self._number = 0
        self._received = b""
        self._asked_s: float | None = None
        self._alive_s = 0.0

    def __enter__(self) -> RtspRecording:
        self._socket = self._connected()
        try:
            self._request("ANNOUNCE", self._url, {"Content-Type": "application/sdp"}, self._sdp)
            transport = f"RTP/AVP/TCP;unicast;interleaved={_VIDEO}-{_CONTROL};mode=record"
            track = f"{self._url.rstrip('/')}/trackID=0"
            answer = self._request("SETUP", track, {"Transport": transport})
            self._session = answer.headers.get("session", "").split(";")[0]
            self._request("RECORD", self._url, {"Range": "npt=0.000-"})
        except BaseException:
            self._socket.close()
            raise
        self._alive_s = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if not isinstance(error, LinkError):
                self._socket.settimeout(_POLL_S)
                self._socket.send(self._message("TEARDOWN", self._url, {}, ""))
        except OSError:
            pass
        finally:
            self._socket.close()

    def send(self, packets: list[bytes], *, control: bytes = b"") -> None:
        """Send the packets of one access unit, and a report; hears what the server says, too."""
        data = b"".join(
            struct.pack(">BBH", 0x24, channel, len(packet)) + packet
            for channel, packet in [(_CONTROL, control), *((_VIDEO, p) for p in packets)]
            if packet
        )
        self._send(data)
        self.hear()

    def hear(self) -> None:
        """Take what the server sent and ask whether it is still there; never waits for it.

        Raises `LinkError` when it has closed, or has not answered for `timeout_s`.
        """
        while select.select([self._socket], [], [], 0.0)[0]:
            if not self._receive():
                break
        while self._take_answer() is not None:
            self._asked_s = None
        now_s = time.monotonic()
        if self._asked_s is not None:
            if now_s - self._asked_s > self._timeout_s:
                raise LinkError(f"{self._place} has not answered for {self._timeout_s:.1f} s")
        elif now_s - self._alive_s > _ALIVE_EVERY_S:
            self._alive_s = self._asked_s = now_s
            self._send(self._message("OPTIONS", self._url, {}, ""))

    def _connected(self) -> socket.socket:
        try:
            plain = socket.create_connection(self._address, min(self._timeout_s, 2.0))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._secure:
                context = ssl.create_default_context()
                plain = context.wrap_socket(plain, server_hostname=self._address[0])
        except ConnectionRefusedError as error:
            raise LinkError(f"nothing listens at {self._place} (connection refused)") from error
        except (OSError, UnicodeError) as error:
            raise LinkError(f"{self._place} cannot be reached ({error})") from error
        plain.setblocking(False)
        return plain

    def _request(self, method: str, url: str, headers: dict[str, str], body: str = "") -> Answer:
        """Ask and wait for a success; answers one challenge for a password."""
        answer = self._ask(method, url, headers, body)
        if answer.code == 401 and not self._challenge and any(self._user):
            self._challenge = _best_challenge(answer.challenges)
            answer = self._ask(method, url, headers, body)
        if answer.code in (401, 403):
            raise LinkError(
                f"{self._place} does not accept the user name and password, or asks for them "
                f"({answer.code})",
                refused=True,
            )
        if answer.code != 200:
            raise LinkError(f"{self._place} refuses {method}: {answer.code} {answer.words}")
        return answer

    def _ask(self, method: str, url: str, headers: dict[str, str], body: str) -> Answer:
        self._send(self._message(method, url, headers, body))
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            answer = self._take_answer()
            if answer is not None:
                return answer
            if self._stop.is_set() or time.monotonic() > deadline_s:
                raise LinkError(f"{self._place} did not answer {method} in {self._timeout_s:.1f} s")
            if select.select([self._socket], [], [], _POLL_S)[0]:
                self._receive()

    def _message(self, method: str, url: str, headers: dict[str, str], body: str) -> bytes:
        self._number += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._number}", "User-Agent: WorldSystem"]
        if self._session:
            lines.append(f"Session: {self._session}")
        if self._challenge:
            lines.append(
                f"Authorization: {_authorization(self._challenge, self._user, method, url)}"
            )
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body.encode())}")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def _send(self, data: bytes) -> None:
        """Send all of `data`; raises `LinkError` when nothing can be sent for `timeout_s`."""
        rest = memoryview(data)
        progress_s = time.monotonic()
        while rest:
            try:
                sent = self._socket.send(rest)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if self._stop.is_set() or time.monotonic() - progress_s > self._timeout_s:
                    raise LinkError(
                        f"{self._place} takes no data for {self._timeout_s:.1f} s"
                    ) from None
                select.select([], [self._socket], [], _POLL_S)
            except OSError as error:
                raise LinkError(f"{self._place} closed the connection ({error})") from error
            else:
                rest, progress_s = rest[sent:], time.monotonic()

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(_MOST_ANSWER_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError as error:
            raise LinkError(f"{self._place} closed the connection ({error})") from error
        if not data:
            raise LinkError(f"{self._place} closed the connection")
        self._received += data
        if len(self._received) > 2 * _MOST_ANSWER_BYTES:
            raise LinkError(f"{self._place} answers with more than an RTSP server would")
        return True

    def _take_answer(self) -> Answer | None:
        """The next whole answer of what was received; receiver reports between are skipped."""
        while self._received[:1] == b"$":
            if len(self._received) < 4:
                return None
            end = 4 + int.from_bytes(self._received[2:4], "big")
            if len(self._received) < end:
                return None
            self._received = self._received[end:]
        head, gap, rest = self._received.partition(b"\r\n\r\n")
        if not gap:
            return None
        found = [(n.decode().lower(), _plain(v)) for n, v in _HEADER_LINE.findall(head)]
        headers = dict(found)
        size = _whole(headers.get("content-length", ""))
        if len(rest) < size:
            return None
        self._received = rest[size:]
        first = head.split(b"\r\n", 1)[0].decode(errors="replace").split(" ", 2)
        if len(first) < 2 or not first[0].startswith("RTSP/"):
            return None  # a request of the server, which we need not understand
        challenges = tuple(value for name, value in found if name == "www-authenticate")
        return Answer(_whole(first[1]), first[2] if len(first) > 2 else "", headers, challenges)


def _plain(value: bytes) -> str:
    """A header's value without what would end a line of ours: parts of it go back to the server."""
    return _CONTROL_CHARACTERS.sub(" ", value.decode(errors="replace"))


def _whole(text: str) -> int:
    """A number of up to nine digits; 0 for other text."""
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else 0


def _best_challenge(challenges: tuple[str, ...]) -> str:
    """Digest where it is offered: Basic sends the password itself."""
    ranked = sorted(challenges, key=lambda text: not text.lower().startswith("digest"))
    return ranked[0] if ranked else "Basic"


def _authorization(challenge: str, user: tuple[str, str], method: str, url: str) -> str:
    """The answer to a challenge (RFC 2617, as RTSP uses it)."""
    name, password = user
    if not challenge.lower().startswith("digest"):
        return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
    given = {key.lower(): quoted or bare for key, quoted, bare in _PARAMETER.findall(challenge)}
    realm, nonce = given.get("realm", ""), given.get("nonce", "")
    algorithm = given.get("algorithm", "MD5")

    def digest(text: str) -> str:
        kind = "sha256" if algorithm.upper() == "SHA-256" else "md5"
        return hashlib.new(kind, text.encode()).hexdigest()

    response = digest(f"{digest(f'{name}:{realm}:{password}')}:{nonce}:{digest(f'{method}:{url}')}")
    return (
        f'Digest username="{name}", realm="{realm}", nonce="{nonce}", uri="{url}", '
        f'response="{response}", algorithm={algorithm}'
    )
