# SPDX-License-Identifier: Apache-2.0
"""Topics that pass objects by reference inside a process and ROS messages outside it.

The idea is REP-2007 (type adaptation), which rclpy lacks. A subscriber in the publisher's process
gets the same object: no copy, no serialisation. The message is made only when somebody wants its
bytes, once, however many do: readers outside the process, the recorder, a bridge.

A local subscriber keeps a DDS subscription only while no local publisher has the topic; otherwise
every reader outside would make each local node deserialise its own frames. A `shared` topic can
have publishers in several processes (every stage's ledger, transforms, an autopilot's telemetry):
there the subscription stays while any is outside, and what comes back from this process is told by
its bytes and let go.
"""

from __future__ import annotations

import copy
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node

from worldsystem_core.errors import ProtocolError
from worldsystem_core.faults import LastFault
from worldsystem_core.handoff import Handoff
from worldsystem_core.ros.delivery import delivery_of
from worldsystem_core.ros.qos import depth_of, overridable
from worldsystem_core.ros.quality_mismatch import QualityMismatch
from worldsystem_core.ros.topic import Topic
from worldsystem_core.ros.topic_registry import TopicRegistry

T = TypeVar("T")
_REMNANTS_NS = 1_000_000_000
_log = logging.getLogger(__name__)


_registry = TopicRegistry()


def _key(node: Node, name: str) -> tuple[int, str]:
    return node.context.get_domain_id(), node.resolve_topic_name(name)


class ReferencePublisher(Generic[T]):
    """Publishes native objects; see the module's text. `outside=False` keeps it in the process.

    `notes_joins`: `joins` counts readers outside, too, as the node's executor hears of them. Not
    for all topics: each costs the executor another thing to wait for.
    """

    def __init__(
        self, node: Node, topic: Topic[T], *, outside: bool = True, notes_joins: bool = False
    ) -> None:
        self.topic = topic
        self.serialised = 0
        self._notes_joins = notes_joins
        self._joins_outside = 0
        self._node = node
        self._key = _key(node, topic.name)
        self._dds: Any = None
        if outside:
            self.offer_outside()
        with _registry.lock:
            _registry.publishers[self._key] += 1

    def offer_outside(self) -> None:
        """Make the topic known to DDS, so that other processes can read it."""
        if self._dds is None:
            self._dds = self._node.create_publisher(
                self.topic.adapter.ros_type,
                self.topic.name,
                copy.copy(self.topic.qos),  # overrides are written into it
                qos_overriding_options=overridable(),
                event_callbacks=PublisherEventCallbacks(
                    matched=self._note_matched if self._notes_joins else None,
                    use_default_callbacks=False,
                ),
            )
            with _registry.lock:
                _registry.offered[self._key] += 1
            _registry.remember(self._key, self._dds.qos_profile.depth)

    @property
    def joins(self) -> int:
        """How many readers there ever were: grows also where one takes another's place."""
        with _registry.lock:
            return self._joins_outside + _registry.subscribed[self._key]

    def _note_matched(self, status: Any) -> None:
        """DDS says that a reader came or went."""
        self._joins_outside += max(status.total_count_change, 0)

    @property
    def readers(self) -> int:
        """How many subscribers, in the process and outside it, an object would reach now."""
        with _registry.lock:
            local = list(_registry.subscriptions[self._key])
        outside = 0 if self._dds is None else int(self._dds.get_subscription_count())
        return outside + sum(subscription.listens() for subscription in local)

    def publish(self, item: T, *, patience_s: float = 0.0) -> None:
        """Hand `item` to every subscriber.

        With `patience_s` the call waits that long for a full local queue to drain before it lets
        the oldest go: for sources that are not live and must lose nothing.
        """
        with _registry.lock:
            local = list(_registry.subscriptions[self._key])
            if self.topic.latched:
                _registry.latched[self._key][self] = item
        for subscription in local:
            subscription.offer(item, patience_s)
        raw = [subscription for subscription in local if subscription.wants_bytes()]
        outside = self._dds is not None and (
            self.topic.latched or self._dds.get_subscription_count() > 0
        )
        if raw or outside:
            messages = self.topic.adapter.dump(item)
            self.serialised += len(messages)
            self._publish_bytes(messages, raw, outside, patience_s)

    def _publish_bytes(
        self, messages: list[bytes], raw: Sequence[Any], outside: bool, patience_s: float
    ) -> None:
        for message in messages:
            for subscription in raw:
                subscription.offer_bytes(message, patience_s)
            if outside:
                if self.topic.shared:
                    with _registry.lock:
                        _registry.sent[self._key].append(message)
                self._dds.publish(message)

    def destroy(self) -> None:
        """Withdraw from the process and from DDS."""
        with _registry.lock:
            _registry.publishers[self._key] -= 1
            _registry.latched[self._key].pop(self, None)
            if not _registry.publishers[self._key]:
                _registry.left_ns[self._key] = time.time_ns()
        if self._dds is not None:
            self._node.destroy_publisher(self._dds)
            self._dds = None
            with _registry.lock:
                _registry.offered[self._key] -= 1


class _Subscription(ABC):
    """What object and byte subscriptions share: the inbox, the wake-up, the link to DDS."""

    direct = False

    def __init__(
        self,
        node: Node,
        topic: Topic[Any],
        callback: Callable[[Any], None],
        on_drop: Callable[[Any], None] | None = None,
        depth: int = 0,
    ) -> None:
        self.topic = topic
        self._key = _key(node, topic.name)
        asked_for = depth_of(node, self._key[1], topic.heard_with())
        self.inbox = self._make_inbox(depth or topic.waiting or asked_for, on_drop)
        self.busy = False
        self.refused = 0
        self._refusal = LastFault()
        self._node = node
        self._callback = callback
        self._mismatch = QualityMismatch(node, self._key[1])
        self._dds: Any = None
        self._group = MutuallyExclusiveCallbackGroup()
        self._delivery = delivery_of(node)
        self._delivery.add(self)
        with _registry.lock:
            _registry.subscriptions[self._key].append(self)
            _registry.subscribed[self._key] += 1
            lasts = list(_registry.latched[self._key].values())
        try:
            self.relink()
            for last in lasts:
                self._greet(last)
        except BaseException:
            self.destroy()
            raise

    def _make_inbox(self, depth: int, on_drop: Callable[[Any], None] | None) -> Handoff[Any]:
        return Handoff(depth, on_drop)

    @property
    def problem(self) -> str:
        """Why messages of others are not taken, in words; empty while all are, or were of late."""
        return self._mismatch.problem or self._refusal.recent

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being worked on."""
        return not self.busy and not len(self.inbox)

    @abstractmethod
    def offer(self, item: Any, patience_s: float) -> None:
        """Take an object from a publisher in this process."""

    def listens(self) -> bool:
        """Whether anything would come of an object offered now."""
        return True

    def wants_bytes(self) -> bool:
        return False

    def offer_bytes(self, message: bytes, patience_s: float) -> None:
        """Take a message's bytes from a publisher in this process."""
        self._enqueue(message, patience_s)

    def destroy(self) -> None:
        """Leave the topic; what waits in the inbox is let go and counted there."""
        with _registry.lock:
            _registry.subscriptions[self._key].remove(self)
        self._delivery.remove(self)
        self.inbox.close()
        if self._dds is not None:
            self._node.destroy_subscription(self._dds)
            self._dds = None

    def give_up(self) -> None:
        """Nobody will call back any more: what waits, and all that comes, is let go at once."""
        self.inbox.close()
        self.inbox.drop_all()

    def _greet(self, last: Any) -> None:
        self.offer(last, 0.0)

    def _enqueue(self, item: Any, patience_s: float) -> None:
        waited = patience_s > 0 and self.inbox.put_waiting(item, patience_s)
        if not waited:
            self.inbox.put(item)
        self._delivery.wake()

    @property
    def oldest(self) -> float:
        """When what has waited longest came, to be compared; infinite when nothing waits."""
        return self.inbox.oldest

    def deliver(self) -> None:
        """Call back with what has waited longest."""
        self.busy = True
        try:
            item = self.inbox.get(0.0)
            if item is not None:
                self._callback(self._opened(item))
        except BaseException:
            self._delivery.wake()  # for what waits behind it
            raise
        finally:
            self.busy = False

    def _opened(self, item: Any) -> Any:
        return item

    def needs_outside(self) -> bool:
        """Whether anything would come of what other processes publish."""
        return True

    def relink(self) -> None:
        """Listen on DDS exactly while the topic has publishers outside this process to hear."""
        outside = not self._all_local() and self.needs_outside()
        if not outside and self._dds is not None:
            self._node.destroy_subscription(self._dds)
            self._dds = None
            self._mismatch = QualityMismatch(self._node, self._key[1])  # nobody outside is missed
        elif outside and self._dds is None:
            self._dds = self._node.create_subscription(
                self.topic.adapter.ros_type,
                self.topic.name,
                self._on_dds,
                self.topic.heard_with(),
                callback_group=self._group,
                raw=True,
                qos_overriding_options=overridable(),
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            )
            _registry.remember(self._key, self._dds.qos_profile.depth)
        if self._dds is not None and self._mismatch.look(self._dds.qos_profile):
            _log.warning("%s", self._mismatch.problem)

    def _all_local(self) -> bool:
        """Whether whoever publishes is in this process; of a `shared` topic, everyone who does."""
        if not _registry.publishers[self._key]:
            return False
        return not self.topic.shared or (
            self._node.count_publishers(self._key[1]) <= _registry.offered[self._key]
        )

    def _on_dds(self, message: bytes, info: dict[str, Any]) -> None:
        alone = not self.topic.shared and self._all_local()
        if alone or self._is_own(message, info):
            return
        try:
            item = self._received(message)
        except ProtocolError as error:
            self._refuse(error)
        else:
            self._enqueue(item, 0.0)

    def _refuse(self, error: ProtocolError) -> None:
        """Count what is no message; whoever may write to DDS shall not end a stage with it."""
        self.refused += 1
        words = f"messages of {self._key[1]} are left out: {error}"
        self._refusal.note(words)
        if self.refused == 1:
            _log.warning("%s", words)

    def _is_own(self, message: bytes, info: dict[str, Any]) -> bool:
        """This process published it, perhaps as its last, and has handed it on by reference.

        Another machine's clock may be slow: what comes well after the last publisher left is heard.
        """
        with _registry.lock:
            if self.topic.shared and message not in _registry.sent[self._key]:
                return False
            if self.topic.shared and _registry.publishers[self._key]:
                return True
            left_ns = _registry.left_ns[self._key]  # another may tell the same since
        last_ns = left_ns + _REMNANTS_NS
        return bool(info["source_timestamp"] <= left_ns and info["received_timestamp"] <= last_ns)

    def _received(self, message: bytes) -> Any:
        return message


class ReferenceSubscription(_Subscription):
    """Calls back with native objects: the publisher's own inside a process, loaded ones outside."""

    def _make_inbox(self, depth: int, on_drop: Callable[[Any], None] | None) -> Handoff[Any]:
        return self.topic.inbox(depth, on_drop)

    def offer(self, item: Any, patience_s: float) -> None:
        self._enqueue(item, patience_s)

    def _received(self, message: bytes) -> Any:
        return self.topic.load(message)


class BytesSubscription(_Subscription):
    """Calls back with CDR bytes while `wanted()`, for recorders and bridges.

    `direct`: in the publisher's thread, without waking this node's. For callbacks that any thread
    may call and that only hand on: to wake a thread takes the common lock.

    With `at_need` other processes are told only while `wanted()`, or they would make and send what
    nobody looks at; what they publish within a second of its beginning may be missed.
    """

    def __init__(
        self,
        node: Node,
        topic: Topic[Any],
        callback: Callable[[bytes], None],
        *,
        wanted: Callable[[], bool] = lambda: True,
        on_drop: Callable[[Any], None] | None = None,
        depth: int = 0,
        direct: bool = False,
        at_need: bool = False,
    ) -> None:
        self._wanted = wanted
        self._at_need = at_need
        self.direct = direct
        super().__init__(node, topic, callback, on_drop, depth)

    def offer(self, item: Any, patience_s: float) -> None:
        """Bytes come through `offer_bytes`, made once for all who want them."""

    def listens(self) -> bool:
        return self._wanted()

    def wants_bytes(self) -> bool:
        return self._wanted()

    def needs_outside(self) -> bool:
        return not self._at_need or self._wanted()

    def _enqueue(self, item: Any, patience_s: float) -> None:
        if not self.direct:
            super()._enqueue(item, patience_s)
        elif not self.inbox.closed:
            self._callback(item)

    def _greet(self, last: Any) -> None:
        for message in self.topic.adapter.dump(last):
            self.offer_bytes(message, 0.0)
