# SPDX-License-Identifier: Apache-2.0
"""The page's messages, as a client in Python reads them."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from worldsystem_core.errors import ProtocolError
from worldsystem_viewer.protocol import decode, encode


def page_protocol(data: bytes) -> None:
    """A message decodes or is damaged; what was decoded is the same when encoded again."""
    try:
        message = decode(data)
    except ProtocolError:
        return
    again = decode(encode(message))
    assert type(again) is type(message)
    for item in fields(message):
        one, other = getattr(message, item.name), getattr(again, item.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            assert one.tobytes() == other.tobytes()
        else:
            assert repr(one) == repr(other)
