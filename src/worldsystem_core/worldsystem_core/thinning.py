# SPDX-License-Identifier: Apache-2.0
"""Which rows of a long record stay when it has reached its limit."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64


def rows_that_stay(stamps_ns: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "k"]:
    """About seven eighths of n rows: of the older half some go where they lie densest in time.

    Asked again and again as new rows come, the older half grows coarser evenly, however long the
    record; its first row and the newest half stay. With fewer than four rows, all do.
    """
    older = stamps_ns[: len(stamps_ns) // 2 + 1]
    gaps_ns = np.abs(older[2::2] - older[:-2:2])  # that every second row would leave
    densest = np.argsort(gaps_ns, kind="stable")[: (len(gaps_ns) + 1) // 2]
    return np.delete(np.arange(len(stamps_ns)), 2 * densest + 1)
