# SPDX-License-Identifier: Apache-2.0
"""What a node waits for, made once and used until an entity comes or goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.waitable import NumberOfEntities

_FOR_EVER_NS = -1


class KeptWaitSet:
    """All entities of `node`, and `woken`, which ends a wait. One thread waits.

    They are in use, and destroyed at `close` at the earliest; nothing is taken of an entity whose
    end was asked for.
    """

    def __init__(self, node: Node, woken: GuardCondition, context: Context) -> None:
        self._context = context
        self._uses = ExitStack()
        self._timers = self._used(node.timers)
        self._subscriptions = self._used(node.subscriptions)
        self._clients = self._used(node.clients)
        self._services = self._used(node.services)
        self._guards = self._used([*node.guards, woken])
        self._waitables = [each for each in node.waitables if self._use(each)]
        self._set = self._made()
        self._fill = self._additions()

    def _use(self, destroyable: Any) -> bool:
        with suppress(InvalidHandle):
            self._uses.enter_context(destroyable)
            return True
        return False

    def _used(self, entities: Iterable[Any]) -> dict[int, Any]:
        """Those that are not destroyed already, by their pointers."""
        return {each.handle.pointer: each for each in entities if self._use(each.handle)}

    def _made(self) -> Any:
        further = sum((each.get_num_entities() for each in self._waitables), NumberOfEntities())
        own = NumberOfEntities(
            len(self._subscriptions),
            len(self._guards),
            len(self._timers),
            len(self._clients),
            len(self._services),
        )
        number = own + further
        with self._context.handle:
            return _rclpy.WaitSet(
                number.num_subscriptions,
                number.num_guard_conditions,
                number.num_timers,
                number.num_clients,
                number.num_services,
                number.num_events,
                self._context.handle,
            )

    def _additions(self) -> list[tuple[Callable[[Any], Any], Any]]:
        """What fills the set, listed once: this is done at each wake."""
        kinds = (
            (self._set.add_subscription, self._subscriptions),
            (self._set.add_guard_condition, self._guards),
            (self._set.add_timer, self._timers),
            (self._set.add_client, self._clients),
            (self._set.add_service, self._services),
        )
        return [(add, each.handle) for add, entities in kinds for each in entities.values()]

    def wait(self) -> None:
        """Until something is ready."""
        self._set.clear_entities()  # a wait leaves only what was ready
        for add, handle in self._fill:
            add(handle)
        for waitable in self._waitables:
            with suppress(InvalidHandle):
                waitable.add_to_wait_set(self._set)
        with self._context.handle:
            self._set.wait(_FOR_EVER_NS)

    def ready_timers(self) -> Iterator[Any]:
        """Those that are due; a cancelled one may seem so."""
        ready = self._ready("timer", self._timers)
        return (timer for timer in ready if timer.handle.is_timer_ready())

    def ready_subscriptions(self) -> list[Any]:
        """Those that a message has come for."""
        return self._ready("subscription", self._subscriptions)

    def others_ready(self) -> bool:
        """Whether anything else is, or somebody woke this wait."""
        guards = self._ready("guard_condition", self._guards)
        for guard in guards:
            guard._executor_triggered = True  # a wait takes it: rclpy's triggers it again
        return (
            bool(guards)
            or bool(self._ready("client", self._clients))
            or bool(self._ready("service", self._services))
            or any(waitable.is_ready(self._set) for waitable in self._waitables)
        )

    def _ready(self, kind: str, entities: dict[int, Any]) -> list[Any]:
        pointers = self._set.get_ready_entities(kind)
        return [entities[pointer] for pointer in pointers if pointer in entities]

    def close(self) -> None:
        """Use nothing of it any more."""
        del self._set, self._fill
        self._uses.close()
