# SPDX-License-Identifier: Apache-2.0
"""What the drone tells agrees with where it is, and the server's questions are answered."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from websockets.asyncio.server import serve

from worldsystem_sim.faults import Faults
from worldsystem_sim.flight import flight
from worldsystem_sim.link import Backoff
from worldsystem_sim.sender import Sender, SenderClock, SendStats
from worldsystem_sim.telemetry import ORIGIN_ALTITUDE_M, pressure_pa, telemetry


def messages_of(config, scene, kind: str) -> list[dict]:
    path = flight(config.flight, config.seed, config.duration_s, scene)
    return [m for _, m in telemetry(config, path, 0) if m["type"] == kind]


def test_pressure_is_that_of_the_standard_atmosphere():
    for altitude_m, expected_hpa in ((0, 1013.25), (500, 954.6), (1000, 898.7), (5000, 540.2)):
        assert pressure_pa(altitude_m) / 100 == pytest.approx(expected_hpa, abs=0.15)


def test_the_barometer_gives_the_altitude_of_the_flight(config, scene):
    path = flight(config.flight, config.seed, config.duration_s, scene)
    found = messages_of(config, scene, "barometer")
    assert len(found) == 20
    for message in found:
        share = message["pressure_hpa"] / 1013.25
        altitude_m = 288.15 / 0.0065 * (1 - share ** (1 / 5.25588))
        t_s = message["timestamp_ns"] * 1e-9
        assert altitude_m == pytest.approx(ORIGIN_ALTITUDE_M + path.position_m(t_s)[2], abs=0.01)


def test_the_attitude_turns_the_body_as_the_camera_truly_was(config, scene):
    path = flight(config.flight, config.seed, config.duration_s, scene)
    found = messages_of(config, scene, "attitude")
    assert len(found) == 40
    for message in found:
        forward = Rotation.from_quat(message["quaternion"]).apply([1.0, 0.0, 0.0])
        optical_axis = path.world_from_cam(message["timestamp_ns"] * 1e-9)[:3, 2]
        assert np.allclose(forward, optical_axis, atol=1e-9)


def test_the_battery_loses_the_charge_that_its_current_takes(config, scene):
    first, second = messages_of(config, scene, "battery")
    taken_as = 0.01 * (first["percent"] - second["percent"]) * 5.0 * 3600
    assert taken_as == pytest.approx(18.0)
    assert second["voltage_v"] < first["voltage_v"]


def test_pings_are_answered_by_the_drones_clock_and_requests_are_kept():
    answers: list[dict] = []

    async def talk(socket) -> None:
        await socket.send(json.dumps({"type": "ping", "id": 7, "host_ns": 1}))
        await socket.send(json.dumps({"type": "request_key_frame", "reason": "no_key_frame"}))
        await socket.send(json.dumps({"type": "set_bitrate", "kbps": 700, "reason": "loss"}))
        await socket.recv()  # the sender's own first message
        answers.append(json.loads(await socket.recv()))

    async def pictures(stats: SendStats):
        async with asyncio.timeout(10.0):
            while not (answers and stats.asked_kbps):
                await asyncio.sleep(0.01)
        return
        yield

    async def run() -> Sender:
        async with serve(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            clock = SenderClock(offset_s=-1000.0)
            url = f"ws://127.0.0.1:{port}"
            sender = Sender(url, {"type": "video_config"}, Faults(), Backoff(), clock)
            assert await sender._video.open(sender._hello)
            await sender.send_pictures(pictures(sender.stats))
            await sender.close()
            return sender

    stats = asyncio.run(run()).stats
    assert answers[0]["id"] == 7
    assert answers[0]["received_ns"] <= answers[0]["sent_ns"]
    assert answers[0]["sent_ns"] * 1e-9 == pytest.approx(time.time() - 1000.0, abs=5.0)
    assert (stats.pings_answered, stats.asked_kbps) == (1, [700])
    assert stats.key_frames_asked == ["no_key_frame"]


def test_the_horizontal_error_of_a_fix_is_that_of_both_axes_together(config, scene):
    found = messages_of(replace(config, gps_noise_m=2.0), scene, "gps")
    assert found
    for message in found:
        assert message["horizontal_accuracy"] == pytest.approx(2.0 * 2.0**0.5)
        assert message["vertical_accuracy"] == 2.0
