# SPDX-License-Identifier: Apache-2.0
"""A component container for Python nodes: `composition_interfaces` over rclpy.

`launch_ros`' `ComposableNodeContainer` and `ros2 component` work with it as with the C++ one.
rclpy has none of its own (ros2/rclpy#575). A plugin is named `package.module:Class`.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import rclpy
from composition_interfaces.srv import ListNodes, LoadNode, UnloadNode
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter

from worldsystem_core.ending_signals import end_at_signals
from worldsystem_core.errors import WorldSystemError
from worldsystem_core.ros.log_forwarding import forward_logging, logging_arguments
from worldsystem_core.ros.node_thread import NodeThread, finish_all
from worldsystem_core.ros.process import tune_process, use_dds_profile
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_core.stale_segments import clean_stale_segments

log = logging.getLogger(__name__)

_FINISH_S = 20.0
_JOIN_S = 5.0
_LOOK_S = 0.2
_FORESEEN = (WorldSystemError, ImportError, AttributeError, ValueError)


class Container(Node):
    """Loads, lists and unloads nodes of this process by service."""

    def __init__(self) -> None:
        super().__init__("container")
        self.loaded: dict[int, NodeThread] = {}
        self._next_id = 1
        self._has_failed = False
        self.create_service(LoadNode, "~/_container/load_node", self._load)
        self.create_service(UnloadNode, "~/_container/unload_node", self._unload)
        self.create_service(ListNodes, "~/_container/list_nodes", self._list)

    def _load(self, request: LoadNode.Request, response: LoadNode.Response) -> LoadNode.Response:
        try:
            thread = NodeThread(_make_node(request))
        except Exception as error:  # the edge of the container: the other nodes go on
            response.error_message = f"{type(error).__name__}: {error}"
            unforeseen = None if isinstance(error, _FORESEEN) else error
            log.error("cannot load %s: %s", request.plugin_name, error, exc_info=unforeseen)
            return response
        thread.start()
        response.unique_id = self._next_id
        response.full_node_name = thread.node.get_fully_qualified_name()
        response.success = True
        self.loaded[self._next_id] = thread
        self._next_id += 1
        return response

    def _unload(
        self, request: UnloadNode.Request, response: UnloadNode.Response
    ) -> UnloadNode.Response:
        thread = self.loaded.get(request.unique_id)
        if thread is None:
            known = ", ".join(map(str, self.loaded)) or "none"
            response.error_message = f"no node with id {request.unique_id}; loaded: {known}"
            return response
        thread.node.hurried.set()
        finish_all([thread], _FINISH_S)
        self._has_failed |= thread.failure is not None
        if thread.is_stuck:  # it is still there, and can be unloaded once it is done
            response.error_message = str(thread.failure)
            return response
        del self.loaded[request.unique_id]
        response.success = True
        return response

    def _list(self, _: ListNodes.Request, response: ListNodes.Response) -> ListNodes.Response:
        response.unique_ids = list(self.loaded)
        response.full_node_names = [
            thread.node.get_fully_qualified_name() for thread in self.loaded.values()
        ]
        return response

    def finish(self) -> bool:
        """End all nodes in the order the data flows: they were loaded the other way round; whether
        none has failed."""
        threads = list(self.loaded.values())[::-1]
        for thread in threads:
            thread.node.hurried.set()
        finish_all(threads, _FINISH_S)
        self.loaded.clear()
        return not self._has_failed and all(thread.failure is None for thread in threads)


def load_class(plugin: str) -> type:
    """The class of `package.module:Class` (or `package::Class`, from the package's `node`)."""
    module, _, name = plugin.replace("::", ".node:").rpartition(":")
    if not module:
        raise ValueError(f"plugin '{plugin}' is not of the form package.module:Class")
    return getattr(importlib.import_module(module), name)


def _make_node(request: LoadNode.Request) -> StageNode:
    node_class = load_class(request.plugin_name)
    if not (isinstance(node_class, type) and issubclass(node_class, StageNode)):
        raise ValueError(f"{request.plugin_name} is no StageNode; run it in a process of its own")
    arguments = ["--ros-args"]
    if request.node_name:
        arguments += ["-r", f"__node:={request.node_name}"]
    if request.node_namespace:
        arguments += ["-r", f"__ns:={request.node_namespace}"]
    for rule in request.remap_rules:
        arguments += ["-r", rule]
    made: StageNode = node_class(
        cli_args=arguments,
        use_global_arguments=False,
        parameter_overrides=[Parameter.from_parameter_msg(p) for p in request.parameters],
    )
    return made


def signalled() -> threading.Event:
    """Set at Ctrl-C, SIGTERM, or when the terminal goes away; further signals change nothing, to
    the process's very end."""
    stop = threading.Event()
    end_at_signals(stop.set)
    return stop


def wait_for_end(stop: threading.Event, ended: Callable[[], bool] = lambda: False) -> None:
    """Sleep until `stop` is set or `ended`."""
    while not stop.wait(_LOOK_S) and not ended():
        pass
    log.info("ending")


def _make_ready() -> None:
    """What a process needs before ROS; where a person must change its environment, it ends with
    code 2."""
    tune_process()
    try:
        use_dds_profile()
    except WorldSystemError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)


def main() -> None:
    """Run an empty container until it is interrupted; then end its nodes in order.

    Its exit code is 1 when one of them has failed.
    """
    _make_ready()
    clean_stale_segments()
    rclpy.init(
        args=logging_arguments(sys.argv), signal_handler_options=rclpy.SignalHandlerOptions.NO
    )
    forward_logging()
    container = Container()
    executor = SingleThreadedExecutor()
    executor.add_node(container)
    thread = threading.Thread(target=executor.spin, name="container", daemon=True)
    stop = signalled()
    thread.start()
    wait_for_end(stop)
    executor.shutdown(timeout_sec=_JOIN_S)
    thread.join(_JOIN_S)
    all_well = container.finish()
    container.destroy_node()
    rclpy.try_shutdown()
    if not all_well:
        sys.exit(1)


def run_node(node_class: type) -> None:
    """Run one stage as its own process until it is interrupted; `main` of every `node.py`.

    A stage that fails, while it runs or as it ends, ends its process with code 1, so that whoever
    watches it (the supervisor, systemd, Docker) begins it anew; 2 says that a person must change
    its settings.
    """
    _make_ready()
    rclpy.init(
        args=logging_arguments(sys.argv), signal_handler_options=rclpy.SignalHandlerOptions.NO
    )
    forward_logging()
    try:
        thread = NodeThread(node_class())
    except WorldSystemError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        sys.exit(2)
    stop = signalled()
    thread.start()
    wait_for_end(stop, lambda: thread.failure is not None)
    thread.node.hurried.set()
    finish_all([thread], _FINISH_S)
    rclpy.try_shutdown()
    if thread.failure is not None:  # also one of the end itself: its results are not there
        sys.exit(1)


if __name__ == "__main__":
    main()
