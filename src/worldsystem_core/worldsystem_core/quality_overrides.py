# SPDX-License-Identifier: Apache-2.0
"""Parameters that override a topic's quality of service, by name and value.

They are named `qos_overrides./<topic>.<publisher|subscription>.<policy>`, as for every ROS node.
"""

from __future__ import annotations

from worldsystem_core.errors import ConfigError

PREFIX = "qos_overrides."
ENDS = ("publisher", "subscription")
POLICIES: dict[str, tuple[str, ...]] = {
    "history": ("keep_last", "keep_all", "system_default"),
    "depth": (),
    "reliability": ("reliable", "best_effort", "system_default", "best_available"),
    "durability": ("volatile", "transient_local", "system_default", "best_available"),
}
"""What can be overridden, and with which words; the depth is a number."""


def check_override(name: str, value: object) -> None:
    """Raise `ConfigError` for one that would have no effect, or that rclpy would end the stage for.

    Whether a node has the topic shows only once it has made its links: that is not looked at.
    """
    topic, *rest = name.removeprefix(PREFIX).split(".")
    if not topic.startswith("/") or len(rest) != 2 or rest[0] not in ENDS:
        raise ConfigError(
            f"{name} overrides nothing; name it {PREFIX}/<topic>.<{'|'.join(ENDS)}>.<policy>"
        )
    policy = rest[1]
    if policy not in POLICIES:
        raise ConfigError(f"{name}: policy '{policy}' is not known; known: {', '.join(POLICIES)}")
    words = POLICIES[policy]
    if words and str(value).lower() not in words:
        raise ConfigError(f"{name} = {value!r}; known: {', '.join(words)}")
    if not words and (type(value) is not int or value < 1):
        raise ConfigError(f"{name} = {value!r} must be a whole number, 1 or more")
