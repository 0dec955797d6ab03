# SPDX-License-Identifier: Apache-2.0
"""Numbers on a command line; what is none is wrong use."""

from __future__ import annotations

import argparse
import math


def number(text: str) -> float:
    """Neither NaN nor without end."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is no number with an end")
    return value


def amount(text: str) -> float:
    """A number of at least 0."""
    value = number(text)
    if value < 0.0:
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 0")
    return value
