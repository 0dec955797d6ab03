# SPDX-License-Identifier: Apache-2.0
"""Time stamps as text files tell them."""

from __future__ import annotations

from decimal import Context, Decimal

_LEAST_NS, _MOST_NS = 10**12, 2**63 - 1
"""A number as large as the first is of nanoseconds: as seconds it is beyond any calendar."""


def nanoseconds_told(text: str) -> int:
    """`1305031102.175304`, `1.305031102175304e+09` or `1403636579763555584` as integer nanoseconds.

    Whole numbers of more than 12 digits are nanoseconds, and so are others as large; the rest are
    seconds. Read as decimals, since a double keeps a time since 1970 to no more than 0.2 µs; what
    lies beyond a nanosecond is rounded. Raises `ValueError` for what is no number, or none that 64
    bits take.
    """
    try:
        return _nanoseconds(text)
    except ArithmeticError as error:
        raise ValueError(f"'{text[:40]}' is no time stamp") from error


def _nanoseconds(text: str) -> int:
    told = Decimal(text)
    if not abs(told) <= _MOST_NS:  # infinity, too; NaN is an error of comparing it
        raise ValueError(f"'{text[:40]}' is beyond all time stamps")
    is_whole = text.strip().isdigit()
    in_ns = len(text.strip()) > 12 if is_whole else abs(told) >= _LEAST_NS
    exact = Context(prec=len(text) + 9)
    stamp_ns = int((told if in_ns else exact.scaleb(told, 9)).to_integral_value(context=exact))
    if abs(stamp_ns) > _MOST_NS:
        raise ValueError(f"'{text[:40]}' is beyond all time stamps")
    return stamp_ns
