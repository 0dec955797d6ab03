# SPDX-License-Identifier: Apache-2.0
"""The lens distortion of `sensor_msgs/CameraInfo` as the five coefficients of `Camera`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

log = logging.getLogger(__name__)

_COEFFICIENTS = 5
_MODELS = ("plumb_bob", "rational_polynomial")
_told: set[tuple[str, int]] = set()


def plumb_bob(model: str, coefficients: Iterable[float]) -> tuple[float, ...]:
    """k1, k2, p1, p2, k3 of `model` (empty: `plumb_bob`); none where all are 0.

    None as well, and said once, where it is another one, or a `rational_polynomial` that needs
    more: as `plumb_bob` its pictures would be bent wrongly; and where one of them is no number.
    """
    values = tuple(float(value) for value in coefficients)
    if not any(values):
        return ()
    model = model or _MODELS[0]
    are_numbers = all(map(math.isfinite, values))
    if are_numbers and model in _MODELS and not any(values[_COEFFICIENTS:]):
        return values[:_COEFFICIENTS]
    if (model, len(values)) not in _told:
        _told.add((model, len(values)))
        log.warning(
            "the camera's distortion is '%s' with %d coefficients, %s; its "
            "pictures are taken as undistorted. Use the rectified topic instead",
            model,
            len(values),
            "which is not known here" if are_numbers else "of which some are no numbers",
        )
    return ()
