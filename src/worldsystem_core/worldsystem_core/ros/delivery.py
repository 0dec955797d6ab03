# SPDX-License-Identifier: Apache-2.0
"""Calls a node back for what came by reference: in a thread that waits without an executor.

An rclpy executor builds its wait set anew at each wake, entity by entity, under the interpreter's
lock: a millisecond for each object that a topic hands over. A `NodeThread` therefore has objects
delivered in a second thread, which a bell wakes; the executor is left with timers, services
and DDS. A node that somebody else's executor spins is woken through one guard condition.
"""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from typing import Protocol
from weakref import WeakKeyDictionary

from rclpy.exceptions import InvalidHandle
from rclpy.node import Node

from worldsystem_core.priority import give_way, patience_s

_RELINK_S = 1.0
_AT_ONCE = 64
_WAIT_S = 1.0


class Link(Protocol):
    """A subscription, as its node's `Delivery` sees it."""

    @property
    def oldest(self) -> float:
        """When what has waited longest came, to be compared; infinite when nothing waits."""
        ...

    def deliver(self) -> None:
        """Call back with what has waited longest."""
        ...

    def relink(self) -> None:
        """Look whether the topic's publishers are in this process."""
        ...


class Bell:
    """Wakes the one thread that waits, or keeps one ring for when it does.

    `threading.Event` takes two locks and a list for that: 85 us to wake, against 32.
    """

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        """Safe from any thread."""
        with suppress(RuntimeError):  # it rings already
            self._silent.release()

    def wait(self, timeout_s: float) -> bool:
        """Until it rings, which ends with that; False after `timeout_s`."""
        return self._silent.acquire(timeout=timeout_s)


class Delivery:
    """All by-reference subscriptions of one node: who calls them back, and one timer for all."""

    def __init__(self, node: Node) -> None:
        self._links: list[Link] = []
        self._with_inbox: list[Link] = []
        self._patience_s = patience_s(getattr(node, "niceness", 0))
        self._apart = False
        self._bell = Bell()
        self._guard = node.create_guard_condition(self._on_guard)
        node.create_timer(_RELINK_S, self._relink)

    def add(self, link: Link) -> None:
        """One that calls back in the publisher's thread (`direct`) is never asked what waits."""
        self._links.append(link)
        if not getattr(link, "direct", False):
            self._with_inbox.append(link)

    def remove(self, link: Link) -> None:
        self._links.remove(link)
        if link in self._with_inbox:
            self._with_inbox.remove(link)

    def wake(self) -> None:
        """Something waits; safe from any thread."""
        if self._apart:
            self._bell.ring()
        else:
            with suppress(InvalidHandle):  # the node is gone since: nobody is to be woken
                self._guard.trigger()

    def set_apart(self) -> None:
        """From now on only the thread that calls `run` delivers, no executor."""
        self._apart = True

    def run(self, ended: threading.Event) -> None:
        """Deliver in the calling thread until `ended`, which `wake` makes it notice."""
        while not ended.is_set():
            self._work_off(ended)
            self._bell.wait(_WAIT_S)

    def _on_guard(self) -> None:
        if not self._apart:
            self._work_off()

    def _work_off(self, ended: threading.Event | None = None) -> None:
        """Call back with what waits, in the order in which it was published, whatever the topic,
        until `ended`."""
        for _ in range(_AT_ONCE):
            if ended is not None and ended.is_set():
                return
            link = min(list(self._with_inbox), key=lambda link: link.oldest, default=None)
            if link is None or link.oldest == math.inf:
                return
            give_way(self._patience_s)
            link.deliver()
        self.wake()  # whoever runs this looks after its other work, and comes back

    def _relink(self) -> None:
        for link in list(self._links):
            link.relink()


_deliveries: WeakKeyDictionary[Node, Delivery] = WeakKeyDictionary()


def delivery_of(node: Node) -> Delivery:
    """The one of `node`, made at the first call."""
    if node not in _deliveries:
        _deliveries[node] = Delivery(node)
    return _deliveries[node]
