# SPDX-License-Identifier: Apache-2.0
"""Services and parameters of the system, called with CDR bytes by a bridge that is no client."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.serialization import deserialize_message, serialize_message
from worldsystem_msgs.srv import (
    LoadMap,
    MeshRequest,
    SaveMap,
    SaveMesh,
    SetPrompt,
    StartRecording,
    StopRecording,
)

from worldsystem_core.errors import ServiceError

SERVICES: dict[str, type] = {
    "mesh/request": MeshRequest,
    "mesh/save": SaveMesh,
    "recorder/start": StartRecording,
    "recorder/stop": StopRecording,
    "segment/set_prompt": SetPrompt,
    "slam3r/load_map": LoadMap,
    "slam3r/save_map": SaveMap,
}
_ANSWER_S = 30.0
_PARAMETERS_S = 2.0


class RemoteControl:
    """Calls services through `node`, which another thread spins; any thread may ask.

    Raises `ServiceError` when nobody serves, or no answer comes in time.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._group = ReentrantCallbackGroup()
        self._clients: dict[tuple[str, type], Any] = {}
        self._lock = threading.Lock()

    def services(self) -> dict[str, type]:
        """Full names and types of the services that this system may have."""
        return {self._node.resolve_service_name(name): kind for name, kind in SERVICES.items()}

    def call(self, name: str, request_cdr: bytes) -> bytes:
        """The answer's CDR to a request's."""
        kind: Any = self.services()[name]
        request = deserialize_message(request_cdr, kind.Request)
        return bytes(serialize_message(self._ask(kind, name, request, _ANSWER_S)))

    def parameters(self) -> dict[str, Any]:
        """`node.name` and value of every parameter of every node that answers soon."""
        found: dict[str, Any] = {}
        for node in self._others():
            try:
                listed = self._ask(
                    ListParameters, f"/{node}/list_parameters", ListParameters.Request(), None
                )
                names = [n for n in listed.result.names if not n.startswith("qos_overrides.")]
                asked = GetParameters.Request(names=names)
                values = self._ask(GetParameters, f"/{node}/get_parameters", asked, None).values
            except ServiceError:
                continue
            if len(values) != len(names):  # one of them has no value: it tells none then
                continue
            found |= {
                f"{node}.{name}": parameter_value_to_python(value)
                for name, value in zip(names, values, strict=True)
            }
        own = self._node.get_parameters_by_prefix("")
        return found | {f"{self._node.get_name()}.{name}": p.value for name, p in own.items()}

    def set_parameter(self, full_name: str, value: Any) -> None:
        """Set `node.name`; raises `ServiceError` with what the node says against it."""
        node, _, name = full_name.partition(".")
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        if node == self._node.get_name():
            result = self._node.set_parameters([Parameter(name, value=value)])[0]
        else:
            answer = self._ask(SetParameters, f"/{node}/set_parameters", request, _PARAMETERS_S)
            result = answer.results[0]
        if not result.successful:
            raise ServiceError(f"{full_name} stays as it is: {result.reason}")

    def _others(self) -> list[str]:
        space, own = self._node.get_namespace(), self._node.get_name()
        prefix = "" if space == "/" else space.strip("/") + "/"
        known = self._node.get_node_names_and_namespaces()
        return sorted({prefix + name for name, where in known if where == space and name != own})

    def _ask(self, kind: Any, name: str, request: Any, timeout_s: float | None) -> Any:
        with self._lock:
            client = self._clients.get((name, kind))
            if client is None:
                client = self._node.create_client(kind, name, callback_group=self._group)
                self._clients[(name, kind)] = client
        wait_s = _PARAMETERS_S if timeout_s is None else timeout_s
        if not client.wait_for_service(timeout_sec=min(wait_s, _PARAMETERS_S)):
            raise ServiceError(f"nobody serves {name}; is its stage running?")
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(_setting(done))
        if not done.wait(wait_s):
            raise ServiceError(f"{name} gave no answer within {wait_s:.0f} s; look at its log")
        return future.result()


def _setting(done: threading.Event) -> Callable[[Any], None]:
    return lambda _: done.set()
