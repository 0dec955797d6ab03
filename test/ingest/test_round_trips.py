# SPDX-License-Identifier: Apache-2.0
"""What answered pings tell, against the plain way of asking all of the last minute each time."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem_ingest.sender.round_trips import RoundTrip, RoundTrips

T0_NS = 1_780_000_000 * 10**9
S, MS = 10**9, 10**6
WORST_DRIFT = 200e-6


def some_trips(seed: int, count: int) -> list[RoundTrip]:
    """Pings a second apart on ways of 1 to 60 ms; now and then one is answered out of its turn."""
    rng = np.random.default_rng(seed)
    trips = []
    for second in range(count):
        sent_ns = T0_NS + (second - int(rng.integers(0, 3))) * S
        there, held, back = (int(ns) for ns in rng.integers(1 * MS, 60 * MS, 3))
        received_ns = sent_ns + there - 5 * S
        answered_ns = received_ns + held
        trips.append(RoundTrip(sent_ns, received_ns, answered_ns, answered_ns + 5 * S + back))
    return trips


def least_offset_of_all(trips: list[RoundTrip], sender_ns: int) -> int:
    """The tightest bound of the last sixty, each loosened by the worst drift since."""
    return max(
        trip.sent_ns - trip.received_ns - round(WORST_DRIFT * abs(sender_ns - trip.received_ns))
        for trip in trips[-60:]
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_least_offset_is_that_of_the_tightest_ping_at_any_time(seed):
    known, trips = RoundTrips(), some_trips(seed, 90)
    for number, trip in enumerate(trips, 1):
        known.add(trip, 20 * MS)
        newest_ns = max(trip.received_ns for trip in trips[:number])
        for since_s in (-80.0, -3.0, -0.5, 0.0, 0.001, 1.0, 30.0, 600.0):
            sender_ns = newest_ns + round(since_s * S)
            wanted = least_offset_of_all(trips[:number], sender_ns)
            assert abs(known.least_offset_ns(sender_ns) - wanted) <= 1  # both are rounded


@pytest.mark.parametrize("seed", range(5))
def test_the_path_is_the_mean_of_the_shorter_half_of_the_pings(seed):
    known, trips = RoundTrips(), some_trips(seed, 90)
    for number, trip in enumerate(trips, 1):
        known.add(trip, -5 * S + 70 * MS)
        last = trips[:number][-60:]
        shorter = sorted(last, key=lambda trip: trip.length_ns)[: (len(last) + 1) // 2]
        middles = [(trip.least_offset_ns + trip.most_offset_ns) / 2 for trip in shorter]
        wanted = max(0.0, -5 * S + 70 * MS - float(np.mean(middles)))
        assert known.path_ns == pytest.approx(wanted, abs=1000)


def test_without_pings_nothing_is_known_and_a_clock_that_was_set_forgets_offsets_alone():
    known = RoundTrips()
    assert known.path_ns is None
    assert known.shortest_ns is None
    assert known.least_offset_ns(T0_NS) is None
    (trip,) = some_trips(0, 1)
    known.add(trip, 20 * MS)
    path_ns = known.path_ns
    known.forget_offsets()
    assert known.least_offset_ns(trip.received_ns + S) is None
    assert known.path_ns == path_ns
    assert known.shortest_ns == trip.length_ns
    known.add(trip, 20 * MS)
    assert known.least_offset_ns(trip.received_ns) == trip.least_offset_ns
