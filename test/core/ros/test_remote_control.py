# SPDX-License-Identifier: Apache-2.0
"""What a bridge is told of the parameters of all nodes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from rclpy.parameter import Parameter

from worldsystem_core.ros.remote_control import RemoteControl


def test_a_node_that_tells_no_values_costs_the_others_none(monkeypatch):
    """As one with a parameter that was declared without a value."""
    names = ("camera", "mesher", "viewer")
    own = {"web_port": Parameter("web_port", value=8080)}
    node = SimpleNamespace(
        get_name=lambda: "viewer",
        get_namespace=lambda: "/",
        get_node_names_and_namespaces=lambda: [(name, "/") for name in names],
        get_parameters_by_prefix=lambda _: own,
    )
    remote = RemoteControl(node)

    def answered(kind, name, request, timeout_s):
        if name.endswith("list_parameters"):
            return SimpleNamespace(result=SimpleNamespace(names=["voxel"]))
        value = Parameter("voxel", value=0.05).get_parameter_value()
        return SimpleNamespace(values=[] if name.startswith("/camera/") else [value])

    monkeypatch.setattr(remote, "_ask", answered)
    assert remote.parameters() == {"mesher.voxel": 0.05, "viewer.web_port": 8080}
