# SPDX-License-Identifier: Apache-2.0
"""The container answers as launch_ros expects of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from composition_interfaces.srv import ListNodes, LoadNode, UnloadNode  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from worldsystem_core.ros.container import Container  # noqa: E402


class Client:
    """Calls the container's services."""

    def __init__(self, context):
        self.node = Node("client", context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)

    def call(self, service_type, name, request):
        client = self.node.create_client(service_type, f"/container/_container/{name}")
        assert client.wait_for_service(timeout_sec=30.0), "the container did not come up"
        for _ in range(3):  # an answer is lost that is sent before DDS has linked both ways
            future = client.call_async(request)
            self._executor.spin_until_future_complete(future, timeout_sec=20.0)
            if future.done():
                break
        assert future.done(), f"{name} did not answer"
        return future.result()

    def load(self, plugin, **parameters):
        made = [Parameter(name, value=value) for name, value in parameters.items()]
        request = LoadNode.Request(
            package_name=plugin.partition(".")[0],
            plugin_name=plugin,
            node_name="loaded",
            parameters=[parameter.to_parameter_msg() for parameter in made],
        )
        return self.call(LoadNode, "load_node", request)

    def close(self):
        self._executor.shutdown()
        self.node.destroy_node()


@pytest.fixture
def container(context):
    code = "from worldsystem_core.ros.container import main; main()"
    environment = os.environ | {"ROS_DOMAIN_ID": str(context.get_domain_id())}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # also under `nohup`
    )
    yield process
    process.kill()
    process.wait()


def test_nodes_are_loaded_listed_and_unloaded_and_sigint_ends_all_in_order(container, context):
    client = Client(context)
    loaded = client.load("worldsystem_mesh.node:MesherNode", device="cpu")
    assert loaded.success, loaded.error_message
    assert loaded.full_node_name == "/loaded"
    listed = client.call(ListNodes, "list_nodes", ListNodes.Request())
    assert list(listed.full_node_names) == ["/loaded"]
    unloaded = client.call(
        UnloadNode, "unload_node", UnloadNode.Request(unique_id=loaded.unique_id)
    )
    assert unloaded.success
    assert not client.call(ListNodes, "list_nodes", ListNodes.Request()).unique_ids
    assert client.load("worldsystem_mesh.node:MesherNode", device="cpu").success
    container.send_signal(signal.SIGINT)
    assert container.wait(30) == 0
    client.close()


def test_a_terminal_that_goes_away_ends_a_container_in_order(container, context, tmp_path):
    client = Client(context)
    recorder = "worldsystem_storage.node:RecorderNode"
    loaded = client.load(recorder, folder=str(tmp_path), name="bag")
    assert loaded.success, loaded.error_message
    container.send_signal(signal.SIGHUP)
    assert container.wait(30) == 0
    assert (tmp_path / "bag" / "metadata.yaml").exists()
    client.close()


@pytest.mark.parametrize(
    ("plugin", "parameters", "word"),
    [
        ("worldsystem_mesh.nowhere:MesherNode", {}, "nowhere"),
        ("worldsystem_mesh.node:NoSuchNode", {}, "NoSuchNode"),
        ("worldsystem_mesh.node:MesherNode", {"voxl": 0.1}, "voxl"),
        ("worldsystem_mesh.node:MesherNode", {"device": "abacus"}, "abacus"),
        ("worldsystem_viewer.node:ViewerNode", {"host": "203.0.113.7"}, "address"),
        ("worldsystem_core.ros.container:main", {}, "is no StageNode"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(
    container, context, plugin, parameters, word
):
    client = Client(context)
    answer = client.load(plugin, **parameters)
    assert not answer.success
    assert word in answer.error_message
    unloaded = client.call(UnloadNode, "unload_node", UnloadNode.Request(unique_id=99))
    assert not unloaded.success
    assert "99" in unloaded.error_message
    client.close()


class Plain(Node):
    """A user's own node, which is no stage."""

    where = None

    def __init__(self, **keywords):
        super().__init__("plain", context=Plain.where, **keywords)


def test_a_node_that_is_no_stage_is_refused_with_the_reason(context, monkeypatch):
    """It could be neither run nor ended, and the others would not be ended either."""
    module = types.ModuleType("a_users_own")
    module.Plain = Plain
    monkeypatch.setitem(sys.modules, "a_users_own", module)
    monkeypatch.setattr(Plain, "where", context)
    held = types.SimpleNamespace(loaded={}, _next_id=1)
    request = LoadNode.Request(plugin_name="a_users_own:Plain")
    answer = Container._load(held, request, LoadNode.Response())
    assert not answer.success
    assert "is no StageNode" in answer.error_message
    assert not held.loaded


def test_a_node_that_is_no_stage_is_refused_without_a_traceback(monkeypatch, caplog):
    module = types.ModuleType("a_users_own")
    module.Plain = Plain
    monkeypatch.setitem(sys.modules, "a_users_own", module)
    held = types.SimpleNamespace(loaded={}, _next_id=1)
    request = LoadNode.Request(plugin_name="a_users_own:Plain")
    Container._load(held, request, LoadNode.Response())
    (record,) = (r for r in caplog.records if r.name == "worldsystem_core.ros.container")
    assert "is no StageNode" in record.getMessage()
    assert not record.exc_info
