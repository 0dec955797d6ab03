# SPDX-License-Identifier: Apache-2.0
"""One call of a service of a system that runs, from a program that is no node itself."""

from __future__ import annotations

import time
from typing import Any

import rclpy

from worldsystem_core.errors import ServiceError
from worldsystem_core.ros.process import use_dds_profile

_FOUND_S = 5.0
_ANSWER_S = 120.0
_AWAY_S = 3.0
"""So long who serves may be out of sight, as on a machine that is full."""


def call_service(kind: type, name: str, request: Any, namespace: str = "") -> Any:
    """The answer to `request`; a `ServiceError` when nobody serves `name` or answers in time.

    Ctrl-C is Python's `KeyboardInterrupt`.
    """
    use_dds_profile()
    rclpy.init(signal_handler_options=rclpy.SignalHandlerOptions.NO)
    node = rclpy.create_node("caller", namespace=namespace)
    try:
        client = node.create_client(kind, name)
        if not client.wait_for_service(timeout_sec=_FOUND_S):
            raise ServiceError(
                f"nobody serves {name}: start a system with `worldsystem run` first, "
                "and name its --namespace if it has one"
            )
        future = client.call_async(request)
        end_s = time.monotonic() + _ANSWER_S
        seen_s = time.monotonic()
        while not future.done() and time.monotonic() < end_s:
            rclpy.spin_once(node, timeout_sec=0.2)
            if client.service_is_ready():
                seen_s = time.monotonic()
            elif not future.done() and time.monotonic() - seen_s > _AWAY_S:
                raise ServiceError(f"who serves {name} went away before it answered")
        if not future.done():
            raise ServiceError(f"{name} gave no answer within {_ANSWER_S:.0f} s; look at its log")
        return future.result()
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
