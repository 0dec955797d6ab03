# SPDX-License-Identifier: Apache-2.0
"""The bridge as a node of the graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dds_domain import own_domain

from worldsystem.graph import Choice, stages
from worldsystem_bridge.outbox import Outbox
from worldsystem_core.errors import ConfigError
from worldsystem_core.surface import MeshDelta


def names(**extra: dict[str, object]) -> list[str]:
    return [stage.name for stage, _ in stages(Choice(out=Path("out"), extra=extra))]


def test_the_bridge_is_in_the_graph_only_when_asked_for(monkeypatch) -> None:
    monkeypatch.delenv("RABBITMQ_URL", raising=False)
    assert "bridge" not in names()
    assert "bridge" not in names(bridge={"use_sim_time": True})
    assert "bridge" in names(bridge={"url": "amqp://localhost"})
    monkeypatch.setenv("RABBITMQ_URL", "amqp://localhost")
    assert "bridge" in names()


@pytest.mark.ros
def test_a_node_whose_broker_is_away_says_so_and_ends_with_its_account_closed(monkeypatch) -> None:
    rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run this through `make test`")
    pytest.importorskip("pika", reason="pika is not installed")
    from rclpy.parameter import Parameter

    from worldsystem_bridge.node import BridgeNode

    monkeypatch.delenv("RABBITMQ_URL", raising=False)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=own_domain(__file__))
    try:
        with pytest.raises(ConfigError, match=r"bridge\.url"):
            BridgeNode(context=context)
        url = Parameter("url", value="amqp://guest:guest@127.0.0.1:1/")
        node = BridgeNode(context=context, parameter_overrides=[url])
        assert "127.0.0.1:1" in node.problem()
        node._outbox.post(list)
        node.input_ended()
        assert node.ledger.state().dropped == {"broker_away": 1}
        node.close()
    finally:
        rclpy.shutdown(context=context)


@pytest.fixture
def bridge(context) -> Iterator[Any]:  # its class needs ROS
    """A bridge whose broker is away for good: what is said of it, the test says."""
    pytest.importorskip("pika", reason="pika is not installed")
    from rclpy.parameter import Parameter

    from worldsystem_bridge.node import BridgeNode

    url = Parameter("url", value="amqp://guest:guest@127.0.0.1:1/")
    node = BridgeNode(context=context, parameter_overrides=[url])
    node._broker.stop()
    yield node
    node._broker.connected = False
    node.input_ended()
    node.close()


@pytest.mark.ros
def test_what_was_to_be_told_before_a_connection_is_told_again_once(bridge, monkeypatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(bridge._translation, "tell_again", lambda: told.append(1))
    bridge._broker.connects, bridge._broker.connected = 1, True
    bridge._look_for_connections()
    assert not told, "nothing was to be told yet"
    bridge._outbox.post(list)
    bridge._broker.connects, bridge._broker.connected = 2, False
    bridge._look_for_connections()
    assert not told, "it is away again"
    bridge._broker.connected = True
    for _ in range(2):
        bridge._look_for_connections()
    assert told == [1]


@pytest.mark.ros
def test_what_found_no_room_beside_a_slow_broker_is_told_again_once_too(
    bridge, monkeypatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(bridge._translation, "tell_again", lambda: told.append(1))
    monkeypatch.setattr(bridge, "_outbox", Outbox(4, bridge.ledger))  # one that is open
    bridge._connects = bridge._broker.connects = 1
    bridge._broker.connected = True
    for _ in range(8):
        bridge._outbox.post(list, passing=True)
    bridge._look_for_connections()
    while bridge._outbox.get(0.0) is not None:
        pass
    bridge._look_for_connections()
    assert not told, "poses that went say nothing of now"
    for _ in range(5):
        bridge._outbox.post(list)
    bridge._look_for_connections()
    assert not told, "older ones still wait"
    while bridge._outbox.get(0.0) is not None:
        pass
    for _ in range(2):
        bridge._look_for_connections()
    assert told == [1]


@pytest.mark.ros
def test_a_bridge_that_comes_late_asks_for_the_surface_before_it_tells_of_it(bridge) -> None:
    waiting = bridge._surface._before._request
    assert waiting is not None
    assert waiting.newer_than == 0
    late = MeshDelta(
        stamp_ns=1_700_000_000_500_000_000,
        sequence=5,
        base_sequence=4,
        block_size=1.0,
        blocks=(),
        removed=(),
        total_vertices=0,
        total_faces=0,
        keyframe_count=1,
        capture_ns=1_700_000_000_500_000_000,
    )
    bridge._surface.take(late)
    assert bridge.ledger.taken == 0


@pytest.mark.ros
def test_what_stands_is_told_again_though_newer_frames_always_wait(bridge, monkeypatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(bridge._translation, "tell_again", lambda: told.append(1))
    monkeypatch.setattr(bridge, "_outbox", Outbox(4, bridge.ledger))  # one that is open
    bridge._outbox.post(list)
    bridge._broker.connects, bridge._broker.connected = 1, True
    bridge._look_for_connections()
    assert not told, "an older one still waits"
    bridge._outbox.post(list, passing=True)
    assert bridge._outbox.get(0.0) is not None
    for _ in range(2):
        bridge._look_for_connections()
    assert len(bridge._outbox) == 1, "the newer one"
    assert told == [1]


@pytest.mark.ros
def test_a_reset_that_was_refused_is_told(bridge, monkeypatch, caplog) -> None:
    from worldsystem_msgs.srv import Reset

    class Asked:
        def add_done_callback(self, callback: Any) -> None:
            callback(self)

        def result(self) -> Any:
            return Reset.Response(success=False, message="no memory for the networks")

    class Served:
        def service_is_ready(self) -> bool:
            return True

        def call_async(self, _: Any) -> Asked:
            return Asked()

    monkeypatch.setattr(bridge, "_reset", Served())
    bridge._on_restart_message()
    bridge._look_for_restarts()
    assert "no memory for the networks" in caplog.text
