# SPDX-License-Identifier: Apache-2.0
"""Names in `/diagnostics`, which all systems of one graph share."""

from __future__ import annotations

_PREFIX = "worldsystem: "


def diagnostic_name(full_name: str) -> str:
    """What a node's status is called: `worldsystem: slam3r`, or `worldsystem: drone1/slam3r`."""
    return _PREFIX + full_name.lstrip("/")


def stage_of(status_name: str, namespace: str) -> str:
    """The stage in `namespace` that a status is about; empty: one elsewhere, or none of ours."""
    own = diagnostic_name(f"{namespace.strip('/')}/")
    stage = status_name.removeprefix(own)
    return stage if status_name.startswith(own) and "/" not in stage else ""
