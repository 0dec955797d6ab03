# SPDX-License-Identifier: Apache-2.0
"""Where in a stream decoding may begin."""

from __future__ import annotations

from enum import Enum


class Entry(Enum):
    """How good an access unit is to begin at."""

    NONE = "none"  # needs pictures before it
    INTRA = "intra"  # needs none itself, but later pictures may refer to ones before it
    RECOVERY = "recovery"  # the encoder says that pictures are whole from here or soon after
    KEY = "key"  # nothing after it refers to anything before it
