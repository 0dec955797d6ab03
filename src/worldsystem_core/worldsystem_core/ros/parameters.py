# SPDX-License-Identifier: Apache-2.0
"""The bridge between a stage's `Config` and ROS parameters: the only place that knows both."""

from __future__ import annotations

from typing import TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from worldsystem_core.config import Config, config_from, own_settings, settings_of

C = TypeVar("C", bound=Config)

_WIDEST = 1e18


def declare_config(node: Node, config_type: type[C]) -> C:
    """Read `config_type` from the launch overrides; declare every field as a read-only parameter.

    The node must be built with `automatically_declare_parameters_from_overrides=True`: rclpy
    otherwise ignores a misspelt override in silence. Raises `ConfigError` for an unknown name, a
    wrong type or a value out of range, and for an unknown policy in a `qos_overrides.…`.
    """
    parameters = node.get_parameters_by_prefix("").items()
    given = own_settings({name: parameter.value for name, parameter in parameters})
    config = config_from(config_type, given)
    for setting in settings_of(config_type):
        if setting.name in given:
            node.undeclare_parameter(setting.name)
        node.declare_parameter(
            setting.name,
            getattr(config, setting.name),
            _descriptor(config_type, setting.name),
            ignore_override=True,
        )
    return config


def _descriptor(config_type: type[Config], name: str) -> ParameterDescriptor:
    item = config_type.__dataclass_fields__[name]
    low, high = item.metadata.get("low"), item.metadata.get("high")
    descriptor = ParameterDescriptor(description=item.metadata["help"], read_only=True)
    if low is None and high is None:
        return descriptor
    low = -_WIDEST if low is None else low
    high = _WIDEST if high is None else high
    if isinstance(item.default, float):
        bounds = FloatingPointRange(from_value=float(low), to_value=float(high))
        descriptor.floating_point_range = [bounds]
    else:
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    return descriptor
