# SPDX-License-Identifier: Apache-2.0
"""How much time an update may spend on moved keyframes, so that live ones hardly notice."""

from __future__ import annotations

LEAST_S = 0.001
LEAST_SCALE = 0.05
SMOOTHING = 0.2
FASTER, SLOWER = 1.25, 0.6


class Pace:
    """Additive work within `share` of an update's usual time: what its own work takes.

    What is made anew must be drawn, too, so that the cost of a step shows only afterwards: steps
    grow while the whole stays within the share and shrink at once when it does not.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._usual_ms = 0.0
        self._scale = 0.3

    def note_usual(self, integrate_ms: float, extract_ms: float) -> None:
        """An update without other work took this long."""
        own_ms = integrate_ms + extract_ms
        self._usual_ms += SMOOTHING * (own_ms - self._usual_ms) if self._usual_ms else own_ms

    def budget_s(self) -> float:
        """Time for the work proper in the next update."""
        return max(1e-3 * self._usual_ms * self._share * self._scale, LEAST_S)

    def note_busy(self, integrate_ms: float, work_ms: float, extract_ms: float, own: float) -> None:
        """An update took `work_ms` for other work, and `extract_ms` to extract all that changed, of
        which `own` [0..1] changed without that work."""
        self.note_usual(integrate_ms, own * extract_ms)
        spent_ms = work_ms + (1.0 - own) * extract_ms
        factor = SLOWER if spent_ms > self._share * self._usual_ms else FASTER
        self._scale = min(max(self._scale * factor, LEAST_SCALE), 1.0)
