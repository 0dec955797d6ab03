# SPDX-License-Identifier: Apache-2.0
"""Identification beside the map: a bounded queue, one thread, a rate limit, retries, a cache."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from worldsystem_core.handoff import Handoff
from worldsystem_core.objects import IdentifyOutcome, ObjectIdentity
from worldsystem_segment.identify.client import IdentifyError, Service, ask
from worldsystem_segment.objects.track_ids import IdChanges

QUEUE = 16
CACHED = 1000
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0
_MINUTE_S = 60.0
_NOBODY = -1  # no object has this id


@dataclass(frozen=True)
class Inquiry:
    """One question about one object."""

    id: int
    label: str
    jpeg: bytes
    question: str = ""


class Identifier:
    """Asks the service one question after the other; answers go to `on_identity`, in its thread.

    At most `per_minute` requests go out, retries included. `close` ends the thread: it waits for
    the request under way, at most its time-out.
    """

    def __init__(
        self,
        service: Service,
        on_identity: Callable[[ObjectIdentity], None],
        *,
        per_minute: int = 10,
        attempts: int = 3,
    ) -> None:
        self.service = service
        self.dropped = 0
        self._tell = on_identity
        self._per_minute, self._attempts = per_minute, attempts
        self._queue: Handoff[Inquiry] = Handoff(QUEUE)
        self._answers: OrderedDict[int, str] = OrderedDict()
        self._waiting: dict[int, int] = {}  # whose question it is → whose answer it will be
        self._sent_s: deque[float] = deque(maxlen=per_minute)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="identify", daemon=True)
        self._thread.start()

    def answer_of(self, object_id: int) -> str:
        """The kept answer for an object; empty without one."""
        with self._lock:
            return self._answers.get(object_id, "")

    def forget(self) -> None:
        """Answers are about other things than those that have their ids from now on; those that are
        waited for go when they come."""
        with self._lock:
            self._answers.clear()
            self._waiting = dict.fromkeys(self._waiting, _NOBODY)

    def follow(self, changes: IdChanges) -> None:
        """Let kept answers, and those that are waited for, go along with their objects."""
        with self._lock:
            for object_id in changes.given_again:
                self._answers.pop(object_id, None)
            for kept_id, gone_id in changes.joined:
                if answer := self._answers.pop(gone_id, ""):
                    self._answers.setdefault(kept_id, answer)
                for asked_id, answered_id in self._waiting.items():
                    if answered_id == gone_id:
                        self._waiting[asked_id] = kept_id

    def refuses(self, object_id: int) -> str:
        """Why a question about an object would not be taken now; empty if it would."""
        with self._lock:
            return "" if object_id in self._answers else self._refusal(object_id)

    def submit(self, inquiry: Inquiry, *, again: bool = False, known: str = "") -> str:
        """Queue a question; an empty text, or why it was not taken.

        A kept answer, or else the one that is `known`, is told anew at once, unless `again`.
        """
        with self._lock:
            kept = "" if again else self._answers.get(inquiry.id, "") or known
            refusal = "" if kept else self._refusal(inquiry.id)
            self.dropped += bool(refusal)
            if not kept and not refusal:
                self._waiting[inquiry.id] = inquiry.id
        if kept:
            self._tell(_told(inquiry, IdentifyOutcome.FROM_CACHE, answer=kept))
        elif refusal:
            self._tell(_told(inquiry, IdentifyOutcome.REFUSED, problem=refusal))
        else:
            self._queue.put(inquiry)
        return refusal

    def close(self) -> None:
        """Take no more questions and end."""
        self._closing.set()
        self._queue.close()
        self._thread.join(self.service.timeout_s + 1.0)

    def _refusal(self, object_id: int) -> str:
        if self._closing.is_set():
            return "the segmenter is ending"
        if object_id in self._waiting:
            return f"object {object_id} is already being asked about"
        if len(self._waiting) >= QUEUE:
            return f"{QUEUE} questions are waiting already; ask again later"
        return ""

    def _work(self) -> None:
        while not self._closing.is_set():
            inquiry = self._queue.get(timeout_s=0.2)
            if inquiry is None:
                continue
            said = self._asked(inquiry) if self._is_wanted(inquiry) else None
            with self._lock:
                object_id = self._waiting.pop(inquiry.id)
                if said is None or object_id == _NOBODY:
                    self.dropped += 1
                    continue
                said = replace(said, id=object_id)
                if said.outcome is IdentifyOutcome.ANSWERED:
                    self._answers[said.id] = said.answer
                    while len(self._answers) > CACHED:
                        self._answers.popitem(last=False)
            self._tell(said)

    def _is_wanted(self, inquiry: Inquiry) -> bool:
        with self._lock:
            return self._waiting[inquiry.id] != _NOBODY

    def _asked(self, inquiry: Inquiry) -> ObjectIdentity | None:
        """What the service said; None for what was forgotten before it went out."""
        problem, wait_s, attempt, start = "", FIRST_WAIT_S, 0, time.monotonic()
        for attempt in range(1, self._attempts + 1):
            if not self._wait_for_turn():
                return _told(inquiry, IdentifyOutcome.REFUSED, problem="the segmenter is ending")
            if not self._is_wanted(inquiry):  # forgotten while it waited
                return None
            self._sent_s.append(time.monotonic())
            try:
                answer = ask(self.service, inquiry.jpeg, inquiry.label, inquiry.question)
            except IdentifyError as error:
                problem = str(error)
                if not error.again:
                    break
                if attempt < self._attempts and self._closing.wait(wait_s):
                    break
                wait_s = min(2.0 * wait_s, LONGEST_WAIT_S)
                continue
            took_s = time.monotonic() - start
            return _told(
                inquiry, IdentifyOutcome.ANSWERED, answer=answer, attempts=attempt, latency_s=took_s
            )
        took_s = time.monotonic() - start
        return _told(
            inquiry, IdentifyOutcome.FAILED, problem=problem, attempts=attempt, latency_s=took_s
        )

    def _wait_for_turn(self) -> bool:
        """Wait until the rate allows a request; False when the segmenter ends first."""
        if len(self._sent_s) == self._per_minute:
            wait_s = self._sent_s[0] + _MINUTE_S - time.monotonic()
            if wait_s > 0 and self._closing.wait(wait_s):
                return False
        return not self._closing.is_set()


def _told(inquiry: Inquiry, outcome: IdentifyOutcome, **facts: object) -> ObjectIdentity:
    return ObjectIdentity(
        id=inquiry.id,
        label=inquiry.label,
        stamp_ns=time.time_ns(),
        outcome=outcome,
        **facts,  # type: ignore[arg-type]
    )
