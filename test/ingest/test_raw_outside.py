# SPDX-License-Identifier: Apache-2.0
"""When it is told that others get no raw pictures, and when there is nothing to tell."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem_core.frames import Frame
from worldsystem_ingest import raw_outside
from worldsystem_ingest.raw_outside import LEAVING_S, RawOutside


def frame(width: int, height: int) -> Frame:
    return Frame(id=0, stamp_ns=0, rgb=np.zeros((height, width, 3), np.uint8))


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now_s = [100.0]
    monkeypatch.setattr(raw_outside.time, "monotonic", lambda: now_s[0])
    return now_s


def test_a_picture_whose_longest_side_is_at_the_limit_is_offered():
    assert RawOutside(64).offers(frame(64, 32))
    assert RawOutside(64).offers(frame(32, 64))
    assert not RawOutside(64).offers(frame(65, 32))


def test_once_offered_larger_ones_are_too():
    raw = RawOutside(64)
    assert not raw.offers(frame(80, 60))
    assert raw.offers(frame(64, 48))
    assert raw.offers(frame(80, 60))
    assert raw.problem(readers=1) == ""


def test_readers_that_may_still_prove_to_be_in_this_process_are_waited_for(clock, caplog):
    raw = RawOutside(64)
    assert raw.problem(readers=1) == "", "nothing has come yet"
    raw.offers(frame(80, 60))
    assert raw.problem(readers=1) == ""
    clock[0] += LEAVING_S
    raw.offers(frame(100, 60))
    assert raw.problem(readers=0) == ""
    assert "of 100 px" in raw.problem(readers=1)
    assert raw.problem(readers=2)
    assert len(caplog.records) == 1
