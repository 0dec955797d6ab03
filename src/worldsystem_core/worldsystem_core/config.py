# SPDX-License-Identifier: Apache-2.0
"""Settings of one stage: a frozen dataclass that is also its ROS parameters and their docs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

from worldsystem_core.errors import ConfigError
from worldsystem_core.quality_overrides import PREFIX, check_override

C = TypeVar("C", bound="Config")

_OF_EVERY_NODE = {"use_sim_time", "start_type_description_service"}


def param(
    default: Any,  # the field's own type; dataclasses.field cannot express it
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare one setting: its default, its meaning with the unit in brackets, and its limits."""
    meta = {"help": help, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=meta)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every stage's settings; checks types, ranges and choices on construction."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):
            value = self._checked_type(item.name, getattr(self, item.name), hints[item.name])
            self._check_limits(item.name, value, item.metadata)
            object.__setattr__(self, item.name, value)

    def _checked_type(self, name: str, value: object, wanted: type) -> object:
        if wanted is float and type(value) is int:
            return float(value)
        if type(value) is not wanted:
            raise ConfigError(
                f"{type(self).__name__}.{name} = {value!r} must be {wanted.__name__}, "
                f"not {type(value).__name__}"
            )
        return value

    def _check_limits(self, name: str, value: Any, meta: Any) -> None:
        low, high, choices = meta.get("low"), meta.get("high"), meta.get("choices")
        if isinstance(value, float) and not math.isfinite(value):  # NaN lies outside no limits
            raise ConfigError(f"{type(self).__name__}.{name} = {value!r} is not a number; set one")
        if name.endswith("host") and not value:
            raise ConfigError(
                f"{type(self).__name__}.{name} is empty, which would be every network; set "
                "127.0.0.1, or 0.0.0.0 for every network"
            )
        if (low is not None and value < low) or (high is not None and value > high):
            raise ConfigError(
                f"{type(self).__name__}.{name} = {value!r} is outside [{low}, {high}]"
            )
        if choices and value not in choices:
            known = ", ".join(choices)
            raise ConfigError(f"{type(self).__name__}.{name} = {value!r}; known: {known}")


@dataclass(frozen=True)
class Setting:
    """One line of the parameter reference."""

    name: str
    type_name: str
    default: object
    help: str
    limits: str


def settings_of(config_type: type[Config]) -> list[Setting]:
    """List the settings of `config_type` in declaration order, for docs and ROS descriptors."""
    hints = get_type_hints(config_type)
    found = []
    for item in fields(config_type):
        meta = item.metadata
        limits = ", ".join(meta.get("choices") or ())
        if meta.get("low") is not None or meta.get("high") is not None:
            low = "" if meta["low"] is None else meta["low"]
            high = "" if meta["high"] is None else meta["high"]
            limits = f"{low} … {high}"
        if item.default is MISSING:
            raise ConfigError(f"{config_type.__name__}.{item.name} has no default")
        found.append(
            Setting(item.name, hints[item.name].__name__, item.default, meta["help"], limits)
        )
    return found


def config_from(config_type: type[C], given: dict[str, Any]) -> C:
    """Build `config_type` from name/value pairs; an unknown name is an error listing the known."""
    known = {item.name for item in fields(config_type)}
    if unknown := sorted(given.keys() - known):
        near = [like for name in unknown for like in get_close_matches(name, known, 1)]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ConfigError(
            f"{config_type.__name__}: unknown setting(s) {unknown}; known: {sorted(known)}{hint}"
        )
    return config_type(**given)


def own_settings(given: Mapping[str, object]) -> dict[str, Any]:
    """Those of a node's parameters that are its stage's settings, not of every ROS node.

    Raises `ConfigError` for an override of a topic's quality of service that cannot be one.
    """
    own = {}
    for name, value in given.items():
        if name.startswith(PREFIX):
            check_override(name, value)
        elif name not in _OF_EVERY_NODE:
            own[name] = value
    return own
