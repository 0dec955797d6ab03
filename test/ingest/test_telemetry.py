# SPDX-License-Identifier: Apache-2.0
"""What phones and drones tell: every spelling, unit and frame, and what is refused."""

from __future__ import annotations

import contextlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from ingest_lab import MemorySink
from scipy.spatial.transform import Rotation

from worldsystem_core.errors import ProtocolError
from worldsystem_core.telemetry import (
    AttitudeSample,
    BatterySample,
    GpsFix,
    ImuSample,
    PressureSample,
    Telemetry,
)
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sender.session import SenderSession
from worldsystem_ingest.sender.telemetry import TelemetryReader, message_from

PAGE = Path(__file__).parents[2] / "docs" / "telemetry.md"
T = 1_780_000_000 * 10**9
IMU = {"acceleration": [0, 0, 9.81], "angular_velocity": [0.1, 0, 0]}


def read(**message: object) -> list[Telemetry]:
    return TelemetryReader().samples(message_from(json.dumps(message)))


def one(**message: object) -> Telemetry:
    (sample,) = read(**message)
    return sample


def examples() -> list[str]:
    return re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)


def session(sink: MemorySink, said: list | None = None, **settings: object) -> SenderSession:
    say = [].append if said is None else said.append
    return SenderSession(sink, lambda unit, lost: None, "camera", IngestConfig(**settings), say)


@pytest.mark.parametrize("text", examples())
def test_every_example_of_the_page_is_understood(text):
    kind = json.loads(text)["type"]
    sink, said = MemorySink(), []
    sender = session(sink, said)
    sender.connected()
    if kind in ("video_config", "ping", "pong", "request_key_frame", "set_bitrate"):
        sender.take_control(text)
        assert len(sink.cameras) == (kind == "video_config")
    else:
        sender.take_telemetry(text)
        assert bool(sink.telemetry) == (kind != "status")


def test_the_page_has_an_example_of_each_type():
    kinds = {json.loads(text)["type"] for text in examples()}
    assert kinds >= {"imu", "gps", "barometer", "attitude", "battery", "telemetry", "status"}
    assert kinds >= {"video_config", "ping", "pong", "request_key_frame", "set_bitrate"}


def test_an_imu_may_speak_as_phones_do():
    plain = one(type="imu", timestamp_ns=T, **IMU)
    assert plain == ImuSample(
        stamp_ns=T, acceleration=(0.0, 0.0, 9.81), angular_velocity=(0.1, 0.0, 0.0)
    )
    camel = {"accelerometer": {"x": 0, "y": 0, "z": 9.81}, "rotationRate": [0.1, 0, 0]}
    assert one(type="imu", timestampNs=T, data=camel) == plain
    in_g = one(type="imu", timestamp_ns=T, acceleration_g=[0, 0, 1], gyro_dps=[180, 0, 0])
    assert in_g.acceleration[2] == pytest.approx(9.80665)
    assert in_g.angular_velocity[0] == pytest.approx(math.pi)


def test_an_attitude_inside_an_imu_message_is_a_sample_of_its_own():
    for extra in ({"quaternion": [0, 0, 0, 1]}, {"attitude": {"quaternion": [0, 0, 0, 1]}}):
        imu, attitude = read(type="imu", timestamp_ns=T, **IMU, **extra)
        assert isinstance(imu, ImuSample)
        assert attitude == AttitudeSample(stamp_ns=T, map_from_body=(0.0, 0.0, 0.0, 1.0))


def test_a_fix_carries_its_errors_and_unknown_ones_are_nan():
    fix = one(type="gps", lat=47, lng=8, accuracy=3.5, verticalAccuracy=-1)
    assert isinstance(fix, GpsFix)
    assert (fix.latitude_deg, fix.longitude_deg, fix.horizontal_error_m) == (47.0, 8.0, 3.5)
    assert math.isnan(fix.vertical_error_m)
    assert math.isnan(fix.altitude_m)


@pytest.mark.parametrize(
    "fields",
    [
        {"pressure_hpa": 955.0},
        {"pressure_pa": 95_500},
        {"pressureKpa": 95.5},
        {"pressure": 955.0},
        {"pressure": 95_500},
        {"pressure": 95.5},
        {"pressure": 955, "unit": "hPa"},
    ],
)
def test_air_pressure_in_any_unit_is_the_same(fields):
    sample = one(type="barometer", **fields)
    assert isinstance(sample, PressureSample)
    assert sample.pressure_pa == pytest.approx(95_500.0)


def test_a_guessed_unit_is_counted_and_a_named_one_is_not(caplog):
    reader = TelemetryReader()
    for message in ({"pressure": 955}, {"pressure": 956}, {"pressure_hpa": 955}):
        reader.samples({"type": "barometer", **message})
    assert reader.guessed_units == 2
    assert caplog.text.count("without a unit") == 1


@pytest.mark.parametrize("seed", range(5))
def test_roll_pitch_and_yaw_turn_about_the_fixed_axes(seed):
    roll, pitch, yaw = np.random.default_rng(seed).uniform(-80, 80, 3)
    degrees = one(type="attitude", roll_deg=roll, pitch_deg=pitch, yaw_deg=yaw)
    expected = Rotation.from_euler("xyz", [roll, pitch, yaw], degrees=True)
    assert isinstance(degrees, AttitudeSample)
    between = Rotation.from_quat(degrees.map_from_body).inv() * expected
    assert between.magnitude() == pytest.approx(0.0, abs=1e-9)
    turned = {
        f"{n}_rad": math.radians(v) for n, v in zip(["roll", "pitch"], (roll, pitch), strict=True)
    }
    compass = one(type="attitude", heading_rad=math.radians(90 - yaw), **turned)
    assert np.allclose(compass.map_from_body, degrees.map_from_body, atol=1e-12)


def test_a_phone_that_looks_north_looks_along_y():
    sample = one(type="attitude", roll_deg=0, pitch_deg=0, heading_deg=0)
    forward = Rotation.from_quat(sample.map_from_body).apply([1, 0, 0])
    assert np.allclose(forward, [0, 1, 0])
    reordered = one(
        type="attitude", quaternion_wxyz=[sample.map_from_body[3], *sample.map_from_body[:3]]
    )
    assert np.allclose(reordered.map_from_body, sample.map_from_body)


def test_a_battery_in_percent_or_as_a_share():
    full = one(type="battery", percent=76.5, voltage_mv=15_700, currentMa=-18_000, charging=False)
    assert full == BatterySample(
        stamp_ns=0,
        charge=pytest.approx(0.765),
        voltage_v=pytest.approx(15.7),
        current_a=pytest.approx(-18.0),
        temperature_c=pytest.approx(math.nan, nan_ok=True),
        charging=False,
    )
    assert one(type="battery", charge=0.765).charge == full.charge
    assert one(type="battery", level=0.5).charging is None


@pytest.mark.parametrize(
    ("fields", "expected_ns"),
    [
        ({"timestamp_ns": T + 5}, T + 5),
        ({"timestamp_ns": str(T + 5)}, T + 5),
        ({"timestamp_us": T // 1000}, T),
        ({"timestamp_us": str(T // 1000)}, T),
        ({"timestamp_ms": str(T // 10**6)}, T),
        ({"timestamp": str(T)}, T),
        ({"time": str(T // 10**6)}, T),
        ({"ts": "9" * 30}, 0),
        ({"timestampMs": T / 1e6}, T),
        ({"timestamp": T / 1e9}, T),
        ({"timestamp": T // 10**6}, T),
        ({"timestamp": T}, T),
        ({"timestamp": "2026-05-28T20:26:40+00:00"}, T),
        ({"timestamp_ns": 12_345}, 12_345),
        ({"timestamp": 12.5}, 0),
        ({"timestamp": "yesterday"}, 0),
        ({"timestamp_ns": -1}, 0),
        ({"timestamp_ns": 2**70}, 0),
        ({"timestamp_s": 1e300}, 0),
        ({"timestamp_ns": [1]}, 0),
        ({}, 0),
    ],
)
def test_times_in_any_unit_are_nanoseconds_and_nonsense_is_none(fields, expected_ns):
    assert one(type="imu", **IMU, **fields).stamp_ns == pytest.approx(expected_ns, abs=300)


def test_batches_keep_the_time_and_the_type_of_each_sample():
    batch = [{"timestamp_ns": T + n, **IMU} for n in range(3)]
    for name in ("samples", "readings", "batch", "data"):
        assert [s.stamp_ns for s in read(type="imu", **{name: batch})] == [T, T + 1, T + 2]
    mixed = [{"type": "imu", **IMU}, {"type": "baro", "pressure_hpa": 950}]
    found = read(type="telemetry", timestamp_ns=T, samples=mixed)
    assert [type(sample) for sample in found] == [ImuSample, PressureSample]
    assert {sample.stamp_ns for sample in found} == {T}


@pytest.mark.parametrize(
    "message",
    [
        {"type": "imu"},
        {"type": "imu", **IMU, "acceleration": [1, 2]},
        {"type": "imu", **IMU, "acceleration": [1, 2, 1e9]},
        {"type": "imu", **IMU, "acceleration": [1, 2, True]},
        {"type": "imu", **IMU, "acceleration": [1, 2, math.nan]},
        {"type": "imu", **IMU, "acceleration": [1, 2, math.inf]},
        {"type": "imu", **IMU, "acceleration": "abc"},
        {"type": "imu", **IMU, "acceleration": 10**400},
        {"type": "imu", "samples": [{**IMU}, {"acceleration": 3}]},
        {"type": "imu", "samples": [IMU] * 1001},
        {"type": "imu", "samples": [1, 2]},
        {"type": "imu", "data": 5},
        {"type": "gps", "latitude": 95, "longitude": 0},
        {"type": "gps", "latitude": 5},
        {"type": "barometer", "pressure": 3},
        {"type": "barometer", "pressure_hpa": -4},
        {"type": "attitude", "quaternion": [0, 0, 0, 0]},
        {"type": "attitude", "quaternion": [0, 0, 1]},
        {"type": "attitude", "roll": 1, "pitch": 2, "yaw": 3},
        {"type": "battery", "percent": 101},
        {"type": "battery", "charge": 50},
        {"type": "battery", "charge": 0.5, "charging": "yes"},
        {"type": "battery"},
        {"type": "telepathy"},
        {"type": "imu", **{f"field_{n}": n for n in range(100)}},
    ],
)
def test_what_cannot_be_a_measurement_is_refused_with_words(message):
    with pytest.raises(ProtocolError) as error:
        TelemetryReader().samples(message)
    assert len(str(error.value)) < 300


def test_an_unknown_type_is_answered_with_the_known_ones():
    with pytest.raises(ProtocolError, match="imu, gps, barometer, attitude, battery"):
        TelemetryReader().samples({"type": "telepathy"})


def test_a_refused_batch_delivers_nothing():
    sink = MemorySink()
    with pytest.raises(ProtocolError):
        session(sink).take_telemetry(json.dumps({"type": "imu", "samples": [IMU, {"x": 1}]}))
    assert not sink.telemetry


@pytest.mark.parametrize("seed", range(3))
def test_no_mutated_message_raises_anything_else(seed):
    rng = np.random.default_rng(seed)
    sender, texts = session(MemorySink()), examples()
    for _ in range(2000):
        content = bytearray(texts[int(rng.integers(len(texts)))].encode())
        for _ in range(int(rng.integers(1, 6))):
            content[int(rng.integers(len(content)))] = int(rng.integers(32, 127))
        for take in (sender.take_telemetry, sender.take_control):
            with contextlib.suppress(ProtocolError):
                take(content.decode())


def stamps_of(monkeypatch, sender_ns: list[int], arrival_ns: list[int], per_message: int = 1):
    """The stamps of IMU samples that came as told."""
    sink = MemorySink()
    sender = session(sink)
    for at in range(0, len(sender_ns), per_message):
        part = [{"timestamp_ns": stamp, **IMU} for stamp in sender_ns[at : at + per_message]]
        monkeypatch.setattr("time.time_ns", lambda now=arrival_ns[at + per_message - 1]: now)
        sender.take_telemetry(json.dumps({"type": "imu", "samples": part}))
    return np.array([sample.stamp_ns for sample in sink.samples])


@pytest.mark.parametrize("begin_ns", [T, T - 9 * 10**9, 55 * 10**9])
def test_batches_of_a_phone_are_stamped_when_they_were_measured(monkeypatch, begin_ns):
    rng = np.random.default_rng(1)
    true_ns = T + np.arange(2000) * 5_000_000
    batch_end = np.repeat(true_ns[9::10], 10)
    arrival_ns = batch_end + np.repeat(rng.integers(5_000_000, 40_000_000, 200), 10)
    sender_ns = true_ns - T + begin_ns
    stamps = stamps_of(monkeypatch, sender_ns.tolist(), arrival_ns.tolist(), per_message=10)
    errors_ms = (stamps - true_ns)[1000:] / 1e6
    assert np.all(errors_ms > -1.0)
    assert np.all(errors_ms < 10.0)
    assert errors_ms.std() < 1.0


def test_times_that_jump_fall_back_to_the_arrival(monkeypatch):
    arrival_ns = T + np.arange(400) * 20_000_000
    sender_ns = arrival_ns.tolist()
    sender_ns[200], sender_ns[250], sender_ns[300] = 0, 2**63, T - 10**17
    stamps = stamps_of(monkeypatch, sender_ns, arrival_ns.tolist())
    assert np.all(stamps <= arrival_ns)
    assert np.all(arrival_ns - stamps < 10**9)


def test_a_phone_whose_clock_is_not_that_of_the_video_is_stamped_by_its_own(monkeypatch):
    sink = MemorySink()
    sender = session(sink)
    for n in range(200):
        now_ns = T + n * 20_000_000
        sender.clock.host_ns(now_ns, now_ns + 30_000_000)
        monkeypatch.setattr("time.time_ns", lambda now=now_ns + 10_000_000: now)
        sender.take_telemetry(
            json.dumps({"type": "imu", "timestamp_ns": now_ns - 8 * 10**9, **IMU})
        )
    errors_ms = (
        np.array([s.stamp_ns - T - n * 20_000_000 for n, s in enumerate(sink.samples)]) / 1e6
    )
    assert np.all(np.abs(errors_ms - 10.0) < 1.0)


def test_a_phone_with_the_clock_of_the_video_shares_its_estimate(monkeypatch):
    sink = MemorySink()
    sender = session(sink)
    for n in range(100):
        now_ns = T + n * 20_000_000
        sender.clock.host_ns(now_ns, now_ns + 5_000_000)
        monkeypatch.setattr("time.time_ns", lambda now=now_ns + 400_000_000: now)
        sender.take_telemetry(json.dumps({"type": "imu", "timestamp_ns": now_ns, **IMU}))
    stamps_ns = np.array([sample.stamp_ns for sample in sink.samples[10:]])
    assert np.allclose(stamps_ns - T - np.arange(10, 100) * 20_000_000, 5_000_000, atol=1000)


@pytest.mark.parametrize(
    "rest",
    [
        {"data": {"type": "takeoff"}},
        {"data": "armed"},
        {"samples": ["armed", "flying"]},
        {f"field_{number}": number for number in range(70)},
    ],
    ids=["type", "word", "words", "many"],
)
def test_a_status_is_taken_whatever_it_holds(rest):
    sink = MemorySink()
    session(sink).take_telemetry(json.dumps({"type": "status"} | rest))
    assert not sink.telemetry


@pytest.mark.parametrize(
    "own", [{"time": "2026-05-28T20:26:39Z"}, {"timestamp_ms": T // 10**6 - 1000}]
)
def test_a_part_of_a_telemetry_message_keeps_the_time_that_it_has_of_its_own(own):
    parts = {"gps": {"lat": 47, "lon": 8, **own}, "barometer": {"pressure_hpa": 950}}
    fix, pressure = read(type="telemetry", timestamp_ns=T, **parts)
    assert isinstance(fix, GpsFix)
    assert fix.stamp_ns == T - 10**9
    assert pressure.stamp_ns == T


@pytest.mark.parametrize("name", ["timestamp", "time", "timestamp_ns"])
def test_a_part_whose_own_time_is_null_has_that_of_its_message(name):
    (fix,) = read(type="telemetry", timestamp_ns=T, gps={"lat": 47, "lon": 8, name: None})
    assert fix.stamp_ns == T
