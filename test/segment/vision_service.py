# SPDX-License-Identifier: Apache-2.0
"""A vision service that answers as told, and somebody who asks it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from worldsystem_core.objects import MapObject
from worldsystem_segment.identify.asking import SIGHTINGS
from worldsystem_segment.identify.client import Service
from worldsystem_segment.identify.identifier import Identifier

JPEG = b"\xff\xd8 not really a picture \xff\xd9"
CHAT = {"choices": [{"message": {"content": "  an oak \n chair "}}]}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answers) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.elsewhere = ""
        self.answers, self.seen, self.lock = list(answers), [], threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/chat/completions"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append((dict(self.headers), b""))
        self.send_error(405)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.seen.append((dict(self.headers), body))
            answers = self.server.answers
            code, content, wait_s = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(wait_s, threading.Event):
            wait_s.wait(30.0)
        else:
            time.sleep(wait_s)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            if code == 302:
                self.send_header("Location", self.server.elsewhere)
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass  # the asker has gone

    def log_message(self, *_) -> None:
        pass


@contextmanager
def held():
    """Answers wait for this event; it is set at the end at the latest."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


@contextmanager
def serving(*answers):
    server = _Server(answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)


@contextmanager
def identifying(server, **settings):
    said, arrived = [], threading.Condition()

    def told(identity) -> None:
        with arrived:
            said.append(identity)
            arrived.notify_all()

    service = Service(url=server.url, timeout_s=settings.pop("timeout_s", 2.0))
    asker = Identifier(service, told, **settings)

    def wait_for(count: int):
        with arrived:
            assert arrived.wait_for(lambda: len(said) >= count, 10.0)
            return list(said)

    try:
        yield asker, wait_for
    finally:
        asker.close()


def seen_often(number: int) -> MapObject:
    return MapObject(
        id=number, label="box", score=0.9, world_from_box=np.eye(4), size=np.ones(3),
        point_count=9, last_seen_ns=0, sightings=SIGHTINGS,
    )  # fmt: skip
