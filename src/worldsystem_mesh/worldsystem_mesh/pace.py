# SPDX-License-Identifier: Apache-2.0
"""How much time an update may spend on moved keyframes, so that live ones hardly notice."""

from __future__ import annotations

LEAST_S = 0.001
LEAST_SCALE = 0.05
SMOOTHING = 0.2
FASTER, SLOWER = 1.25, 0.6


class Pace:
    """Additive work within `share` of an update's usual time.

    What is made anew must be drawn, too, so that the cost of a step shows only afterwards: steps
    grow while the whole stays within the share and shrink at once when it does not.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._usual_ms = 0.0
        self._usual_extract_ms = 0.0
        self._scale = 0.3

    def note_usual(self, integrate_ms: float, extract_ms: float) -> None:
        """An update without other work took this long."""
        if not self._usual_ms:
            self._usual_ms, self._usual_extract_ms = integrate_ms + extract_ms, extract_ms
        self._usual_ms += SMOOTHING * (integrate_ms + extract_ms - self._usual_ms)
        self._usual_extract_ms += SMOOTHING * (extract_ms - self._usual_extract_ms)

    def budget_s(self) -> float:
        """Time for the work proper in the next update."""
        return max(1e-3 * self._usual_ms * self._share * self._scale, LEAST_S)

    def note_busy(self, work_ms: float, extract_ms: float) -> None:
        """An update took `work_ms` for other work, and this long to extract all that changed."""
        spent_ms = work_ms + max(extract_ms - self._usual_extract_ms, 0.0)
        factor = SLOWER if spent_ms > self._share * self._usual_ms else FASTER
        self._scale = min(max(self._scale * factor, LEAST_SCALE), 1.0)
