# SPDX-License-Identifier: Apache-2.0
"""Answers of vision services, and prompts."""

from __future__ import annotations

import json

_CHAT, _MULTIPART = b"\x00", b"\xff"


def identify() -> dict[str, bytes]:
    """Both styles, a refusal, a redirection, and what is no HTTP."""
    chat = json.dumps({"choices": [{"message": {"content": " a red\nbox "}}]})
    deep = "[" * 3000
    chunked = 'Transfer-Encoding: chunked\r\n\r\n5\r\n"box"\r\n0\r\n\r\n'
    return {
        "chat": _CHAT + _answer(chat),
        "deep": _CHAT + _answer(deep),
        "label": _MULTIPART + _answer('{"label": "box"}'),
        "text": _MULTIPART + _answer("a box"),
        "chunked": _MULTIPART + b"HTTP/1.1 200 OK\r\n" + chunked.encode(),
        "cut": _MULTIPART + b"HTTP/1.1 200 OK\r\n" + chunked[:34].encode(),
        "busy": _CHAT + b"HTTP/1.1 429 Too Many\r\n\r\n",
        "moved": _CHAT + b"HTTP/1.1 302 Found\r\nLocation: http://service.example/x\r\n\r\n",
        "no_http": _CHAT + b"SSH-2.0-OpenSSH_9.6\r\n",
    }


def _answer(body: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def prompts() -> dict[str, bytes]:
    """The whole grammar."""
    return {
        "phrases": b"a small red box @0.4; moving things, tag:12 and the floor or grey balls @.5",
        "query": b"show me the nearest large shelves",
        "long_tag": b"tag:" + b"9" * 4400,
    }


SEEDS = {"identify": identify, "prompts": prompts}
