# SPDX-License-Identifier: Apache-2.0
"""Which raw pictures other processes are offered, and what to say when they would have more."""

from __future__ import annotations

import logging
import time

from worldsystem_core.frames import Frame

log = logging.getLogger(__name__)

LEAVING_S = 5.0
"""Readers in this process seem to be outside it for a second or so, longer under load."""


class RawOutside:
    """One stream's rule: offered once a picture has no side longer than `max_px`."""

    def __init__(self, max_px: int) -> None:
        self._max_px = max_px
        self._offered = self._told = False
        self._withheld_px, self._since_s = 0, 0.0

    def offers(self, frame: Frame) -> bool:
        """Whether `frame`, or one before it, is small enough."""
        longest_px = max(frame.width, frame.height)
        self._offered |= longest_px <= self._max_px
        if not self._offered and longest_px > self._withheld_px:
            self._since_s = self._since_s or time.monotonic()
            self._withheld_px = longest_px
        return self._offered

    def problem(self, readers: int) -> str:
        """What `readers` outside this process miss; logged once, empty when they miss nothing."""
        withheld = self._withheld_px and not self._offered
        if not withheld or not readers or time.monotonic() - self._since_s < LEAVING_S:
            return ""
        text = (
            f"pictures of {self._withheld_px} px are not offered to other processes, which listen "
            f"for them; set ingest.raw_outside_max_px to {self._withheld_px} or more"
        )
        if not self._told:
            self._told = True
            log.warning("%s", text)
        return text
