# SPDX-License-Identifier: Apache-2.0
"""When browsers are asked for key frames."""

import pytest

from worldsystem_ingest.webrtc.key_frames import KeyFrames


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def asked_at(clock: Clock, key_frames: KeyFrames, until_s: float, came=lambda now_s: False):
    """When it was asked within the next `until_s`, looked at every 20 ms."""
    began_s, times = clock.now_s, []
    for _ in range(round(until_s / 0.02)):
        clock.now_s += 0.02
        if came(clock.now_s - began_s):
            key_frames.came()
        if key_frames.due():
            times.append(pytest.approx(clock.now_s - began_s, abs=0.03))
    return times


def test_nobody_is_asked_before_anything_arrives():
    clock = Clock()
    assert asked_at(clock, KeyFrames(clock), 10.0) == []


def test_who_begins_without_one_is_asked_until_it_comes():
    clock = Clock()
    key_frames = KeyFrames(clock)
    key_frames.sending()
    assert asked_at(clock, key_frames, 1.5, lambda now_s: now_s > 1.4) == [0.2, 1.2]


def test_after_loss_one_is_asked_for_at_once_and_then_every_second():
    clock = Clock()
    key_frames = KeyFrames(clock)
    key_frames.sending()
    assert asked_at(clock, key_frames, 1.0, lambda now_s: now_s < 0.1) == []
    key_frames.want()
    assert asked_at(clock, key_frames, 1.5) == [0.02, 1.02]


def test_loss_soon_after_one_came_does_not_wait_for_a_second():
    clock = Clock()
    key_frames = KeyFrames(clock)
    key_frames.sending()
    assert asked_at(clock, key_frames, 0.5, lambda now_s: now_s > 0.46) == [0.2]
    key_frames.want()
    assert asked_at(clock, key_frames, 0.5) == [0.28]


def test_one_is_asked_for_every_four_seconds_anyway():
    clock = Clock()
    key_frames = KeyFrames(clock)
    key_frames.sending()
    key_frames.came()
    answered = asked_at(clock, key_frames, 10.0, lambda now_s: abs(now_s % 4.1 - 0.1) < 0.011)
    assert len(answered) == 2
