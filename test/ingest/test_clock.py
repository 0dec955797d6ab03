# SPDX-License-Identifier: Apache-2.0
"""The clock estimate against a simulated sender whose true times are known."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem_ingest.sender.clock import ClockEstimator
from worldsystem_ingest.sender.round_trips import RoundTrip

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
    assert clock.implausible == 4
    assert clock.mapped_ns(T0_NS) is None


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


def over_a_link(model: str, seed: int, seconds: int = 40, drift: float = 50e-6):
    """As `simulated`, with delays of 40 ± 15 ms in order of sending, and their least [ms]."""
    rng = np.random.default_rng([seed, 11])
    true_ns = T0_NS + np.arange(seconds * 30) * (10**9 // 30)
    draws = {
        "normal": lambda n: np.clip(rng.normal(40, 15, n), 5, 75),
        "gamma": lambda n: 25 + rng.gamma(1.0, 15.0, n),
        "bursts": lambda n: 30 + rng.gamma(2.0, 2.5, n) + 60 * (np.sin(np.arange(n) / 40) > 0.9),
    }
    arrival_ns = np.maximum.accumulate(true_ns + (draws[model](len(true_ns)) * MS).astype(np.int64))
    sender_ns = true_ns + (drift * (true_ns - T0_NS)).astype(np.int64)
    return true_ns, sender_ns, arrival_ns


@pytest.mark.parametrize("model", ["normal", "gamma", "bursts"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_after_ten_seconds_of_jitter_and_drift_the_error_is_under_five_ms(model, seed):
    true_ns, sender_ns, arrival_ns = over_a_link(model, seed)
    errors = errors_ms(ClockEstimator(30.0), true_ns, sender_ns, arrival_ns)[300:]
    least = float(((arrival_ns - true_ns) / MS).min())
    assert np.sqrt(np.mean((errors - least) ** 2)) < 5.0
    assert errors.std() < 2.0


@pytest.mark.parametrize("model", ["normal", "gamma", "bursts"])
def test_no_stamp_is_later_than_its_arrival_and_all_grow_with_the_senders_time(model):
    _, sender_ns, arrival_ns = over_a_link(model, 4)
    clock = ClockEstimator(30.0)
    stamps = np.array(
        [clock.host_ns(int(s), int(a)) for s, a in zip(sender_ns, arrival_ns, strict=True)]
    )
    assert np.all(stamps <= arrival_ns + 1)
    assert np.all(np.diff(stamps) > 0)


@pytest.mark.parametrize("offset_s", [-20_000.0, 0.3, 80_000.0])
def test_the_senders_offset_does_not_change_a_stamp(offset_s):
    _, sender_ns, arrival_ns = over_a_link("normal", 5)
    clock, other = ClockEstimator(30.0), ClockEstimator(30.0)
    shift_ns = round(offset_s * 1e9)
    for sender, arrival in zip(sender_ns.tolist(), arrival_ns.tolist(), strict=True):
        stamp_ns = clock.host_ns(sender, arrival)
        assert abs(other.host_ns(sender + shift_ns, arrival) - stamp_ns) < 2000  # floats of 1e18


def test_drift_is_measured_to_a_few_ppm_within_five_minutes():
    clock = ClockEstimator(30.0)
    errors_ms(clock, *over_a_link("gamma", 6, seconds=300, drift=-70e-6))
    assert clock.state.drift_ppm == pytest.approx(70.0, abs=5.0)


@pytest.mark.parametrize("step_s", [-3600.0, -0.3, 0.2, 5.0, 7200.0])
def test_a_step_of_the_senders_clock_is_over_within_a_second(step_s):
    true_ns, sender_ns, arrival_ns = over_a_link("gamma", 7)
    sender_ns[600:] += round(step_s * 1e9)
    clock = ClockEstimator(30.0)
    errors = errors_ms(clock, true_ns, sender_ns, arrival_ns)
    assert clock.steps == 1
    assert np.all(np.abs(errors[630:] - 25.0) < 12.0)
    assert np.all(np.abs(errors[900:] - 25.0) < 4.0)
    assert np.all(errors <= (arrival_ns - true_ns) / MS + 1e-3)


def test_single_times_that_jump_do_not_move_the_clock():
    true_ns, sender_ns, arrival_ns = over_a_link("gamma", 8)
    wrong = np.arange(400, len(sender_ns), 97)
    sender_ns[wrong] += np.where(wrong % 2, 9, -9) * 10**9
    clock = ClockEstimator(30.0)
    errors = errors_ms(clock, true_ns, sender_ns, arrival_ns)
    right = np.setdiff1d(np.arange(450, len(errors)), wrong)
    assert clock.steps == 0
    assert np.all(np.abs(errors[right] - 25.0) < 5.0)


def test_times_that_go_back_among_reordered_pictures_are_no_step():
    display = np.array([0, 4, 2, 1, 3])  # a picture that three others refer back to comes first
    clock = ClockEstimator(30.0, epoch=False)
    for n in range(600):
        group, place = divmod(n, 5)
        shown = 5 * group + int(display[place])
        clock.host_ns(shown * 66 * MS, T0_NS + (n + 2) * 66 * MS)
    assert clock.steps == 0


@pytest.mark.parametrize("fps", [10, 25, 30])
@pytest.mark.parametrize("b_pictures", [2, 3, 7])
def test_b_pictures_are_stamped_as_far_from_their_capture_as_all_others(fps, b_pictures):
    clock, period_ns, errors = ClockEstimator(30.0), 10**9 // fps, []
    for n in range(1, 400):
        group, place = divmod(n - 1, b_pictures + 1)
        shown = (group + 1) * (b_pictures + 1) if place == 0 else n - 1
        arrival_ns = T0_NS + (n + b_pictures) * period_ns
        stamp_ns = clock.host_ns(T0_NS + shown * period_ns, arrival_ns)
        errors.append(stamp_ns - (T0_NS + shown * period_ns))
    assert clock.steps == 0
    assert max(errors[1:]) - min(errors[1:]) < MS


def test_a_step_back_of_a_few_pictures_is_told_from_b_pictures_by_the_delay_that_stays():
    clock = ClockEstimator(30.0)
    for n in range(200):
        true = T0_NS + n * 100 * MS
        stamp_ns = clock.host_ns(true - (300 * MS if n >= 100 else 0), true + 20 * MS)
        assert n < 120 or abs(stamp_ns - true - 20 * MS) < MS
    assert clock.steps == 1


def test_a_queue_that_stands_for_half_a_minute_does_not_move_the_clock():
    true_ns, sender_ns, arrival_ns = over_a_link("gamma", 9, seconds=150)
    arrival_ns[1800:2700] += 300 * MS
    clock = ClockEstimator(30.0)
    errors = errors_ms(clock, true_ns, sender_ns, np.maximum.accumulate(arrival_ns))
    assert clock.steps == 0
    assert np.all(np.abs(errors[900:] - 25.0) < 4.0)


@pytest.mark.parametrize("first_ns", [0, 86_400 * 10**9, 7 * 365 * 86_400 * 10**9])
def test_the_time_since_boot_or_1970_serves_once_it_has_run_for_two_seconds(first_ns):
    true_ns, sender_ns, arrival_ns = over_a_link("gamma", 10)
    sender_ns = sender_ns - T0_NS + first_ns
    clock = ClockEstimator(30.0)
    errors = errors_ms(clock, true_ns, sender_ns, arrival_ns)
    assert 60 <= clock.implausible <= 66
    assert np.all(np.abs(errors[400:] - 25.0) < 5.0)


def test_a_clock_that_is_set_from_1970_to_today_is_followed():
    true_ns, sender_ns, arrival_ns = over_a_link("gamma", 11)
    sender_ns[:600] -= T0_NS
    clock = ClockEstimator(30.0)
    errors = errors_ms(clock, true_ns, sender_ns, arrival_ns)
    assert clock.steps == 1
    assert np.all(np.abs(errors[900:] - 25.0) < 4.0)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_times_a_sender_tells_stamps_stay_within_law(seed):
    rng = np.random.default_rng(seed)
    clock, arrival_ns = ClockEstimator(30.0), T0_NS
    sender_ns = T0_NS
    for _ in range(3000):
        arrival_ns += int(rng.integers(1, 80 * MS))
        kind = rng.random()
        if kind < 0.02:
            sender_ns = int(rng.integers(0, 2**63)) * 2
        elif kind < 0.04:
            sender_ns = arrival_ns + int(rng.integers(-(10**11), 10**11))
        elif kind < 0.9:
            sender_ns = min(sender_ns + int(rng.integers(0, 80 * MS)), 2**64 - 1)
        assert 0 <= clock.host_ns(sender_ns, arrival_ns) <= arrival_ns + 1000
        bound_ns = clock.state.error_bound_ns
        assert bound_ns is None or bound_ns >= 0


def answered(clock: ClockEstimator, true_ns: int, ways_ms: tuple[float, float], offset_ns: int):
    """A ping sent at `true_ns` that takes `ways_ms` there and back."""
    received_ns = true_ns + round(ways_ms[0] * MS)
    back_ns = received_ns + 2 * MS + round(ways_ms[1] * MS)
    sender_ns = received_ns + offset_ns
    clock.answered(RoundTrip(true_ns, sender_ns, sender_ns + 2 * MS, back_ns))


@pytest.mark.parametrize("offset_s", [-5.0, 0.0, 900.0])
def test_answered_pings_take_the_path_itself_out_of_the_stamps(offset_s):
    true_ns, sender_ns, arrival_ns = over_a_link("gamma", 12, drift=0.0)
    offset_ns, rng = round(offset_s * 1e9), np.random.default_rng(3)
    clock, errors, bounds = ClockEstimator(30.0), [], []
    for n, (true, sender, arrival) in enumerate(
        zip(true_ns.tolist(), sender_ns.tolist(), arrival_ns.tolist(), strict=True)
    ):
        if n % 30 == 1:
            answered(clock, true, tuple(25 + rng.gamma(1.0, 15.0, 2)), offset_ns)
        errors.append((clock.host_ns(sender + offset_ns, arrival) - true) / MS)
        bounds.append((clock.state.error_bound_ns or 10**10) / MS)
    settled = np.array(errors[300:])
    assert np.sqrt(np.mean(settled**2)) < 5.0
    assert np.all(np.abs(settled) <= np.array(bounds[300:]))
    assert np.all(np.array(bounds[300:]) < 45.0)
    assert clock.state.round_trip_ms == pytest.approx(50.0, abs=15.0)


def test_ways_that_differ_shift_the_stamps_by_half_and_the_bound_covers_it():
    clock = ClockEstimator(30.0)
    for n in range(600):
        true = T0_NS + n * 33 * MS
        if n % 30 == 1:
            answered(clock, true, (10.0, 50.0), 0)
        stamp_ns = clock.host_ns(true, true + 50 * MS)
    assert stamp_ns - true == pytest.approx(20 * MS, abs=MS)
    bound_ns = clock.state.error_bound_ns
    assert bound_ns is not None
    assert 20 * MS <= bound_ns < 40 * MS


def test_a_ping_proves_a_small_step_back_that_arrivals_cannot_tell_from_a_queue():
    clock, step_ns = ClockEstimator(30.0), 60 * MS
    for n in range(1200):
        true = T0_NS + n * 33 * MS
        offset_ns = -step_ns if n >= 600 else 0
        if n % 30 == 1:
            answered(clock, true, (20.0, 20.0), offset_ns)
        stamp_ns = clock.host_ns(true + offset_ns, true + 20 * MS)
        if n > 640:
            assert abs(stamp_ns - true) < 3 * MS
    assert clock.steps == 1


def test_pings_answered_by_another_clock_or_nonsense_change_nothing():
    clock = ClockEstimator(30.0)
    for n in range(300):
        true = T0_NS + n * 33 * MS
        if n % 10 == 1:
            answered(clock, true, (5.0, 5.0), -T0_NS)
            clock.answered(RoundTrip(true, true + 10**9, true, true + 5 * MS))
            clock.answered(RoundTrip(true, true + 3, true + 5, true + 60 * 10**9))
        clock.host_ns(true, true + 50 * MS)
    assert clock.steps == 0
    assert clock.state.round_trip_ms is None
    assert clock.mapped_ns(true) == true + 50 * MS


@pytest.mark.parametrize("before", [2, 4, 30])
def test_a_sender_whose_clock_is_behind_is_not_stamped_by_that_of_the_one_before(before):
    """Two senders may take turns so quickly that each is heard for a few pictures."""
    clock, arrival_ns, stamps = ClockEstimator(30.0), T0_NS, []
    for behind_s in (0, 40, 0, 40, 0):
        clock.connected()
        for _ in range(before):
            arrival_ns += 33 * MS
            stamp_ns = clock.host_ns(arrival_ns - 5 * MS - behind_s * 10**9, arrival_ns)
            assert arrival_ns - 10**9 < stamp_ns <= arrival_ns
            stamps.append(stamp_ns)
    assert stamps == sorted(set(stamps))


def test_the_first_picture_of_a_sender_that_is_back_is_stamped_after_those_of_the_other():
    """Though it was late on its way, and captured before the other's last came."""
    clock, arrival_ns, stamps = ClockEstimator(30.0), T0_NS, []
    for behind_s, count, path_ms in ((0, 2, 5), (40, 300, 5), (0, 3, 5), (40, 2, 25)):
        clock.connected()
        for _ in range(count):
            arrival_ns += 10 * MS
            sender_ns = arrival_ns - path_ms * MS - behind_s * 10**9
            stamps.append(clock.host_ns(sender_ns, arrival_ns))
    assert stamps == sorted(set(stamps))
