# SPDX-License-Identifier: Apache-2.0
"""Measured figures as JSON, which has no NaN and no infinity: what was not measured is null."""

from __future__ import annotations

import json
import math
from pathlib import Path


def write_measured(path: Path, content: object) -> None:
    """Write `content`, of dicts, lists, numbers and text, as JSON for people and programs."""
    text = json.dumps(_with_nulls(content), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n")


def _with_nulls(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(item) for item in value]
    return value
