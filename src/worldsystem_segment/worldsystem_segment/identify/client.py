# SPDX-License-Identifier: Apache-2.0
"""One HTTP request to a vision service: OpenAI-compatible chat, or a plain multipart POST."""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from typing import Any

from worldsystem_core.access import only_this_machine
from worldsystem_core.shown_url import without_secrets

MAX_ANSWER_BYTES = 1_000_000
MAX_ANSWER_CHARACTERS = 2000
_PART_BYTES = 65_536
_TEXT_FIELDS = ("answer", "label", "text", "identity", "caption", "name")


class IdentifyError(Exception):
    """The service did not answer as it should; `again` says whether trying again may help."""

    def __init__(self, problem: str, *, again: bool) -> None:
        super().__init__(problem)
        self.again = again


@dataclass(frozen=True)
class Service:
    """Where and how to ask. `style` is `chat` (OpenAI-compatible) or `multipart`."""

    url: str
    style: str = "chat"
    model: str = ""
    key: str = ""
    question: str = "What is this object? Answer with a short noun phrase."
    timeout_s: float = 20.0


def ask(service: Service, jpeg: bytes, label: str, question: str = "") -> str:
    """The service's answer to a picture, as one trimmed text; raises `IdentifyError`."""
    question = question or service.question
    make = _chat_request if service.style == "chat" else _multipart_request
    try:
        request = make(service, jpeg, label, question)
    except ValueError as error:
        raise _unreachable(service, error, again=False) from error
    if service.key:
        request.add_unredirected_header("Authorization", f"Bearer {service.key}")
    try:
        body = _answer_to(request, service.timeout_s)
    except urllib.error.HTTPError as error:
        again = error.code in (408, 425, 429) or error.code >= 500
        raise IdentifyError(
            f"{without_secrets(service.url)} answered {error.code} {error.reason}", again=again
        ) from error
    except (http.client.HTTPException, OSError, ValueError, OverflowError) as error:
        raise _unreachable(service, error, again=True) from error
    if len(body) > MAX_ANSWER_BYTES:
        raise IdentifyError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes", again=False)
    return _text_of(body, service.style)


def _unreachable(service: Service, error: Exception, *, again: bool) -> IdentifyError:
    """What libraries say may quote the address: of one with a secret only the system's words are
    told."""
    shown, reason = without_secrets(service.url), getattr(error, "reason", None) or error
    quotes = shown != service.url and not isinstance(reason, OSError)
    words = "" if quotes else str(reason)
    return IdentifyError(f"{shown} cannot be reached: {words or type(error).__name__}", again=again)


def _answer_to(request: urllib.request.Request, timeout_s: float) -> bytes:
    """Up to a byte more than may be; a service that drips is given up in time, too.

    One on this machine is asked past the machine's proxy.
    """
    end_s, body = time.monotonic() + timeout_s, b""
    with _opened(request, timeout_s) as response:
        while len(body) <= MAX_ANSWER_BYTES and (part := response.read1(_PART_BYTES)):
            body += part
            if time.monotonic() > end_s:
                raise TimeoutError("timed out")
    return body


def _opened(request: urllib.request.Request, timeout_s: float) -> Any:
    if only_this_machine(urllib.parse.urlsplit(request.full_url).hostname or ""):
        past_the_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return past_the_proxy.open(request, timeout=timeout_s)
    return urllib.request.urlopen(request, timeout=timeout_s)


def _chat_request(
    service: Service, jpeg: bytes, label: str, question: str
) -> urllib.request.Request:
    picture = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    content = [
        {"type": "text", "text": f"{question} (A tracker calls it '{label}'.)"},
        {"type": "image_url", "image_url": {"url": picture}},
    ]
    body = {
        "model": service.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 100,
    }
    headers = {"Content-Type": "application/json"}
    return urllib.request.Request(service.url, json.dumps(body).encode(), headers, method="POST")


def _multipart_request(
    service: Service, jpeg: bytes, label: str, question: str
) -> urllib.request.Request:
    border = uuid.uuid4().hex
    parts = [
        f'--{border}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in (("label", label), ("question", question))
    ]
    parts.append(
        f'--{border}\r\nContent-Disposition: form-data; name="image"; filename="object.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode()
    )
    body = b"".join([*parts, jpeg, f"\r\n--{border}--\r\n".encode()])
    headers = {"Content-Type": f"multipart/form-data; boundary={border}"}
    return urllib.request.Request(service.url, body, headers, method="POST")


def _text_of(body: bytes, style: str) -> str:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        plain = _trimmed(body.decode(errors="replace"))
        if style == "multipart" and plain and not plain.startswith(("{", "<")):
            return plain
        raise IdentifyError("the answer is not JSON", again=True) from error
    text = _chat_text(answer) if style == "chat" else _field_text(answer)
    if not isinstance(text, str) or not text.strip():
        raise IdentifyError("the answer holds no text where it should", again=True)
    return _trimmed(text)


def _chat_text(answer: Any) -> Any:  # whatever the service sent
    try:
        return answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None


def _field_text(answer: Any) -> Any:  # whatever the service sent
    if isinstance(answer, dict):
        return next((answer[name] for name in _TEXT_FIELDS if name in answer), None)
    return answer


def _trimmed(text: str) -> str:
    whole = text.encode(errors="replace").decode()  # a service may cut amid a character
    return " ".join(whole.split())[:MAX_ANSWER_CHARACTERS]
