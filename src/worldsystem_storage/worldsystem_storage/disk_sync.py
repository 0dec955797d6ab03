# SPDX-License-Identifier: Apache-2.0
"""What was flushed made safe from a power cut, beside the thread that writes.

A disk that is busy takes seconds to confirm; the writer must not wait for it. Requests that come
while one is under way become one.
"""

from __future__ import annotations

import logging
import os
import threading
import time

log = logging.getLogger(__name__)

_CLOSE_S = 10.0


class DiskSync:
    """Calls `fdatasync` for the newest file it was given, in a thread of its own."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._wanted: tuple[int, float] | None = None
        self._busy_since_s: float | None = None
        self._closed = False
        self.syncs = 0
        self.failure = ""
        self._refusal: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="bag_sync", daemon=True)
        self._thread.start()

    def request(self, descriptor: int) -> None:
        """Sync what has been written to the open file `descriptor` so far; returns at once."""
        with self._changed:
            previous, self._wanted = self._wanted, (os.dup(descriptor), time.monotonic())
            if previous:
                os.close(previous[0])
                self._wanted = (self._wanted[0], previous[1])
            self._changed.notify()

    def check(self) -> None:
        """Raise what the disk said when it refused to confirm something, once."""
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise OSError(refusal.errno, self.failure) from refusal

    def behind_s(self) -> float:
        """How long the oldest flush has been waiting for the disk's word; 0 when none waits."""
        with self._changed:
            waiting = [self._busy_since_s, self._wanted[1] if self._wanted else None]
            since = [s for s in waiting if s is not None]
        return time.monotonic() - min(since) if since else 0.0

    def close(self) -> None:
        """Finish the request that waits and end the thread, within 10 s."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            log.warning("the disk has not confirmed the recording's end in %.0f s", _CLOSE_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy_since_s = None
                while self._wanted is None and not self._closed:
                    self._changed.wait(1.0)
                if self._wanted is None:
                    return
                (descriptor, since_s), self._wanted = self._wanted, None
                self._busy_since_s = since_s
            self._sync(descriptor)

    def _sync(self, descriptor: int) -> None:
        try:
            os.fdatasync(descriptor)
            self.syncs += 1
        except OSError as error:  # the system says it once, and writes that come next may succeed
            self.failure = f"the disk refuses to confirm what was written: {error.strerror}"
            self._refusal = error
            log.error("%s", self.failure)
        finally:
            os.close(descriptor)
