# SPDX-License-Identifier: Apache-2.0
"""The simulator against a WebSocket server on the loopback."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request

from worldsystem_core.errors import SourceError
from worldsystem_core.wire import PacketType, VideoPacket, unpack
from worldsystem_sim import simulator
from worldsystem_sim.faults import Faults
from worldsystem_sim.flight import flight
from worldsystem_sim.link import Backoff
from worldsystem_sim.simulator import SimStatus, Simulator
from worldsystem_sim.telemetry import geodetic_from_map
from worldsystem_sim.truth import load_truth

FAST = Backoff(first_s=0.05, most_s=0.1)


@dataclass
class Receiver:
    """A server in a thread that keeps what it gets; drops the video link after `drop_after`.

    Connections are counted before their handshake is answered: none can be forgotten.
    """

    drop_after: int = 10**9
    texts: list[dict[str, object]] = field(default_factory=list)
    packets: list[VideoPacket] = field(default_factory=list)
    telemetry: list[dict[str, object]] = field(default_factory=list)
    arrived_ns: list[int] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    opened: int = 0
    ended: int = 0

    def note_opened(self, socket: ServerConnection, request: Request) -> None:
        self.opened += 1
        self.connections += request.path == "/ws/video"

    async def handle(self, socket: ServerConnection) -> None:
        try:
            await self.keep_all(socket)
        finally:
            self.ended += 1

    async def keep_all(self, socket: ServerConnection) -> None:
        video = socket.request.path == "/ws/video"
        async for message in socket:
            if isinstance(message, bytes):
                self.packets.append(unpack(message))
                self.arrived_ns.append(time.time_ns())
                if len(self.packets) == self.drop_after:
                    socket.transport.abort()
                    return
            else:
                (self.texts if video else self.telemetry).append(json.loads(message))

    def wait_for_all(self) -> None:
        """Return once all that was sent on any connection has arrived."""
        end_s = time.monotonic() + 20.0
        while self.ended < self.opened or not self.opened:
            assert time.monotonic() < end_s, f"{self.ended} of {self.opened} connections ended"
            time.sleep(0.01)

    def pictures(self) -> list[int]:
        return [packet.frame_number for packet in self.packets if packet.type.is_picture]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    ready, loop = threading.Event(), asyncio.new_event_loop()
    servers: list[Server] = []

    async def begin() -> None:
        servers.append(await serve(found.handle, "127.0.0.1", 0, process_request=found.note_opened))
        found.port = servers[0].sockets[0].getsockname()[1]
        ready.set()

    def work() -> None:
        loop.run_until_complete(begin())
        loop.run_forever()

    async def end() -> None:
        servers[0].close()
        await servers[0].wait_closed()

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(5.0)
    yield found
    asyncio.run_coroutine_threadsafe(end(), loop).result(5.0)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5.0)
    loop.close()


def test_all_packets_arrive_in_order_with_exact_statistics(config, receiver):
    stats = Simulator(config).run(f"ws://127.0.0.1:{receiver.port}")
    receiver.wait_for_all()
    assert receiver.pictures() == list(range(20))
    assert stats.count("sent") == 20
    assert stats.connections == receiver.connections == 1
    first = receiver.texts[0]
    assert first["type"] == "video_config"
    assert first["fx"] == config.camera.fx
    assert [packet.type for packet in receiver.packets[:3]] == [
        PacketType.SPS, PacketType.PPS, PacketType.KEY_FRAME
    ]  # fmt: skip
    stamps = [packet.sender_ns for packet in receiver.packets if packet.type.is_picture]
    assert np.diff(stamps).tolist() == [100_000_000] * 19


def test_a_film_that_was_kept_begins_at_an_even_rate(config, receiver, scene, monkeypatch):
    """The flight's clock begins when the scene is made, not while it is: nothing is late."""
    made_ns = []

    def made_slowly(_: int) -> object:
        time.sleep(0.1)
        made_ns.append(time.time_ns())
        return scene

    Simulator(config).run(f"ws://127.0.0.1:{receiver.port}")
    receiver.wait_for_all()
    receiver.packets.clear()
    receiver.arrived_ns.clear()
    monkeypatch.setattr(simulator, "build_scene", made_slowly)
    simulated = Simulator(config)
    simulated.run(f"ws://127.0.0.1:{receiver.port}")
    receiver.wait_for_all()
    first_ns = receiver.packets[0].sender_ns
    lead_ns = round(simulator._LEAD_S * 1e9)
    assert [first_ns - made >= lead_ns for made in made_ns] == [True]
    assert receiver.pictures() == list(range(20))
    for arrived_ns, packet in zip(receiver.arrived_ns, receiver.packets, strict=True):
        assert arrived_ns >= packet.sender_ns, "nothing is sent before it is seen"


def test_telemetry_comes_at_its_rate_and_matches_the_flight(config, receiver, scene):
    Simulator(config).run(f"ws://127.0.0.1:{receiver.port}")
    receiver.wait_for_all()
    imu = [message for message in receiver.telemetry if message["type"] == "imu"]
    gps = [message for message in receiver.telemetry if message["type"] == "gps"]
    assert (len(imu), len(gps)) == (100, 10)
    path = flight(config.flight, config.seed, config.duration_s, scene)
    assert imu[50]["acceleration"] == pytest.approx(path.motion(1.0).acceleration)
    expected = geodetic_from_map(*path.position_m(1.0))
    assert (gps[5]["latitude"], gps[5]["longitude"], gps[5]["altitude"]) == pytest.approx(expected)


def test_a_dropped_connection_is_opened_again_from_a_key_frame(config, receiver):
    receiver.drop_after = 8
    longer = replace(config, duration_s=3.0)
    stats = Simulator(longer, FAST).run(f"ws://127.0.0.1:{receiver.port}")
    receiver.wait_for_all()
    assert receiver.connections == stats.connections == 2
    assert len(stats.fate) == 30
    assert sum(stats.count(fate) for fate in set(stats.fate.values())) == 30
    after = receiver.packets[8]
    assert after.type is PacketType.SPS
    assert receiver.pictures()[-1] == 29


def test_without_a_server_every_frame_is_accounted_for(config, unused_port):
    stats = Simulator(replace(config, duration_s=1.0), FAST).run(f"ws://127.0.0.1:{unused_port}")
    assert set(stats.fate.values()) == {"unconnected"}
    assert len(stats.fate) == 10
    assert not stats.reached
    assert str(unused_port) in stats.link_error


def test_the_flight_goes_past_the_proxy_of_the_machine(config, receiver, monkeypatch):
    for name in ("http_proxy", "https_proxy", "ws_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    short = replace(config, duration_s=1.0)
    assert Simulator(short, FAST).run(f"ws://127.0.0.1:{receiver.port}/ws/video").reached


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_lost_and_damaged_packets_are_counted_and_told_in_the_truth(config, receiver, tmp_path):
    faulty = replace(config, loss=0.3, corrupt=0.2, out=str(tmp_path))
    simulator = Simulator(faulty)
    stats = simulator.run(f"ws://127.0.0.1:{receiver.port}")
    receiver.wait_for_all()
    planned = [Faults.from_config(faulty).of_frame(i) for i in range(20)]
    lost = [i for i, fault in enumerate(planned) if fault.lost]
    assert list(simulator.faults.done["lost"]) == lost
    assert lost
    assert receiver.pictures() == [i for i in range(20) if i not in lost]
    truth = load_truth(tmp_path)
    assert [record.number for record in truth.records if record.fate == "lost"] == lost
    assert {record.number: record.fate for record in truth.records} == stats.fate


def test_truth_can_be_read_back_with_poses_and_seen_points(config, receiver, tmp_path, scene):
    Simulator(replace(config, out=str(tmp_path))).run(f"ws://127.0.0.1:{receiver.port}")
    receiver.wait_for_all()
    truth = load_truth(tmp_path)
    stamps = [packet.sender_ns for packet in receiver.packets if packet.type.is_picture]
    assert truth.stamps_ns.tolist() == stamps
    path = flight(config.flight, config.seed, config.duration_s, scene)
    assert np.allclose(truth.poses.world_from_cam[7], path.world_from_cam(0.7), atol=1e-6)
    points = truth.visible_points(every_n_frames=10, stride=6)
    assert len(points) > 500
    assert np.isfinite(points).all()
    assert np.abs(points[:, :2]).max() < 100.0
    assert len(truth.mesh().faces) == len(scene.triangles.paint)


def test_a_folder_without_truth_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match="no simulator ground truth"):
        load_truth(tmp_path)


def test_a_looping_flight_ends_when_stopped(config, receiver):
    stop = threading.Event()
    simulator = Simulator(replace(config, loop=True, duration_s=1.0))
    phases: list[str] = []

    def listen(status: SimStatus) -> None:
        phases.append(status.phase)
        if phases.count("flying") == 2:
            stop.set()

    stats = simulator.run(f"ws://127.0.0.1:{receiver.port}", stop, listen)
    assert phases[-1] == "landed"
    assert 20 <= stats.count("sent") <= 21
