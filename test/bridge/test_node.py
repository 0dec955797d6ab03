# SPDX-License-Identifier: Apache-2.0
"""The bridge as a node of the graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from worldsystem.graph import Choice, stages
from worldsystem_core.errors import ConfigError


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
    rclpy.init(context=context, domain_id=77)
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
