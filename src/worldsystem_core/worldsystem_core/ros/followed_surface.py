# SPDX-License-Identifier: Apache-2.0
"""The surface for a stage that shows or keeps it: deltas in order, what was missed asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable

from worldsystem_msgs.srv import MeshRequest

from worldsystem_core.ros.adapters.surface import mesh_delta
from worldsystem_core.ros.patient_call import PatientCall
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_core.surface import MeshDelta
from worldsystem_core.surface_follower import SurfaceFollower

log = logging.getLogger(__name__)


class FollowedSurface:
    """Hands the deltas given to `take` to `show`, in order and in the node's turn.

    The mesher may have been there before this stage, and be at rest, or deltas came too fast for
    the line between two processes: then `mesh/request` is asked, and what comes meanwhile is shown
    after the answer. Where the mesher cannot give it, that is logged, and what comes is shown
    without it.
    """

    def __init__(self, node: StageNode, show: Callable[[MeshDelta], None]) -> None:
        self._show = show
        self._follower = SurfaceFollower()
        self._before = PatientCall(node, MeshRequest, "mesh/request", self._on_answer)
        self._ask_for_missing()

    def take(self, delta: MeshDelta) -> None:
        """A delta that the mesher told."""
        asked_for = self._follower.newer_than
        self._hand_over(self._follower.take(delta))
        if self._follower.newer_than != asked_for:  # it is another mesher that has to answer
            self._ask_for_missing()

    def close(self) -> None:
        """The mesher has ended and answers no more: show what still waits for an answer."""
        self._hand_over(self._follower.give_up())

    def _on_answer(self, answer: MeshRequest.Response) -> None:
        if answer.problem:
            log.warning("a part of the surface is not shown: %s", answer.problem)
            self._hand_over(self._follower.give_up())
        else:
            self._hand_over(self._follower.catch_up(mesh_delta(answer.delta)))
        self._ask_for_missing()

    def _ask_for_missing(self) -> None:
        if (known := self._follower.newer_than) is not None:
            self._before.ask(MeshRequest.Request(newer_than=known))

    def _hand_over(self, deltas: list[MeshDelta]) -> None:
        for delta in deltas:
            if delta.sequence or delta.removed:  # else there was nothing yet
                self._show(delta)
