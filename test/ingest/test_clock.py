# SPDX-License-Identifier: Apache-2.0
"""The clock estimate against a simulated sender whose true times are known."""

from __future__ import annotations

import numpy as np

from worldsystem_ingest.clock import ClockEstimator

T0_NS = 1_780_000_000 * 10**9
MS = 1_000_000


def simulated(seconds: float, drift: float = 0.0, offset_s: float = 0.0, seed: int = 1):
    """True capture, sender's and arrival times of a 30 fps stream over a jittery link [ns]."""
    rng = np.random.default_rng(seed)
    true_ns = T0_NS + (np.arange(int(seconds * 30)) * (10**9 // 30))
    delay_ns = (5 + rng.exponential(20, len(true_ns))) * MS
    sender_ns = true_ns + offset_s * 1e9 + drift * (true_ns - T0_NS)
    return true_ns, sender_ns.astype(np.int64), true_ns + delay_ns.astype(np.int64)


def errors_ms(clock: ClockEstimator, true_ns, sender_ns, arrival_ns) -> np.ndarray:
    pairs = zip(sender_ns, arrival_ns, strict=True)
    stamps = [clock.host_ns(int(sender), int(arrival)) for sender, arrival in pairs]
    return (np.array(stamps) - true_ns) / MS


def test_stamps_are_off_by_the_least_delay_however_wrong_the_senders_clock_is():
    for offset_s in (-3600.0, 0.0, 7200.0):
        errors = errors_ms(ClockEstimator(30.0), *simulated(60, offset_s=offset_s))
        settled = errors[30 * 15 :]
        assert np.all(np.abs(settled - 5.0) < 3.0)  # 5 ms is the path itself, unknowable
        assert settled.std() < 1.0


def test_a_drifting_clock_is_followed():
    errors = errors_ms(ClockEstimator(30.0), *simulated(120, drift=80e-6))
    assert np.all(np.abs(errors[30 * 40 :] - 5.0) < 4.0)


def test_the_first_stamp_is_its_arrival_and_none_is_later_than_its_arrival():
    clock = ClockEstimator(30.0)
    _, sender, arrival = simulated(20)
    stamps = [clock.host_ns(int(s), int(a)) for s, a in zip(sender, arrival, strict=True)]
    assert stamps[0] == arrival[0]
    assert all(stamp <= a + 1 for stamp, a in zip(stamps, arrival, strict=True))
    assert np.all(np.diff(stamps) > 0)


def test_implausible_times_are_counted_and_replaced_by_the_arrival():
    clock = ClockEstimator(30.0)
    for sender_ns in (0, 10**18, 2**64 - 1, T0_NS + 2 * 86_400 * 10**9):
        assert clock.host_ns(sender_ns, T0_NS) == T0_NS
        assert clock.mapped_ns(sender_ns, T0_NS) == T0_NS
    assert clock.implausible == 8


def test_without_an_epoch_any_clock_will_do():
    clock = ClockEstimator(30.0, epoch=False)
    for n in range(100):
        stamp_ns = clock.host_ns(n * 40 * MS, T0_NS + n * 40 * MS + 3 * MS)
    assert stamp_ns == T0_NS + 99 * 40 * MS + 3 * MS
    assert clock.implausible == 0


def test_a_clock_that_is_set_back_is_noticed():
    clock = ClockEstimator(30.0)
    true, sender, arrival = simulated(60)
    sender = sender.copy()
    sender[30 * 20 :] -= 10 * 10**9
    errors = errors_ms(clock, true, sender, arrival)
    assert clock.steps == 1
    assert np.all(np.abs(errors[30 * 30 :] - 5.0) < 6.0)


def test_a_jam_on_the_link_does_not_move_the_clock():
    true, sender, arrival = simulated(30)
    jammed = arrival.copy()
    jammed[400:460] = np.maximum(jammed[400:460], jammed[459] + 1)
    errors = errors_ms(ClockEstimator(30.0), true, sender, jammed)
    assert np.all(np.abs(errors[400:] - 5.0) < 4.0)
