# SPDX-License-Identifier: Apache-2.0
"""What one inertial sample of a phone costs, from its JSON text to its message's bytes.

Ours checks every field, knows its many names and units, and stamps by a clock estimated from a
minute of pictures and pings. The plain way is the loop that a script would have: `json.loads`, a
`sensor_msgs/Imu` object stamped with the arrival, `serialize_message`. Apart from that, the bytes
of one message by our adapter against rclpy's of the same object. Pairs are interleaved, the order
changing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from harness import QUICK, Benchmark
from ingest_sinks import Nowhere
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Imu

from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.messages import time_message
from worldsystem_core.telemetry import ImuSample, Telemetry
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sender.round_trips import RoundTrip
from worldsystem_ingest.sender.session import SenderSession

SAMPLES = 500 if QUICK else 3000
PAIRS = 3 if QUICK else 9
SECONDS, PICTURES_HZ, SENSORS_HZ = 60, 30, 200
ACCELERATION, RATES = (0.1, -0.2, 9.8), (0.01, 0.02, -0.03)
_PATH_NS = 8_000_000


class Publishing(Nowhere):
    """Makes the bytes of each inertial measurement's message."""

    def measured(self, sample: Telemetry, stream: str) -> None:
        """What the node does before it publishes."""
        assert isinstance(sample, ImuSample)
        topics.IMU.adapter.dump(sample)


def sender() -> SenderSession:
    """A session that has had a minute of pictures and one answered ping a second."""
    session = SenderSession(
        Publishing(), lambda unit, after_loss: None, "", IngestConfig(), lambda said: None
    )
    begin_ns = time.time_ns() - SECONDS * 10**9
    for picture in range(SECONDS * PICTURES_HZ):
        captured_ns = begin_ns + picture * 10**9 // PICTURES_HZ
        session.clock.host_ns(captured_ns, captured_ns + _PATH_NS)
        if picture % PICTURES_HZ == 0:
            there_ns = captured_ns + _PATH_NS
            session.clock.answered(
                RoundTrip(captured_ns, there_ns, there_ns, captured_ns + 2 * _PATH_NS)
            )
    return session


def texts(count: int) -> list[str]:
    """Messages of the app, one sample each, up to now."""
    now_ns, step_ns = time.time_ns(), 10**9 // SENSORS_HZ
    of_all = {"type": "imu", "acceleration": ACCELERATION, "angular_velocity": RATES}
    return [
        json.dumps(of_all | {"timestamp_ns": now_ns - (count - number) * step_ns})
        for number in range(count)
    ]


def message_by_rclpy(stamp_ns: int, acceleration: list[float], rates: list[float]) -> bytes:
    """One `Imu` object, filled and serialised."""
    message = Imu()
    message.header.stamp = time_message(stamp_ns)
    message.header.frame_id = "base_link"
    message.orientation_covariance[0] = -1.0
    linear, angular = message.linear_acceleration, message.angular_velocity
    linear.x, linear.y, linear.z = acceleration
    angular.x, angular.y, angular.z = rates
    return bytes(serialize_message(message))


def plainly(text: str) -> bytes:
    """What a script does with one text."""
    read = json.loads(text)
    return message_by_rclpy(time.time_ns(), read["acceleration"], read["angular_velocity"])


def each_us(function: Callable[[str], object], of: list[str]) -> float:
    """Processor time of one call [us]."""
    begun = time.thread_time()
    for text in of:
        function(text)
    return 1e6 * (time.thread_time() - begun) / len(of)


def measure(bench: Benchmark) -> None:
    """Text to message, and the message alone."""
    session = sender()
    sample = ImuSample(stamp_ns=time.time_ns(), acceleration=ACCELERATION, angular_velocity=RATES)
    ways: dict[str, Callable[[str], object]] = {
        "ours": session.take_telemetry,
        "plain": plainly,
        "packed": lambda _: topics.IMU.adapter.dump(sample),
        "rclpy": lambda _: message_by_rclpy(sample.stamp_ns, [*ACCELERATION], [*RATES]),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for pair in range(PAIRS + 1):
        of = texts(SAMPLES)
        for name in list(ways) if pair % 2 else list(reversed(ways)):
            times[name].append(each_us(ways[name], of))
    for measured in times.values():
        del measured[0]  # the first warms up
    report(bench, times)


def report(bench: Benchmark, times: dict[str, list[float]]) -> None:
    """Each pair's ratio, not that of the medians: the machine's speed changes between pairs."""

    def ratios(slow: str, fast: str) -> list[float]:
        return [a / b for a, b in zip(times[slow], times[fast], strict=True)]

    note = "JSON text, checked, stamped by the clock with a minute of pings, to CDR"
    bench.add("sensor_sample_us", times["ours"], "µs", note=note)
    note = "json.loads, an Imu stamped on arrival, serialize_message / ours"
    bench.add("sensor_sample_vs_plain", ratios("plain", "ours"), "x", note=note)
    bench.add("sensor_message_us", times["packed"], "µs", note="the message's bytes alone")
    note = "the same message by rclpy / ours"
    bench.add("sensor_message_vs_rclpy", ratios("rclpy", "packed"), "x", note=note)


if __name__ == "__main__":
    measure(Benchmark("ingest"))
