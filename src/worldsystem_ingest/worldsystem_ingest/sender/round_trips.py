# SPDX-License-Identifier: Apache-2.0
"""What pings tell that arrivals cannot: how long the path itself is.

Four times belong to a ping that was answered: sent (host), received (sender), answered (sender) and
back (host). Whatever the path does, host time less sender's time lies between sent - received and
back - answered; the middle is off by half of what the two ways differ (RFC 5905, section 8).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_REMEMBERED = 60
_WORST_DRIFT = 200e-6
_LONGEST_NS = 10 * 10**9


@dataclass(frozen=True)
class RoundTrip:
    """The four times of one answered ping [ns]; the middle two are the sender's."""

    sent_ns: int
    received_ns: int
    answered_ns: int
    back_ns: int

    @property
    def possible(self) -> bool:
        """Whether the times are in order and the ping came back within 10 s."""
        held_ns = self.answered_ns - self.received_ns
        return held_ns >= 0 and 0 <= self.length_ns <= _LONGEST_NS

    @property
    def length_ns(self) -> int:
        """Time on the way, there and back."""
        return (self.back_ns - self.sent_ns) - (self.answered_ns - self.received_ns)

    @property
    def least_offset_ns(self) -> int:
        """Host time less sender's time is at least this: the ping came after it was sent."""
        return self.sent_ns - self.received_ns

    @property
    def most_offset_ns(self) -> int:
        """Host time less sender's time is at most this: the answer came after it was sent."""
        return self.back_ns - self.answered_ns


class RoundTrips:
    """The last minute of answered pings.

    What follows from them is worked out as one comes, since it is asked for with every sample of
    a sender, hundreds of times a second.
    """

    def __init__(self) -> None:
        self._trips: deque[RoundTrip] = deque(maxlen=_REMEMBERED)
        self._path_ns: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._path: float | None = None
        self._newest_ns = 0
        self._tightest: RoundTrip | None = None

    @property
    def shortest_ns(self) -> int | None:
        """The shortest of them; None without any."""
        return min((length for length, _ in self._path_ns), default=None)

    @property
    def path_ns(self) -> float | None:
        """How long the least delay of the way here is, were both ways alike; None without any.

        The shorter half counts, as the longer ones waited somewhere.
        """
        return self._path

    def add(self, trip: RoundTrip, least_delay_ns: int) -> None:
        """Take one ping; `least_delay_ns` is that of packets at the time of its answer."""
        middle_ns = (trip.least_offset_ns + trip.most_offset_ns) / 2
        self._trips.append(trip)
        self._path_ns.append((trip.length_ns, least_delay_ns - middle_ns))
        shorter = sorted(self._path_ns)[: (len(self._path_ns) + 1) // 2]
        self._path = max(0.0, sum(path for _, path in shorter) / len(shorter))
        self._newest_ns = max(trip.received_ns for trip in self._trips)
        self._tightest = max(self._trips, key=lambda trip: _bound_ns(trip, self._newest_ns))

    def forget_offsets(self) -> None:
        """The sender's clock was set; how long the path is stays true."""
        self._trips.clear()
        self._tightest = None

    def least_offset_ns(self, sender_ns: int) -> int | None:
        """Host time less sender's time is no less than this; None without pings."""
        if self._tightest is not None and sender_ns >= self._newest_ns:
            return _bound_ns(self._tightest, sender_ns)  # after all of them, all loosen alike
        return max((_bound_ns(trip, sender_ns) for trip in self._trips), default=None)


def _bound_ns(trip: RoundTrip, sender_ns: int) -> int:
    """What one ping says of the least offset at a sender's time, however its clock drifts."""
    return trip.least_offset_ns - round(_WORST_DRIFT * abs(sender_ns - trip.received_ns))
