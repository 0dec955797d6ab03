# SPDX-License-Identifier: Apache-2.0
"""How the threads of one of our processes share its interpreter and its processors."""

from __future__ import annotations

import sys

from threadpoolctl import threadpool_limits

SWITCH_S = 0.0005


def share_interpreter() -> None:
    """Apply the settings; call first thing in `main`.

    Threads hand over the interpreter's lock after `SWITCH_S` instead of 5 ms: what frames wait for
    takes and leaves it hundreds of times a picture. BLAS works in the thread that asks: its own
    threads spin while they wait for work, a sixth of a core, and stages are what runs side by side.
    """
    sys.setswitchinterval(SWITCH_S)
    threadpool_limits(1, user_api="blas")
