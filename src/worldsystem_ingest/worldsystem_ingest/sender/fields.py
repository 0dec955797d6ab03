# SPDX-License-Identifier: Apache-2.0
"""Fields of JSON messages under the names that senders give them, checked before they are used.

Names are compared in snake_case, so `angularVelocity` is `angular_velocity`. Every function raises
`ProtocolError` with the name and the value; a number is always finite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from worldsystem_core.errors import ProtocolError

Message = Mapping[str, object]
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_EPOCH_UNITS_NS = (10**9, 10**6, 10**3, 1)
_EARLIEST_S, _LATEST_S = 1_577_836_800, 4_102_444_800  # 2020 to 2100
_TIME_UNITS = {"timestamp_us": 10**3, "timestamp_ms": 10**6, "timestamp_s": 10**9}
_MOST_NS = 2**64
_MOST_DIGITS = 20
_MOST_KEYS = 64


@dataclass(frozen=True)
class Quantity:
    """A number's names, each with the factor to our unit, and the limits in our unit."""

    names: Mapping[str, float]
    low: float
    high: float


def snake_case(message: Message) -> dict[str, object]:
    """The message with its own names in snake_case; refuses more than 64 names."""
    if len(message) > _MOST_KEYS:
        raise ProtocolError(f"a message of {len(message)} fields; {_MOST_KEYS} are the most")
    return {_HUMP.sub("_", str(name)).lower().replace("-", "_"): v for name, v in message.items()}


def number(message: Message, name: str) -> float:
    """A finite number."""
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ProtocolError(f'"{name}" must be a number, not {str(value)[:40]!r}')
    if (isinstance(value, int) and abs(value) > 2**63) or not math.isfinite(value):
        raise ProtocolError(f'"{name}" must be finite')
    return float(value)


def pixels(message: Message, name: str) -> int:
    """A size of a picture."""
    value = number(message, name)
    if not 1 <= value <= 16384 or value != int(value):
        raise ProtocolError(f'"{name}" = {value} must be a whole number of pixels up to 16384')
    return int(value)


def numbers(values: object, name: str) -> tuple[float, ...]:
    """A list of numbers, at most 64."""
    if not isinstance(values, Iterable) or isinstance(values, (str, Mapping)):
        raise ProtocolError(f'"{name}" must be a list of numbers')
    found = list(values)
    if len(found) > _MOST_KEYS:
        raise ProtocolError(f'"{name}" has {len(found)} numbers; {_MOST_KEYS} are the most')
    return tuple(number({name: value}, name) for value in found)


def quantity(message: Message, wanted: Quantity) -> float | None:
    """The number under the first name that is there, in our unit; None when there is none."""
    for name, factor in wanted.names.items():
        if message.get(name) is not None:
            value = number(message, name) * factor
            _check(value, name, wanted)
            return value
    return None


def vector(message: Message, wanted: Quantity) -> tuple[float, float, float]:
    """Three numbers as a list or as an object with x, y, z, in our unit."""
    for name, factor in wanted.names.items():
        value = message.get(name)
        if value is None:
            continue
        found = components(value, name, "xyz")
        for component in found:
            _check(component * factor, name, wanted)
        return found[0] * factor, found[1] * factor, found[2] * factor
    raise ProtocolError(f"none of {', '.join(wanted.names)} is there; one must be 3 numbers")


def components(value: object, name: str, axes: str) -> tuple[float, ...]:
    """As many numbers as `axes` has letters, from a list or from an object with those names."""
    if isinstance(value, Mapping):
        value = [value.get(axis) for axis in axes]
    found = numbers(value, name)
    if len(found) != len(axes):
        raise ProtocolError(f'"{name}" must be {len(axes)} numbers, not {len(found)}')
    return found


def flag(message: Message, names: Sequence[str]) -> bool | None:
    """True or false under the first name that is there; None when there is none."""
    for name in names:
        value = message.get(name)
        if value is None:
            continue
        if not isinstance(value, bool):
            raise ProtocolError(f'"{name}" must be true or false, not {str(value)[:40]!r}')
        return value
    return None


def whole_ns(message: Message, name: str) -> int | None:
    """Nanoseconds as a number or, where 64 bits are too many for a sender, as digits."""
    value = _number(message.get(name))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return int(value) if 0 <= value < _MOST_NS else None


def _number(value: object) -> object:
    """Digits as the whole number that they are; anything else as it is."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value) if len(value) <= _MOST_DIGITS else value
    return value


def sender_ns(message: Message) -> int:
    """The sender's time of a message [ns]; 0, which no clock shows, when it is missing or absurd.

    `timestamp_ns`, `_us`, `_ms` and `_s` say their unit. A plain `timestamp` is a time since 1970
    in the unit that puts it between 2020 and 2100, or text in ISO 8601 with its time zone.
    """
    if (stamp := whole_ns(message, "timestamp_ns")) is not None:
        return stamp
    for name, unit_ns in _TIME_UNITS.items():
        value = _number(message.get(name))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _bounded_ns(value, unit_ns)
    for name in ("timestamp", "time", "ts"):
        if message.get(name) is not None:
            return _since_epoch_ns(message[name])
    return 0


def _bounded_ns(value: float, unit_ns: int) -> int:
    if isinstance(value, float) and not math.isfinite(value):
        return 0
    return round(value * unit_ns) if 0 <= value < _MOST_NS // unit_ns else 0


def _since_epoch_ns(value: object) -> int:
    value = _number(value)
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value[:40])
        except ValueError:
            return 0
        return round(parsed.timestamp() * 1e6) * 1000 if parsed.tzinfo else 0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    for unit_ns in _EPOCH_UNITS_NS:
        stamp_ns = _bounded_ns(value, unit_ns)
        if _EARLIEST_S * 10**9 <= stamp_ns <= _LATEST_S * 10**9:
            return stamp_ns
    return 0


def _check(value: float, name: str, wanted: Quantity) -> None:
    if not wanted.low <= value <= wanted.high:
        raise ProtocolError(
            f'"{name}" = {value:g} is outside {wanted.low:g} to {wanted.high:g}; '
            f"the name says the unit"
        )
