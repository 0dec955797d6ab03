# SPDX-License-Identifier: Apache-2.0
"""Settings of the bridge."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.config import Config, param


@dataclass(frozen=True, kw_only=True)
class BridgeConfig(Config):
    """What goes to RabbitMQ, and how it waits while the broker is away."""

    url: str = param("", "broker, as amqp://user:password@host:5672/; empty = RABBITMQ_URL")
    queue_messages: int = param(200, "messages that may wait for the broker", low=1, high=100_000)
    retry_first_s: float = param(2.0, "first pause before connecting again [s]", low=0.05)
    retry_most_s: float = param(30.0, "longest pause before connecting again [s]", low=0.05)
    results_wait_s: float = param(
        1.0,
        "so long a frame's result waits for the keyframe that it may become [s of video]",
        low=0.0,
        high=60.0,
    )
    mesh_delta: bool = param(True, "send the changed surface as mesh.delta and on the mesh stream")
    mesh_regions: bool = param(False, "send each changed region whole as mesh.region.X_Y_Z")
    mesh_full_s: float = param(0.0, "how often mesh.full is sent [s]; 0 = never", low=0.0)
    region_blocks: int = param(8, "edge of a region [blocks of the mesh]", low=1, high=1024)
    draco_level: int = param(7, "compression level of Draco", low=0, high=10)
    shared_keyframes: bool = param(
        False, "keyframes' points in POSIX shared memory /slam3r_keyframe_<id>, the newest ten"
    )
    restart_exchange: str = param(
        "restart_exchange", "exchange (fanout) whose messages begin a new map; empty = none"
    )
