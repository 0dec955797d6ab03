# SPDX-License-Identifier: Apache-2.0
"""How far stamps are from the capture time, over links of 40 ± 15 ms and a clock that drifts.

The sender's clock is 3 s ahead and gains 50 ppm; pictures come at 30 Hz, in order, over four kinds
of jitter. Counted is what lies between 10 s and 60 s. Without pings the path's least delay cannot
be known by anybody, so there the truth is the capture time plus the least delay that any packet of
the run had; with answered pings it is the capture time itself. The naive stamp is the arrival, less
its mean error: the best that any constant could do for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from harness import QUICK, Benchmark
from jaxtyping import Float64, Int64

from worldsystem_ingest.sender.clock import ClockEstimator
from worldsystem_ingest.sender.round_trips import RoundTrip

RUNS = 3 if QUICK else 10
SECONDS, SETTLE_S, RATE_HZ, DRIFT, OFFSET_NS = 60, 10, 30, 50e-6, 3 * 10**9
START_NS = 1_780_000_000 * 10**9
Delays = Float64[np.ndarray, "n"]


def normal_ms(count: int, rng: np.random.Generator) -> Delays:
    """A normal distribution without what is under 5 or over 75 ms."""
    drawn = rng.normal(40.0, 15.0, 4 * count + 100)
    return np.asarray(drawn[(drawn > 5.0) & (drawn < 75.0)][:count])


def uniform_ms(count: int, rng: np.random.Generator) -> Delays:
    """A uniform distribution."""
    return rng.uniform(40.0 - 15.0 * 3**0.5, 40.0 + 15.0 * 3**0.5, count)


def exponential_ms(count: int, rng: np.random.Generator) -> Delays:
    """A path of 25 ms and a queue that is mostly short."""
    return 25.0 + rng.gamma(1.0, 15.0, count)


def bursty_ms(count: int, rng: np.random.Generator) -> Delays:
    """A path of 30 ms and little more, but 30 to 70 ms longer for a second or so, now and then."""
    draws, jammed, in_jam = rng.random(count), np.zeros(count, dtype=bool), False
    for at in range(count):
        in_jam = bool(draws[at] < (0.97 if in_jam else 0.0033))
        jammed[at] = in_jam
    return np.asarray(30.0 + rng.gamma(2.0, 2.5, count) + jammed * rng.uniform(30.0, 70.0, count))


JITTERS: dict[str, Callable[[int, np.random.Generator], Delays]] = {
    "normal": normal_ms,
    "uniform": uniform_ms,
    "exponential": exponential_ms,
    "bursty": bursty_ms,
}


@dataclass(frozen=True, eq=False)
class Stream:
    """True capture, sender's and arrival times of the pictures [ns]."""

    true_ns: Int64[np.ndarray, "n"]
    sender_ns: Int64[np.ndarray, "n"]
    arrival_ns: Int64[np.ndarray, "n"]

    @property
    def delays_ms(self) -> Delays:
        """How long each picture was under way."""
        return np.asarray((self.arrival_ns - self.true_ns) * 1e-6)


def stream_over(jitter: str, rng: np.random.Generator) -> Stream:
    """One run's pictures."""
    true_ns = START_NS + np.arange(SECONDS * RATE_HZ) * (10**9 // RATE_HZ)
    delay_ns = (JITTERS[jitter](len(true_ns), rng) * 1e6).astype(np.int64)
    return Stream(true_ns, shown_ns(true_ns), np.maximum.accumulate(true_ns + delay_ns))


def shown_ns(true_ns: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """What the sender's clock shows."""
    gained_ns = (DRIFT * (true_ns - START_NS)).astype(np.int64)
    return np.asarray(true_ns + OFFSET_NS + gained_ns)


def errors_ms(stream: Stream, pings: Callable[[ClockEstimator, int], None]) -> tuple[Delays, float]:
    """Stamp less capture time of each picture, and the share of seconds within the error bound."""
    clock, errors, held = ClockEstimator(30.0), [], []
    times = zip(stream.true_ns, stream.sender_ns, stream.arrival_ns, strict=True)
    for number, (true, sender, arrival) in enumerate(times):
        if number and number % RATE_HZ == 0:
            pings(clock, int(true))
        errors.append((clock.host_ns(int(sender), int(arrival)) - int(true)) * 1e-6)
        bound_ns = clock.state.error_bound_ns
        if number >= SETTLE_S * RATE_HZ and number % RATE_HZ == 0 and bound_ns is not None:
            held.append(abs(errors[-1]) * 1e6 <= bound_ns)
    return np.array(errors), float(np.mean(held))


def pings_over(jitter: str, rng: np.random.Generator) -> Callable[[ClockEstimator, int], None]:
    """Pings whose ways there and back are each like those of the pictures."""

    def ping(clock: ClockEstimator, now_ns: int) -> None:
        there_ns, back_ns = (JITTERS[jitter](2, rng) * 1e6).astype(np.int64)
        received = now_ns + int(there_ns)
        sender_ns = int(shown_ns(np.array([received]))[0])
        clock.answered(RoundTrip(now_ns, sender_ns, sender_ns, received + int(back_ns)))

    return ping


def queue_error_ms(rng: np.random.Generator) -> float:
    """The largest error in a minute in whose first half every packet waits 300 ms."""
    first = stream_over("exponential", rng)
    minute_ns = SECONDS * 10**9
    second = stream_over("exponential", rng)
    arrival_ns = second.arrival_ns + minute_ns
    arrival_ns[: len(arrival_ns) // 2] += 300_000_000
    true_ns = np.concatenate([first.true_ns, second.true_ns + minute_ns])
    arrivals = np.maximum.accumulate(np.concatenate([first.arrival_ns, arrival_ns]))
    both = Stream(true_ns, shown_ns(true_ns), arrivals)
    errors, _ = errors_ms(both, lambda clock, now_ns: None)
    least_ms = float(both.delays_ms.min())
    return float(np.abs(errors[len(first.true_ns) :] - least_ms).max())


def rms(values: Delays) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(values**2)))


def measure(bench: Benchmark) -> None:
    """Every jitter, with and without pings; the worst kind of jitter is reported."""
    settled = slice(SETTLE_S * RATE_HZ, None)
    alone: dict[str, list[float]] = {}
    asked: dict[str, list[float]] = {}
    naive: dict[str, list[float]] = {}
    held = []
    for jitter in JITTERS:
        for run in range(RUNS):
            stream = stream_over(jitter, np.random.default_rng([1, run]))
            least_ms = float(stream.delays_ms.min())
            without, _ = errors_ms(stream, lambda clock, now_ns: None)
            alone.setdefault(jitter, []).append(rms(without[settled] - least_ms))
            ping = pings_over(jitter, np.random.default_rng([2, run]))
            with_pings, share = errors_ms(stream, ping)
            asked.setdefault(jitter, []).append(rms(with_pings[settled]))
            naive.setdefault(jitter, []).append(float(stream.delays_ms[settled].std()))
            held.append(share)
    report(bench, alone, asked, naive)
    note = "largest error while a queue of 300 ms stands for 30 s, against capture + least delay"
    worst = [queue_error_ms(np.random.default_rng([3, run])) for run in range(RUNS)]
    bench.add("clock_queue_error_ms", worst, "ms", note=note)
    bench.add(
        "clock_bound_held",
        float(np.mean(held)),
        "share",
        note="seconds in which the error was within the published bound, with pings",
    )


def report(bench: Benchmark, *by_jitter: dict[str, list[float]]) -> None:
    """The worst jitter of each way to stamp."""
    ways = (
        ("clock_rms_ms", "against capture + the least delay of the run, after 10 s, no pings"),
        ("clock_rms_pings_ms", "against the capture time itself, after 10 s, a ping a second"),
        ("clock_rms_naive_ms", "the arrival as the stamp, as gscam does, its mean error taken out"),
    )
    for (name, note), runs in zip(ways, by_jitter, strict=True):
        worst = max(runs, key=lambda jitter: float(np.median(runs[jitter])))
        others = ", ".join(f"{k} {np.median(v):.2f}" for k, v in runs.items())
        text = f"40 ± 15 ms, 50 ppm; {note}; worst jitter: {worst} ({others})"
        bench.add(name, runs[worst], "ms", note=text)


if __name__ == "__main__":
    measure(Benchmark("ingest"))
