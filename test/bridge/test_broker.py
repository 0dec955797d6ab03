# SPDX-License-Identifier: Apache-2.0
"""The bridge against a real RabbitMQ server, started on free ports for these tests."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worldsystem_bridge.broker import Broker
from worldsystem_bridge.config import BridgeConfig
from worldsystem_bridge.exchanges import KEYFRAMES, SLAM_RESULTS, Message
from worldsystem_bridge.outbox import Outbox
from worldsystem_core.errors import ConfigError
from worldsystem_core.ledger import StageLedger

# The server itself: the program of that name on the PATH would change to a user of its own.
SERVER = shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin")
pika = pytest.importorskip("pika", reason="pika is not installed")
_START_S = 40.0
logging.getLogger("pika").setLevel(logging.CRITICAL)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def until(what: Callable[[], object], limit_s: float = 10.0) -> None:
    end_s = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < end_s, "did not happen in time"
        time.sleep(0.02)


class Server:
    """A RabbitMQ server of our own: its data, its ports, loopback only, no plugins."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._dist, self._epmd = free_port(), free_port()
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nlog.console = false\n"
        )
        (folder / "enabled_plugins").write_text("[].\n")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def start(self) -> None:
        environment = os.environ | {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

        assert SERVER is not None
        for command in (["epmd"], [SERVER]):
            self._processes.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
        until(self._answers, _START_S)

    def _answers(self) -> bool:
        time.sleep(0.2)
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
            pika.BlockingConnection(pika.URLParameters(self.url)).close()
        except (pika.exceptions.AMQPError, OSError):
            return False
        return True

    def kill(self) -> None:
        for process in self._processes:
            os.killpg(process.pid, 9)
            process.wait(10)
        self._processes.clear()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if SERVER is None:
        pytest.skip("rabbitmq-server is not installed: python3 tools/setup.py --with-test-peers")
    running = Server(tmp_path_factory.mktemp("rabbitmq"))
    try:
        running.start()
        yield running
    finally:
        running.kill()


@pytest.fixture
def bridge(server: Server) -> Iterator[tuple[Outbox, Broker, list[int]]]:
    outbox, restarts = Outbox(50, StageLedger("bridge")), []
    config = BridgeConfig(retry_first_s=0.1, retry_most_s=0.5)
    broker = Broker(server.url, config, outbox, lambda: restarts.append(1))
    broker.start()
    until(lambda: broker.connected)
    yield outbox, broker, restarts
    broker.stop()


def result(number: int) -> Message:
    return Message(SLAM_RESULTS.name, "", str(number).encode(), "application/json")


def test_a_consumer_gets_what_it_bound_to_and_the_ledger_says_so(server, bridge) -> None:
    outbox, _, _ = bridge
    connection = pika.BlockingConnection(pika.URLParameters(server.url))
    channel = connection.channel()
    channel.exchange_declare(KEYFRAMES.name, exchange_type="topic", durable=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, KEYFRAMES.name, "keyframe.new")
    for key in ("keyframe.new", "keyframe.remove", "keyframe.new"):
        message = Message(KEYFRAMES.name, key, key.encode() + b"\x00", "application/msgpack")
        outbox.post(lambda message=message: [message])
    until(lambda: outbox.ledger.state().used == 3)
    got = [channel.basic_get(queue, auto_ack=True) for _ in range(3)]
    assert [(m.routing_key, body) for m, _, body in got[:2]] == [
        ("keyframe.new", b"keyframe.new\x00")
    ] * 2
    assert got[0][1].content_type == "application/msgpack"
    assert got[2] == (None, None, None)
    connection.close()


def test_a_restart_message_is_heard(server, bridge) -> None:
    _, _, restarts = bridge
    connection = pika.BlockingConnection(pika.URLParameters(server.url))
    connection.channel().basic_publish("restart_exchange", "", b"{}")
    until(lambda: restarts)
    connection.close()


def test_an_exchange_that_others_declared_otherwise_is_used_as_it_is(server) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(server.url))
    channel = connection.channel()
    channel.exchange_delete(SLAM_RESULTS.name)
    channel.exchange_declare(SLAM_RESULTS.name, exchange_type="topic", durable=True)
    outbox = Outbox(50, StageLedger("bridge"))
    broker = Broker(server.url, BridgeConfig(), outbox, lambda: None)
    broker.start()
    outbox.post(lambda: [result(1)])
    until(lambda: outbox.ledger.state().used == 1)
    broker.stop()
    channel.exchange_delete(SLAM_RESULTS.name)
    connection.close()


@pytest.mark.slow  # the server takes ten seconds to come back
def test_what_waited_while_the_server_was_dead_is_delivered_when_it_is_back(server, bridge) -> None:
    outbox, broker, _ = bridge
    outbox.post(lambda: [result(0)])
    until(lambda: outbox.ledger.state().used == 1)
    server.kill()
    until(lambda: not broker.connected)
    assert "guest" not in broker.problem
    for number in range(60):
        outbox.post(lambda number=number: [result(number)])
    server.start()
    until(lambda: outbox.ledger.state().in_flight == 0, 20.0)
    state = outbox.ledger.state()
    assert broker.connects == 2
    assert state.used + state.dropped["queue_full"] == 61
    assert state.used >= 51
    assert outbox.ledger.violations == 0


def test_a_posting_that_cannot_be_made_does_not_hold_up_the_others(bridge, caplog) -> None:
    outbox, broker, _ = bridge

    def not_allowed() -> list[Message]:
        raise PermissionError(13, "Permission denied", "/dev/shm/slam3r_keyframe_0")

    def unforeseen() -> list[Message]:
        raise KeyError("no such thing")

    for job in (not_allowed, unforeseen, lambda: [result(1)], not_allowed, lambda: [result(2)]):
        outbox.post(job)
    until(lambda: outbox.ledger.state().used == 2)
    assert outbox.ledger.state().dropped == {"not_encodable": 3}
    assert (broker.connects, broker.problem) == (1, "")
    assert "/dev/shm/slam3r_keyframe_0" in caplog.text


def test_an_exchange_that_refuses_does_not_hold_up_the_others(server) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(server.url))
    channel = connection.channel()
    channel.exchange_delete(SLAM_RESULTS.name)
    channel.exchange_declare(SLAM_RESULTS.name, exchange_type="fanout", internal=True)
    outbox, restarts = Outbox(50, StageLedger("bridge")), []
    broker = Broker(server.url, BridgeConfig(), outbox, lambda: restarts.append(1))
    broker.start()
    for number in range(3):
        outbox.post(lambda number=number: [result(number)])
        outbox.post(lambda: [Message(KEYFRAMES.name, "keyframe.new", b"", "application/msgpack")])
    until(lambda: outbox.ledger.state().used == 3)
    assert outbox.ledger.state().dropped == {"refused_by_broker": 3}
    assert broker.connects == 1
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, KEYFRAMES.name, "#")
    keyframe = Message(KEYFRAMES.name, "keyframe.new", b"beside", "application/msgpack")
    outbox.post(lambda: [result(9), keyframe])
    until(lambda: outbox.ledger.state().dropped == {"refused_by_broker": 4})
    assert channel.basic_get(queue)[2] == b"beside"
    channel.basic_publish("restart_exchange", "", b"{}")
    until(lambda: restarts)
    broker.stop()
    channel.exchange_delete(SLAM_RESULTS.name)
    connection.close()


def test_an_error_that_nobody_foresaw_is_told_and_the_connection_tried_again(monkeypatch) -> None:
    config = BridgeConfig(retry_first_s=0.1, retry_most_s=0.5)
    outbox = Outbox(50, StageLedger("bridge"))
    broker = Broker("amqp://guest:guest@127.0.0.1:1/", config, outbox, lambda: None)
    tries = []

    def fail() -> None:
        tries.append(1)
        raise KeyError("no such thing")

    monkeypatch.setattr(broker, "_talk", fail)
    broker.start()
    until(lambda: len(tries) >= 2)
    assert "no such thing" in broker.problem
    assert "trying again" in broker.problem
    outbox.post(list)
    broker.stop()
    assert outbox.ledger.state().dropped == {"broker_away": 1}


@pytest.mark.parametrize("options", ["{'cafile': '/nowhere/ca.pem'}", "{'cafile'", "[1]"])
def test_tls_options_that_cannot_be_used_are_refused_in_words(options) -> None:
    url = f"amqps://me:secret@box/?ssl_options={options}"
    with pytest.raises(ConfigError, match=r"bridge\.url") as error:
        Broker(url, BridgeConfig(), Outbox(1, StageLedger("bridge")), lambda: None)
    assert "secret" not in str(error.value)


def test_the_thread_that_makes_bodies_gives_way_to_others(monkeypatch) -> None:
    outbox = Outbox(50, StageLedger("bridge"))
    broker = Broker("amqp://guest:guest@127.0.0.1:1/", BridgeConfig(), outbox, lambda: None)
    niceness: list[int] = []

    def look() -> None:
        niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        broker._stop.set()

    monkeypatch.setattr(broker, "_talk", look)
    broker.start()
    until(lambda: niceness)
    broker.stop()
    assert niceness == [10]
