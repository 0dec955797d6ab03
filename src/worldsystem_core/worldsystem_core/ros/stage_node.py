# SPDX-License-Identifier: Apache-2.0
"""What every stage's node is: settings, by-reference topics, a ledger, and an orderly end."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from worldsystem_core.config import Config
from worldsystem_core.errors import WorldSystemError
from worldsystem_core.faults import FaultRecord
from worldsystem_core.handoff import Handoff
from worldsystem_core.json_log import is_thread_of, working_on
from worldsystem_core.keyframe_inbox import KeyframeInbox, Told
from worldsystem_core.latency import LatencyHistogram, live_latency_s
from worldsystem_core.ledger import StageLedger, StageReport
from worldsystem_core.priority import make_urgent
from worldsystem_core.process_figures import process_figures
from worldsystem_core.reconstruction import NewKeyframe
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.messages import time_message
from worldsystem_core.ros.diagnostic_names import diagnostic_name
from worldsystem_core.ros.made_whole import MadeWhole
from worldsystem_core.ros.parameters import declare_config
from worldsystem_core.ros.reference_topic import (
    BytesSubscription,
    ReferencePublisher,
    ReferenceSubscription,
)
from worldsystem_core.ros.topic import Topic
from worldsystem_core.ros.woken_work import WokenWork
from worldsystem_core.thread_times import ThreadTimes
from worldsystem_core.told_keyframes import TOLD_AGAIN, ToldKeyframes
from worldsystem_core.turn import Turn

log = logging.getLogger(__name__)

T = TypeVar("T")
C = TypeVar("C", bound=Config)

RUNNING = "running"
"""What a stage says of itself while all is well."""
_REPORT_PERIOD_S = 1.0
_LATE, _EARLY, _LONG_S = 1.2, 0.5, 0.25
_FIRST_REPORT_S, _FIRST_REPORTS, _MOST_EARLY = 0.1, 10, 100
"""A stage tells of itself at once: whoever waits for its return sees it as soon as DDS has linked
them, not up to a second later. While nobody is linked, it counts for nothing."""


class StageNode(Node, metaclass=MadeWhole):
    """A node that talks through by-reference topics and accounts for each frame.

    Whoever runs it calls `input_ended` once everything before it has ended and its inboxes are
    empty, then `close`. `niceness` says how readily its thread yields to the others: what frames
    wait for goes first.

    An error in a callback costs the frame at hand, which is counted as `failed`; the stage goes on
    unless there are too many (`worldsystem_core.faults`) or it is one that a person must act on.
    Callbacks come from several threads, one at a time: each holds `turn`, which they get in the
    order in which they came. So a stage with always more to do still gives signs of life.

    `hurried`, which whoever runs it may set or put in place, says that a person wants the end: then
    `input_ended` waits for nobody.
    """

    niceness = 0

    def __init__(self, name: str, config_type: type[C], **kwargs: Any) -> None:
        is_thread_of(name)
        self._links: list[Any] = []
        super().__init__(name, automatically_declare_parameters_from_overrides=True, **kwargs)
        self.turn = Turn()
        self._threads = ThreadTimes()
        self.config = declare_config(self, config_type)
        self.ledger = StageLedger(name)
        self.latency = LatencyHistogram()
        self._begun_s = time.monotonic()
        self.faults = FaultRecord()
        self.hurried = threading.Event()
        self._ended_by = ""
        self._broken_by: Exception | None = None
        self._further_ledgers: list[StageLedger] = []
        self._breaking_off = WokenWork(self, self._break_off, due=lambda: 0)
        self._links.append(self._breaking_off)
        self._ledger_out = self.advertise(topics.LEDGER)
        self._diagnostics_out = self.advertise(topics.DIAGNOSTICS)
        self._reported_s = time.monotonic()
        self.create_timer(_REPORT_PERIOD_S, self._report_in_time)
        self._first_reports = self._early_reports = 0
        self._reporting_early = self.create_timer(_FIRST_REPORT_S, self._report_early)

    def create_timer(
        self, timer_period_sec: float, callback: Any, *arguments: Any, **keywords: Any
    ) -> Any:
        """A timer of the machine's own clock, unless another is given.

        With `use_sim_time` a node's clock stands still before a replay begins and after it ends.
        """
        if len(arguments) < 2:
            keywords.setdefault("clock", Clock(clock_type=ClockType.STEADY_TIME))
        guarded = self._guarded(callback)
        return super().create_timer(timer_period_sec, guarded, *arguments, **keywords)

    def create_service(self, srv_type: Any, srv_name: str, callback: Any, **keywords: Any) -> Any:
        """A service whose callback may fail: the caller then gets the answer as far as it is."""
        guarded = self._guarded(callback)

        def answered(request: Any, response: Any) -> Any:
            return guarded(request, response) or response

        return super().create_service(srv_type, srv_name, answered, **keywords)

    def _guarded(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """`callback` in its turn, whose unexpected errors cost no more than what it worked on."""

        took_s = 0.0

        @functools.wraps(callback)
        def guarded(*arguments: Any) -> Any:
            nonlocal took_s
            self._threads.include_this()
            with self.turn, working_on(arguments[0] if arguments else None):
                self._report_when_late(_EARLY if took_s > _LONG_S else _LATE)
                begun_s = time.monotonic()
                answer = self._survive(callback, arguments)
                took_s = time.monotonic() - begun_s
                self._report_when_late()
                return answer

        return guarded

    def _survive(self, callback: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        ledgers = [(ledger, ledger.taken) for ledger in self.all_ledgers()]
        try:
            return callback(*arguments)
        except WorldSystemError:
            raise
        except Exception as error:  # the edge of the stage: the others shall not notice
            for ledger, taken in ledgers:
                ledger.drop_since(taken, "failed")
            if not self.faults.survives(error):
                raise
            log.exception("%s goes on without what it worked on", self.get_name())
            return None

    def advertise(
        self, topic: Topic[T], *, outside: bool = True, notes_joins: bool = False
    ) -> ReferencePublisher[T]:
        """A publisher of `topic` that `close` destroys."""
        publisher = ReferencePublisher(self, topic, outside=outside, notes_joins=notes_joins)
        self._links.append(publisher)
        return publisher

    def listen(
        self,
        topic: Topic[T],
        callback: Callable[[T], None],
        on_drop: Callable[[T], None] | None = None,
        *,
        depth: int = 0,
        urgent: bool = False,
    ) -> Handoff[T]:
        """Call `callback` with each object of `topic`, and `on_drop` with those let go.

        `depth` objects may wait (0: as the topic's quality of service says), in the inbox that is
        returned. While an `urgent` one does, less urgent stages of this process begin nothing new
        (`worldsystem_core.priority`).
        """
        guarded = self._guarded(callback)
        link = ReferenceSubscription(self, topic, guarded, on_drop, depth)
        self._links.append(link)
        if urgent:
            make_urgent(link.inbox)
        return link.inbox

    def listen_to_keyframes(
        self,
        callback: Callable[[Told], None],
        told: ToldKeyframes,
        on_missed: Callable[[Told], None],
    ) -> KeyframeInbox:
        """Call `callback` with each keyframe and correction; `told`, which the stage keeps, says
        which keyframes it knows.

        Those that found the inbox full are counted. `on_missed` is called, in the publisher's
        thread, with those that the stage did not know, and with corrections, which only an inbox
        that nobody has read for long lets go of.
        """

        def dropped(event: Told) -> None:
            if isinstance(event, NewKeyframe):
                known = told.knows(event.keyframe)
                self.ledger.drop_untaken(TOLD_AGAIN if known else "queue_full")
                if known:
                    return
            on_missed(event)

        inbox = self.listen(topics.KEYFRAME, callback, dropped)
        assert isinstance(inbox, KeyframeInbox)  # as the topic says
        inbox.is_known = told.knows
        inbox.on_known = lambda known: self.ledger.drop_untaken(TOLD_AGAIN)
        return inbox

    def listen_bytes(
        self,
        topic: Topic[Any],
        callback: Callable[[bytes], None],
        *,
        wanted: Callable[[], bool] = lambda: True,
        on_drop: Callable[[Any], None] | None = None,
        depth: int = 0,
        direct: bool = False,
        at_need: bool = False,
    ) -> None:
        """Call `callback` with the CDR bytes of each message of `topic` while `wanted()`.

        `depth` messages may wait (0: as the topic's quality of service says). With `direct` none
        does: the publisher's thread calls back, so that `callback` must be quick and safe from any.
        With `at_need` other processes publish for it only meanwhile (`BytesSubscription`).
        """
        link = BytesSubscription(
            self,
            topic,
            self._contained(callback) if direct else self._guarded(callback),
            wanted=wanted,
            on_drop=on_drop,
            depth=depth,
            direct=direct,
            at_need=at_need,
        )
        self._links.append(link)

    def take_up(self, callback: Callable[[], None], due: Callable[[], int]) -> Callable[[], None]:
        """Have `callback` called in turn each time that the function returned here was, from any
        thread; while something is `due` the stage is not idle."""
        work = WokenWork(self, self._guarded(callback), due)
        self._links.append(work)
        return work.wake

    def _contained(self, callback: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """`callback`, whose errors never reach the thread that calls it, another stage's; too many
        end this stage in its own thread."""

        def contained(message: bytes) -> None:
            if self._broken_by is not None:
                return
            try:
                callback(message)
            except Exception as error:  # the edge between two stages
                log.exception("%s could not take a message", self.get_name())
                if not self.faults.survives(error):
                    self._broken_by = error
                    self._breaking_off.wake()

        return contained

    def _break_off(self) -> None:
        assert self._broken_by is not None
        raise self._broken_by

    def further_ledger(self, name: str) -> StageLedger:
        """One more account of this stage, reported as `<stage>/<name>`; safe from any thread."""
        ledger = StageLedger(f"{self.ledger.stage}/{name}")
        self._further_ledgers.append(ledger)
        return ledger

    def all_ledgers(self) -> list[StageLedger]:
        """This stage's account, and then its further ones."""
        return [self.ledger, *self._further_ledgers]

    def measure_latency(self, capture_ns: int) -> None:
        """Count the time from capture to now; what was not captured live is left out."""
        age_s = live_latency_s(capture_ns, self._begun_s)
        if age_s is not None:
            self.latency.add(age_s)

    def facts(self) -> dict[str, object]:
        """What `/diagnostics` says of this stage beside its ledger."""
        return {}

    def problem(self) -> str:
        """What is wrong now, in words; empty while all is well."""
        return ""

    def gave_up(self, error: Exception) -> None:
        """The stage's thread ended with `error`: say so, and let go of all that comes, counted."""
        self._ended_by = self._ended_by or f"ended by {type(error).__name__}: {error}"
        for ledger in self.all_ledgers():
            ledger.end_as("stage_failed")
            ledger.drop_in_flight("stage_failed")
        for link in self._links:
            if isinstance(link, ReferenceSubscription | BytesSubscription):
                link.give_up()
        self.report()

    def let_go_of_waiting(self) -> None:
        """Nobody will work on what waits: it is counted, and what is under way."""
        for ledger in self.all_ledgers():
            ledger.end_as("shutdown")
        for link in self._links:
            if isinstance(link, ReferenceSubscription | BytesSubscription):
                link.give_up()
        for ledger in self.all_ledgers():
            ledger.drop_in_flight("shutdown")

    def _report_early(self) -> None:
        self._early_reports += 1
        self._first_reports += self._diagnostics_out.readers > 0
        if self._first_reports == _FIRST_REPORTS or self._early_reports == _MOST_EARLY:
            self._reporting_early.cancel()
        self._report_in_time(_FIRST_REPORT_S / 2)

    def _report_in_time(self, apart_s: float = _EARLY * _REPORT_PERIOD_S) -> None:
        """Unless it was just told, as of a stage that was late."""
        if time.monotonic() - self._reported_s > apart_s:
            self.report()

    def between_steps(self) -> None:
        """To be called within a piece of work whose next step may take its time."""
        self._report_when_late(_EARLY)

    def _report_when_late(self, late: float = _LATE) -> None:
        """Each of a busy stage's timers waits for a turn of its own, that of `report` among them:
        whoever has the turn tells when that is overdue, and before what took long last time."""
        if self._links and time.monotonic() - self._reported_s > late * _REPORT_PERIOD_S:
            self._survive(self.report, ())

    def report(self) -> None:
        """Publish the ledger and the diagnostics."""
        self._reported_s = time.monotonic()
        for ledger in self.all_ledgers():
            latency = self.latency if ledger is self.ledger else LatencyHistogram()
            self._ledger_out.publish(
                StageReport(
                    stamp_ns=time.time_ns(),
                    ledger=ledger.state(),
                    violations=ledger.violations,
                    latency_counts=tuple(latency.counts()),
                )
            )
        self._diagnostics_out.publish(self._diagnostics())

    def _diagnostics(self) -> DiagnosticArray:
        state = self.ledger.state()
        problem = self._ended_by or self.problem() or self._problem_of_links()
        if not problem and self.faults.recent:
            problem = f"a callback failed: {self.faults.recent}"
        level = DiagnosticStatus.WARN if problem else DiagnosticStatus.OK
        facts = {"taken": state.taken, "used": state.used, "queue": self._waiting()}
        facts |= process_figures(self._threads.cpu_s())
        facts |= self.facts()  # a stage may work in a further process
        facts |= {f"dropped.{reason}": count for reason, count in state.dropped.items()}
        if self.faults.total:
            facts["faults"] = self.faults.total
        if refused := sum(getattr(link, "refused", 0) for link in self._links):
            facts["refused"] = refused
        status = DiagnosticStatus(
            level=DiagnosticStatus.ERROR if self._ended_by else level,
            name=diagnostic_name(self.get_fully_qualified_name()),
            message=problem or RUNNING,
            values=[KeyValue(key=key, value=str(value)) for key, value in facts.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = time_message(time.time_ns())
        return array

    def _problem_of_links(self) -> str:
        """What keeps messages of others from being taken."""
        return next(filter(None, (getattr(link, "problem", "") for link in self._links)), "")

    def _waiting(self) -> int:
        """Objects in the inboxes."""
        return sum(len(link.inbox) for link in self._links if hasattr(link, "inbox"))

    @property
    def idle(self) -> bool:
        """Every inbox is empty and nothing is being worked on."""
        return all(getattr(link, "idle", True) for link in self._links)

    def input_ended(self) -> None:
        """Everything before this stage has ended: publish what is still held back."""

    def close(self) -> None:
        """Let go of everything and `leave`."""
        self.leave()

    def leave(self) -> None:
        """Leave all topics and destroy the node; of one whose constructor failed, what there is."""
        for link in self._links:
            link.destroy()
        self._links.clear()
        self.destroy_node()
