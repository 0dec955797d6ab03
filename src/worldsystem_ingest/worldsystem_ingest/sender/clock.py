# SPDX-License-Identifier: Apache-2.0
"""From the sender's clock to ours: capture times that hold through jitter, jams, drift, steps."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from worldsystem_ingest.sender.least_delay import LeastDelay
from worldsystem_ingest.sender.round_trips import RoundTrip, RoundTrips

_EARLIEST_NS = 1_577_836_800 * 10**9
_DAY_NS = 86_400 * 10**9
_STEP_NS = 100_000_000
_STEP_SAMPLES = 5
_REORDERED = 16  # the most pictures that a standard lets wait for others, or come before others
_MOST_AHEAD = 5  # pictures that come before one that is shown before them: in pyramids of 32, too
_SAME_DELAY_NS = 50_000_000
_OTHER_CLOCK_NS = 3600 * 10**9
_AGREEMENT_NS = 5_000_000
_STEADY_NS = 2 * 10**9
_UNSTEADY_NS = 500_000_000
_OLDEST_NS = 600 * 10**9
_LONGEST_PAUSE_NS = 5 * 10**9


@dataclass(frozen=True)
class ClockState:
    """What is known of a sender's clock: host time = sender's time + `offset_ns`.

    `drift_ppm` is positive for a sender's clock that is slow. `error_bound_ns` says how far stamps
    may be from the capture time: with answered pings from whatever the two ways may be, hard but
    for drift; without (`round_trip_ms` is None) it is the scatter about capture time plus the
    path's least delay, which then nobody can know. `steps` counts jumps of the clock, or of the
    path's length, that were noticed; `implausible` the times that were not used.
    """

    offset_ns: int | None = None
    drift_ppm: float = 0.0
    error_bound_ns: int | None = None
    steps: int = 0
    round_trip_ms: float | None = None
    implausible: int = 0


class ClockEstimator:
    """Maps sender times [ns] to host times [ns], by the packets that travelled fastest.

    A stamp is the capture time plus the path's least delay, or, once pings are answered, plus half
    of what the two ways differ. Until two samples are known the arrival time is used.

    With `epoch`, sender times before 2020 or more than a day off the arrival are used only when
    they have advanced with our clock for 2 s, as the time since boot does; others are
    `implausible`: counted, and replaced by the arrival, as are those that would give a stamp more
    than ten minutes before it.
    """

    def __init__(self, window_s: float, *, epoch: bool = True) -> None:
        self._epoch = epoch
        self._least = LeastDelay(window_s)
        self._trips = RoundTrips()
        self._own_time = SteadyTime()
        self._samples = 0
        self._last: _Sample | None = None
        self._candidates: list[_Sample] = []
        self._set_back: list[_Sample] = []
        self._recent_ns: deque[int] = deque(maxlen=_REORDERED)  # the sender's times
        self._steps = 0
        self._begins = False  # whether the next picture is the first of a connection
        self.implausible = 0

    @property
    def steps(self) -> int:
        """Jumps of the sender's clock, or of the path's length, that were noticed."""
        return self._steps + self._least.steps

    @property
    def known(self) -> bool:
        """Whether the sender's times can be mapped at all."""
        return self._samples >= 2 and self._least.known

    @property
    def state(self) -> ClockState:
        """What is known now."""
        if self._last is None or not self.known:
            return ClockState(steps=self.steps, implausible=self.implausible)
        at_ns, shortest_ns = self._last.sender_ns, self._trips.shortest_ns
        return ClockState(
            offset_ns=self._offset_ns(at_ns),
            drift_ppm=self._least.drift * 1e6,
            error_bound_ns=self._error_bound_ns(at_ns),
            steps=self.steps,
            round_trip_ms=None if shortest_ns is None else shortest_ns * 1e-6,
            implausible=self.implausible,
        )

    def reset(self) -> None:
        """Forget the sender's clock, for instance because another sender came."""
        self._least.restart([], 0)
        self._least.drift = 0.0
        self._trips = RoundTrips()
        self._own_time = SteadyTime()
        self._samples = 0
        self._last = None
        self._forget_suspicions()

    def connected(self) -> None:
        """A new connection begins, perhaps of another sender with another clock."""
        self._least.suspect_a_step()
        self._begins = True

    def usable(self, sender_ns: int, arrival_ns: int) -> bool:
        """Whether that time tells anything: plausible, or of a clock that has proved steady."""
        if not self._epoch or self.plausible(sender_ns, arrival_ns):
            return True
        return self._own_time.steady_with(sender_ns, arrival_ns)

    @staticmethod
    def plausible(sender_ns: int, arrival_ns: int) -> bool:
        """Whether `sender_ns` can be a time since the epoch: not before 2020, within a day."""
        return sender_ns >= _EARLIEST_NS and abs(sender_ns - arrival_ns) <= _DAY_NS

    def host_ns(self, sender_ns: int, arrival_ns: int) -> int:
        """Host time of `sender_ns`; never later than `arrival_ns`, grows with the sender's time and
        where a connection begins."""
        if self._epoch and not self.plausible(sender_ns, arrival_ns):
            self._own_time.add(sender_ns, arrival_ns)
        if not self.usable(sender_ns, arrival_ns):
            self.implausible += 1
            return arrival_ns
        begins, last = self._begins, self._last
        stamp_ns = self._learn(_Sample(sender_ns, arrival_ns, 0))
        if stamp_ns < arrival_ns - _OLDEST_NS:
            self.implausible += 1
            stamp_ns = arrival_ns
        if last and (begins or sender_ns > last.sender_ns):
            stamp_ns = max(stamp_ns, last.stamp_ns + 1)
        self._last = _Sample(sender_ns, arrival_ns, stamp_ns)
        return stamp_ns

    def mapped_ns(self, sender_ns: int) -> int | None:
        """Host time of `sender_ns` from what is known; None while nothing is. Learns nothing."""
        return sender_ns + self._offset_ns(sender_ns) if self.known else None

    def queue_delay_ns(self, sender_ns: int, arrival_ns: int) -> int | None:
        """How long a packet waited beyond the path's least delay; None while that is unknown."""
        if not self.known or self._candidates or not self.usable(sender_ns, arrival_ns):
            return None
        return max(0, arrival_ns - sender_ns - self._least.at(sender_ns))

    def answered(self, trip: RoundTrip) -> None:
        """Take an answered ping; one that cannot belong to this clock is left out."""
        if not trip.possible or not self.known:
            return
        least_ns = self._least.at(trip.answered_ns)
        short_ns = trip.least_offset_ns - least_ns
        if abs(short_ns) > _OTHER_CLOCK_NS:
            return
        if short_ns > _AGREEMENT_NS:  # packets would have arrived before they were sent
            self._restart([], trip.back_ns)
            return
        self._trips.add(trip, least_ns)

    def _learn(self, sample: _Sample) -> int:
        """The stamp of one sample, from which the estimate learns unless its clock has jumped."""
        self._samples += 1
        if self._jumped(sample):
            assert self._last is not None
            waited_ns = sample.arrival_ns - self._last.arrival_ns
            return min(sample.arrival_ns, self._last.stamp_ns + max(1, waited_ns))
        self._least.add(sample.sender_ns, sample.delay_ns, sample.arrival_ns)
        if self._samples < 2:
            return sample.arrival_ns
        return min(sample.arrival_ns, sample.sender_ns + self._offset_ns(sample.sender_ns))

    def _jumped(self, sample: _Sample) -> bool:
        """Whether the clock seems to have been set; five samples that agree are believed.

        A jam makes packets late but leaves the sender's times in their order, and none arrives
        earlier than the path allows: these two give a clock away that was set back, or forward.
        """
        begins, self._begins = self._begins, False
        if self._last is None or not self._least.known:
            return False
        early_ns = self._least.at(sample.sender_ns) - sample.delay_ns
        if self._candidates:
            if abs(sample.delay_ns - self._candidates[-1].delay_ns) > abs(early_ns):
                self._candidates = []
                return False
        else:
            went_ahead = early_ns > _STEP_NS and not self._least.young
            if not went_ahead and not self._went_back(sample, begins=begins):
                self._watch_for_small_steps(sample)
                self._recent_ns.append(sample.sender_ns)
                return False
        self._candidates.append(sample)
        if len(self._candidates) < _STEP_SAMPLES:
            return True
        self._restart(self._candidates, sample.arrival_ns)
        return False

    def _went_back(self, sample: _Sample, *, begins: bool) -> bool:
        """Whether its time lies behind more than come before a B picture that is shown first; where
        a connection begins, behind the newest: no picture refers to one of another connection."""
        if begins and self._last is not None:
            return sample.sender_ns <= self._last.sender_ns - _STEP_NS
        newer = sum(time_ns > sample.sender_ns for time_ns in self._recent_ns)
        return newer > _MOST_AHEAD and sample.sender_ns <= max(self._recent_ns) - _STEP_NS

    def _watch_for_small_steps(self, sample: _Sample) -> None:
        """A step back of a few pictures looks like B pictures, but the delay stays as it made it.

        Of B pictures the next one that others refer to comes earlier, by as much as they went back.
        """
        suspects = self._set_back
        if suspects and abs(sample.delay_ns - suspects[0].delay_ns) > _SAME_DELAY_NS:
            suspects.clear()
        if suspects or sample.sender_ns <= max(self._recent_ns, default=0) - _STEP_NS:
            suspects.append(sample)
        if len(suspects) > _REORDERED:
            self._restart(suspects, sample.arrival_ns)

    def _restart(self, samples: list[_Sample], arrival_ns: int) -> None:
        self._steps += 1
        points = [(sample.sender_ns, sample.delay_ns) for sample in samples]
        self._least.restart(points, arrival_ns)
        self._trips.forget_offsets()
        self._forget_suspicions()

    def _forget_suspicions(self) -> None:
        self._candidates, self._set_back = [], []
        self._recent_ns.clear()

    def _offset_ns(self, sender_ns: int) -> int:
        least_ns, path_ns = self._least.at(sender_ns), self._trips.path_ns
        if path_ns is None:
            return least_ns
        lowest_ns = self._trips.least_offset_ns(sender_ns)
        offset_ns = least_ns - round(path_ns)
        return offset_ns if lowest_ns is None else max(offset_ns, min(lowest_ns, least_ns))

    def _error_bound_ns(self, sender_ns: int) -> int | None:
        lowest_ns, most_ns = self._trips.least_offset_ns(sender_ns), self._least.lowest_ns
        if lowest_ns is not None and most_ns is not None:
            offset_ns = self._offset_ns(sender_ns)
            return max(most_ns - offset_ns, offset_ns - lowest_ns, 0)
        spread_ns = self._least.spread_ns
        return None if spread_ns is None else round(spread_ns)


@dataclass(frozen=True)
class _Sample:
    sender_ns: int
    arrival_ns: int
    stamp_ns: int

    @property
    def delay_ns(self) -> int:
        return self.arrival_ns - self.sender_ns


class SteadyTime:
    """Whether times that are none of our epoch come from a clock that runs as ours does."""

    def __init__(self) -> None:
        self._first: tuple[int, int] | None = None
        self._last: tuple[int, int] = (0, 0)

    def add(self, sender_ns: int, arrival_ns: int) -> None:
        """Take one time; what does not go on from the ones before begins anew."""
        if not self._goes_on(sender_ns, arrival_ns):
            self._first = (sender_ns, arrival_ns)
        self._last = (sender_ns, arrival_ns)

    def steady_with(self, sender_ns: int, arrival_ns: int) -> bool:
        """Whether the clock ran for 2 s, and `sender_ns` belongs to it."""
        if self._first is None or self._last[0] - self._first[0] < _STEADY_NS:
            return False
        return self._goes_on(sender_ns, arrival_ns)

    def _goes_on(self, sender_ns: int, arrival_ns: int) -> bool:
        if self._first is None or abs(sender_ns - self._last[0]) > _LONGEST_PAUSE_NS:
            return False
        if self._last[0] - self._first[0] >= _STEADY_NS:
            since, tolerance_ns = self._last, _LONGEST_PAUSE_NS
        else:
            since, tolerance_ns = self._first, _UNSTEADY_NS
        return abs((sender_ns - since[0]) - (arrival_ns - since[1])) <= tolerance_ns
