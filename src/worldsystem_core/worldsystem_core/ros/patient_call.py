# SPDX-License-Identifier: Apache-2.0
"""A stage asks another one by service, whenever that can be reached: it may be starting again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from rclpy.task import Future
from std_srvs.srv import Trigger

from worldsystem_core.ros.stage_node import StageNode

LOOK_S = 0.25
"""How often it is looked whether the service is there."""
PATIENCE_S = 10.0
"""An answer that has not come by then never will: who should give it has died since."""

log = logging.getLogger(__name__)


def log_trigger(answer: Trigger.Response) -> None:
    """Say in the log what a `Trigger` was answered: a warning where it failed."""
    log.log(logging.INFO if answer.success else logging.WARNING, "%s", answer.message)


class PatientCall:
    """Calls a service once it is there, again when no answer comes, and hands the answer over.

    `on_answer` is called in the node's turn, and costs no more than the answer when it fails, as
    every callback. A call that fails counts as one without an answer. A new request replaces the
    one that waits.
    """

    def __init__(
        self, node: StageNode, kind: Any, name: str, on_answer: Callable[[Any], None]
    ) -> None:
        self._node = node
        self._name = name
        self._on_answer = on_answer
        self._client = node.create_client(kind, name)
        self._request: Any = None
        self._asked: Future | None = None
        self._asked_s = 0.0
        self._timer = node.create_timer(LOOK_S, self._look)
        self._timer.cancel()

    def ask(self, request: Any) -> None:
        """Have `request` answered; safe from the node's threads."""
        self._request, self._asked = request, None
        self._timer.reset()

    def _look(self) -> None:
        if self._request is None:
            self._timer.cancel()
            return
        if self._asked is not None and time.monotonic() - self._asked_s > PATIENCE_S:
            log.info("%s: %s did not answer and is asked again", self._node.get_name(), self._name)
            self._asked = None
        if self._asked is None and self._client.service_is_ready():
            self._asked, self._asked_s = self._client.call_async(self._request), time.monotonic()
            self._asked.add_done_callback(self._node._guarded(self._answered))

    def _answered(self, asked: Future) -> None:
        if asked is not self._asked:  # one that has been given up
            return
        try:
            answer = asked.result()
        except Exception as error:  # whatever DDS or rclpy has: it is asked again in a while
            log.warning("%s: %s could not be asked: %s", self._node.get_name(), self._name, error)
            return
        self._request = self._asked = None
        self._on_answer(answer)
