# SPDX-License-Identifier: Apache-2.0
"""Calls a node back for what came by reference: in a thread that waits without an executor.

An rclpy executor builds its wait set anew at each wake, entity by entity, under the interpreter's
lock: a millisecond for each object that a topic hands over. A `NodeThread` therefore has objects
delivered in a second thread, which a plain event wakes; the executor is left with timers, services
and DDS. A node that somebody else's executor spins is woken through one guard condition.
"""

from __future__ import annotations

import threading
from typing import Protocol
from weakref import WeakKeyDictionary

from rclpy.node import Node

from worldsystem_core.priority import give_way, patience_s

_RELINK_S = 1.0
_ROUNDS = 16
_WAIT_S = 1.0


class Link(Protocol):
    """A subscription, as its node's `Delivery` sees it."""

    @property
    def waits(self) -> bool:
        """Whether anything waits to be delivered."""
        ...

    def deliver(self) -> None:
        """Call back with what has waited longest."""
        ...

    def relink(self) -> None:
        """Look whether the topic's publishers are in this process."""
        ...


class Delivery:
    """All by-reference subscriptions of one node: who calls them back, and one timer for all."""

    def __init__(self, node: Node) -> None:
        self._links: list[Link] = []
        self._patience_s = patience_s(getattr(node, "niceness", 0))
        self._apart = False
        self._woken = threading.Event()
        self._guard = node.create_guard_condition(self._work_off)
        node.create_timer(_RELINK_S, self._relink)

    def add(self, link: Link) -> None:
        self._links.append(link)

    def remove(self, link: Link) -> None:
        self._links.remove(link)

    def wake(self) -> None:
        """Something waits; safe from any thread."""
        if self._apart:
            self._woken.set()
        else:
            self._guard.trigger()

    def run(self, ended: threading.Event) -> None:
        """Deliver in the calling thread, no longer in the executor's, until `ended` and `wake`."""
        self._apart = True
        while not ended.is_set():
            self._work_off()
            self._woken.wait(_WAIT_S)
            self._woken.clear()

    def _work_off(self) -> None:
        """Call back in rounds, one object for each subscription, until nothing waits."""
        for _ in range(_ROUNDS):
            waiting = [link for link in list(self._links) if link.waits]
            if not waiting:
                return
            for link in waiting:
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
