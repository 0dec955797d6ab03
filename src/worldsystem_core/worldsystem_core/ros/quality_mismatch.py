# SPDX-License-Identifier: Apache-2.0
"""Publishers that DDS does not link with a subscription: they offer less than it asks for."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible


class QualityMismatch:
    """Watches the publishers of one topic for such ones; asking DDS costs, so only when their
    number changed."""

    def __init__(self, node: Node, topic_name: str) -> None:
        self.problem = ""
        self._node = node
        self._topic_name = topic_name
        self._publishers = 0

    def look(self, asked_for: QoSProfile) -> bool:
        """Keep `problem` current, in words and empty without one; whether it is a new one."""
        publishers = self._node.count_publishers(self._topic_name)
        if publishers == self._publishers:
            return False
        before, self._publishers = self.problem, publishers
        self.problem = self._found(asked_for)
        return bool(self.problem) and self.problem != before

    def _found(self, asked_for: QoSProfile) -> str:
        for info in self._node.get_publishers_info_by_topic(self._topic_name):
            compatible, why = qos_check_compatible(info.qos_profile, asked_for)
            if compatible == QoSCompatibility.ERROR:  # not `is`: members of rclpy's are made anew
                why = why.removeprefix("ERROR: ").rstrip("; ").lower()
                return (
                    f"nothing is heard of {info.node_name} on {self._topic_name} ({why}); "
                    f"set the parameter qos_overrides.{self._topic_name}.subscription.reliability "
                    "(or .durability) of this node to what it offers"
                )
        return ""
