# SPDX-License-Identifier: Apache-2.0
"""Topics in, messages on RabbitMQ out; restart messages in, a reset of the map out."""

from __future__ import annotations

import logging
import os
from typing import Any

from rclpy.task import Future
from worldsystem_msgs.srv import Reset

from worldsystem_bridge.broker import Broker
from worldsystem_bridge.config import BridgeConfig
from worldsystem_bridge.outbox import Outbox
from worldsystem_bridge.translation import Translation
from worldsystem_core.ros import topics
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.followed_surface import FollowedSurface
from worldsystem_core.ros.stage_node import StageNode

log = logging.getLogger(__name__)

_LOOK_S = 0.2


class BridgeNode(StageNode):
    """Its ledger counts postings: used = the broker confirmed it."""

    niceness = 10

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("bridge", BridgeConfig, **kwargs)
        url = self.config.url or os.environ.get("RABBITMQ_URL", "")
        self._outbox = Outbox(self.config.queue_messages, self.ledger)
        self._translation = Translation(self.config, self._outbox)
        self._broker = Broker(url, self.config, self._outbox, self._on_restart_message)
        self._restarts, self._restarts_done = 0, 0
        self._connects, self._crowded_out, self._has_to_tell_again = 0, 0, False
        self._tell_behind = 0
        self._reset = self.create_client(Reset, "slam3r/reset")
        self.listen(topics.POSE, self._translation.pose, self._on_inbox_full)
        self.listen(topics.KEYFRAME, self._translation.keyframe, self._on_inbox_full)
        self._surface = FollowedSurface(self, self._translation.mesh)
        self.listen(topics.MESH, self._surface.take, self._on_inbox_full)
        self.listen(topics.TRACKS, self._translation.tracks, self._on_inbox_full)
        self.listen(topics.OBJECTS, self._translation.objects)
        self.create_timer(_LOOK_S, self._look_for_restarts)
        self.create_timer(_LOOK_S, self._look_for_connections)
        self.create_timer(_LOOK_S, self._translation.look)
        self._broker.start()

    def _on_inbox_full(self, _: object) -> None:
        self.ledger.drop_untaken("inbox_full")

    def _on_restart_message(self) -> None:
        self._restarts += 1

    def _look_for_restarts(self) -> None:
        if self._restarts == self._restarts_done:
            return
        self._restarts_done = self._restarts
        if self._reset.service_is_ready():
            asked = self._reset.call_async(Reset.Request())
            asked.add_done_callback(self._guarded(self._on_reset_answer))
        else:
            log.warning("a restart message came, but nobody serves slam3r/reset")

    def _on_reset_answer(self, asked: Future) -> None:
        answer = asked.result()
        if not answer.success:
            log.warning("a restart message came, but no new map was begun: %s", answer.message)

    def _look_for_connections(self) -> None:
        """What was to be told before a connection may be lost, and what found no room is: it is
        told again, once nothing waits that is older; newer frames may always wait."""
        if self._broker.connects > self._connects:
            self._connects = self._broker.connects
            self._has_to_tell_again = self.ledger.taken > 0
            self._tell_behind = self._outbox.newest
        if self._outbox.crowded_out > self._crowded_out:
            self._crowded_out, self._has_to_tell_again = self._outbox.crowded_out, True
            self._tell_behind = self._outbox.newest
        older_wait = self._outbox.holds_up_to(self._tell_behind)
        if self._has_to_tell_again and self._broker.connected and not older_wait:
            self._has_to_tell_again = False
            self._translation.tell_again()

    def facts(self) -> dict[str, object]:
        return {
            "broker": self._broker.place,
            "connected": self._broker.connected,
            "connects": self._broker.connects,
            "queue": len(self._outbox),
            "restarts_asked": self._restarts,
        }

    def problem(self) -> str:
        return self._broker.problem

    def input_ended(self) -> None:
        self._surface.close()
        self._translation.flush()
        self._broker.stop()
        self._translation.close()


def main() -> None:
    run_node(BridgeNode)
