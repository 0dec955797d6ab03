# SPDX-License-Identifier: Apache-2.0
"""Topics of other people's nodes, as the bytes that come."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from worldsystem_core.errors import InterfaceMissing
from worldsystem_core.message_definitions import message_definition, type_hash
from worldsystem_core.ros.definitions import share_folders

_DEPTH = 1000


@dataclass(frozen=True)
class ForeignTopic:
    """A topic with all that a recording tells of it; `qos` is what its publishers offer."""

    name: str
    type_name: str
    definition: str
    type_hash: str
    qos: QoSProfile


def listen_to_foreign(
    node: Node, name: str, type_name: str, callback: Callable[[bytes], None]
) -> ForeignTopic:
    """Call `callback` with the CDR bytes of each message of `name`, which are not decoded.

    The subscription asks for no more than every publisher offers. Raises `InterfaceMissing` when
    the package of `type_name` is not installed here.
    """
    folders = share_folders()
    found = ForeignTopic(
        name,
        type_name,
        message_definition(type_name, folders),
        type_hash(type_name, folders),
        _offered_by_all(node, name),
    )
    node.create_subscription(_message_class(type_name), name, callback, found.qos, raw=True)
    return found


def _message_class(type_name: str) -> type:
    package, _, kind = type_name.split("/")
    try:
        found: type = getattr(importlib.import_module(f"{package}.msg"), kind)
        return found
    except (ImportError, AttributeError) as error:
        raise InterfaceMissing(
            f"{type_name} cannot be imported ({error}); source the workspace that has {package}"
        ) from error


def _offered_by_all(node: Node, name: str) -> QoSProfile:
    offers = [info.qos_profile for info in node.get_publishers_info_by_topic(name)]
    reliable = all(offer.reliability is ReliabilityPolicy.RELIABLE for offer in offers)
    latched = all(offer.durability is DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
    return QoSProfile(
        depth=_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=(
            DurabilityPolicy.TRANSIENT_LOCAL if latched and offers else DurabilityPolicy.VOLATILE
        ),
    )
