# SPDX-License-Identifier: Apache-2.0
"""A client that speaks Foxglove's published WebSocket protocol and decodes with others' decoders.

ROS messages are read by `mcap_ros2` from the schema text that the server tells, protobuf ones by
Google's library from the descriptors that it tells; nothing of WorldSystem is used.
"""

from __future__ import annotations

import base64
import json
import struct
import time
from typing import Any

from mcap_ros2._dynamic import generate_dynamic
from websockets.sync.client import connect


class FoxgloveClient:
    """Subscribes to every channel that it is told of and keeps the newest message of each."""

    def __init__(self, port: int, left_out: tuple[str, ...] = ()) -> None:
        self._connecting = connect(
            f"ws://127.0.0.1:{port}",
            subprotocols=["foxglove.sdk.v1"],
            max_size=None,
            proxy=None,
            close_timeout=0.2,
        )
        self._left_out = left_out
        self.info: dict[str, Any] = {}
        self.channels: dict[int, dict] = {}
        self.services: dict[str, dict] = {}
        self.newest: dict[str, bytes] = {}
        self.parameters: dict[str, Any] = {}
        self.answers: dict[int, bytes | str] = {}

    def __enter__(self) -> FoxgloveClient:
        self.socket = self._connecting.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._connecting.__exit__(None, None, None)

    def read_until(self, done, timeout_s: float = 15.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not done(self):
            left = deadline - time.monotonic()
            assert left > 0, f"not within {timeout_s} s; messages on {sorted(self.newest)}"
            try:
                self._take(self.socket.recv(min(left, 0.2)))
            except TimeoutError:
                continue

    def tell(self, **operation: object) -> None:
        self.socket.send(json.dumps(operation))

    def call(self, name: str, call_id: int, payload: bytes) -> None:
        head = struct.pack("<BIII", 2, self.services[name]["id"], call_id, 3)
        self.socket.send(head + b"cdr" + payload)

    def decoded(self, topic: str) -> Any:
        """The newest message of `topic`."""
        channel = next(c for c in self.channels.values() if c["topic"] == topic)
        data, name = self.newest[topic], channel["schemaName"]
        if channel["encoding"] == "cdr":
            return generate_dynamic(name, channel["schema"])[name](data)
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

        pool = descriptor_pool.DescriptorPool()
        files = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(channel["schema"]))
        for file in files.file:
            pool.Add(file)
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(name)).FromString(data)

    def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self._take_binary(message)
            return
        told = json.loads(message)
        operation = told["op"]
        if operation == "serverInfo":
            self.info = told
        elif operation == "advertise":
            self._subscribe(told["channels"])
        elif operation == "advertiseServices":
            self.services |= {service["name"]: service for service in told["services"]}
        elif operation == "parameterValues":
            self.parameters |= {p["name"]: p.get("value") for p in told["parameters"]}
        elif operation == "serviceCallFailure":
            self.answers[told["callId"]] = told["message"]

    def _take_binary(self, message: bytes) -> None:
        if message[0] == 1:
            channel = int.from_bytes(message[1:5], "little")
            self.newest[self.channels[channel]["topic"]] = message[13:]
        elif message[0] == 3:
            _, call_id, size = struct.unpack_from("<III", message, 1)
            self.answers[call_id] = message[13 + size :]

    def _subscribe(self, channels: list[dict]) -> None:
        new = [c for c in channels if c["topic"] not in self._left_out]
        self.channels |= {channel["id"]: channel for channel in new}
        wanted = [{"id": channel["id"], "channelId": channel["id"]} for channel in new]
        self.tell(op="subscribe", subscriptions=wanted)
