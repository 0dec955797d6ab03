# SPDX-License-Identifier: Apache-2.0
"""Corrections of keyframes that came one after another, as few as do the same."""

from __future__ import annotations

from collections.abc import Sequence

from worldsystem_core.reconstruction import MovedKeyframes, RemovedKeyframes

Correction = MovedKeyframes | RemovedKeyframes


def joined(corrections: Sequence[Correction]) -> list[Correction]:
    """The same corrections with neighbours of one kind made one: what was told last holds.

    Poses and sizes are of now, not steps: who is told only the last ones ends in the same state.
    """
    found: list[Correction] = []
    for correction in corrections:
        last = found[-1] if found else None
        if isinstance(last, MovedKeyframes) and isinstance(correction, MovedKeyframes):
            found[-1] = MovedKeyframes(
                last.world_from_cam | correction.world_from_cam,
                last.point_scale | correction.point_scale,
                last.scale if correction.scale is None else correction.scale,
            )
        elif isinstance(last, RemovedKeyframes) and isinstance(correction, RemovedKeyframes):
            successors = last.successors | correction.successors
            found[-1] = RemovedKeyframes((*last.ids, *correction.ids), successors)
        else:
            found.append(correction)
    return found
