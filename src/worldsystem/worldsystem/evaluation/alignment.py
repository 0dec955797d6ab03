# SPDX-License-Identifier: Apache-2.0
"""How an estimate may be placed before it is judged; apart from `compare`, which loads slowly."""

from __future__ import annotations

from worldsystem_core.errors import ConfigError

ALIGNMENTS = ("sim3", "se3")
"""With the scale fitted, or as estimated."""


def check_alignment(alignment: str) -> None:
    """Raise `ConfigError` for a name that is none of `ALIGNMENTS`."""
    if alignment not in ALIGNMENTS:
        raise ConfigError(f"alignment = {alignment!r} is not known; choose one of {ALIGNMENTS}")
