# SPDX-License-Identifier: Apache-2.0
"""Each picture ends in the video, as JPEG, or counted, however senders take turns."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem_core.frames import EncodedFrame, Frame
from worldsystem_storage.unencoded_pictures import UnencodedPictures

UNDECIDED = 30


class Stream:
    """Pictures and units of a stream, by number, and what was recorded of it."""

    def __init__(self) -> None:
        self.wanted = True
        self.pictures = UnencodedPictures(lambda: self.wanted)
        self.recorded: list[int] = []

    def unit(self, number: int) -> EncodedFrame:
        return EncodedFrame(id=number, stamp_ns=number, arrival_ns=0, data=b"", is_key=False)

    def frame(self, number: int) -> Frame:
        return Frame(id=number, stamp_ns=number, rgb=np.zeros((4, 4, 3), np.uint8))

    def take(self, *numbers: int) -> None:
        """Pictures without encoded video."""
        for number in numbers:
            taken = self.pictures.take(self.frame(number))
            self.recorded += [each.stamp_ns for each in taken]

    def take_encoded(self, *numbers: int, delay: int = 0) -> None:
        """Units, each with the picture of the unit `delay` before; then those that are left."""
        for number in numbers:
            self.pictures.encoded(self.unit(number))
            if number - delay >= numbers[0]:
                self.take(number - delay)
        self.take(*numbers[len(numbers) - delay :])

    def end(self) -> None:
        self.recorded += [each.stamp_ns for each in self.pictures.rest()]

    @property
    def dropped(self) -> dict[str, int]:
        return {reason: count for reason, count in self.pictures.dropped.items() if count}


@pytest.fixture
def stream() -> Stream:
    return Stream()


def test_pictures_without_units_wait_until_no_unit_is_to_be_expected(stream):
    stream.take(*range(UNDECIDED - 1))
    assert stream.recorded == []
    stream.take(UNDECIDED - 1)
    assert stream.recorded == list(range(UNDECIDED))
    stream.take(UNDECIDED)
    assert stream.recorded == list(range(UNDECIDED + 1))


def test_those_that_wait_at_the_end_are_recorded(stream):
    stream.take(1, 2, 3)
    stream.end()
    assert stream.recorded == [1, 2, 3]
    stream.end()
    assert stream.recorded == [1, 2, 3]


@pytest.mark.parametrize("delay", [0, 1, 20])
def test_no_picture_whose_unit_came_is_recorded_however_late_it_is_decoded(stream, delay):
    stream.take_encoded(*range(100), delay=delay)
    stream.end()
    assert (stream.recorded, stream.dropped) == ([], {})


@pytest.mark.parametrize("delay", [0, 20])
def test_each_change_of_sender_costs_and_doubles_nothing(stream, delay):
    stream.take_encoded(*range(50), delay=delay)
    stream.take(*range(50, 100))
    stream.take_encoded(*range(100, 150), delay=delay)
    stream.take(*range(150, 200))
    stream.end()
    assert stream.recorded == [*range(50, 100), *range(150, 200)]
    assert stream.dropped == {}


def test_a_sender_with_video_after_one_without_is_not_recorded_as_jpeg(stream):
    stream.take(*range(40))
    stream.take_encoded(*range(40, 80))
    assert stream.recorded == list(range(40))


def test_few_pictures_between_two_videos_are_let_go_and_counted(stream):
    stream.take_encoded(*range(10))
    stream.take(10, 11, 12)
    stream.take_encoded(*range(13, 23))
    stream.end()
    assert (stream.recorded, stream.dropped) == ([], {"too_few": 3})


def test_a_unit_that_its_picture_overtook_takes_it_back(stream):
    stream.take(1)
    stream.pictures.encoded(stream.unit(1))
    stream.end()
    assert (stream.recorded, stream.dropped) == ([], {})


def test_pictures_that_are_crowded_out_count_unless_they_are_in_the_video(stream):
    stream.pictures.crowded_out(stream.frame(1))
    stream.pictures.encoded(stream.unit(1))  # it waited while the picture did not fit
    stream.take_encoded(2)
    assert stream.dropped == {}
    stream.take(*range(3, 40))
    stream.pictures.crowded_out(stream.frame(40))
    stream.pictures.crowded_out(stream.frame(41))
    stream.take(42)
    assert stream.dropped == {"recorder_busy": 2}
    stream.pictures.crowded_out(stream.frame(43))
    stream.end()
    assert stream.dropped == {"recorder_busy": 3}


def test_pictures_that_are_not_wanted_are_neither_kept_nor_counted(stream):
    stream.wanted = False
    stream.take(*range(50))
    stream.pictures.crowded_out(stream.frame(50))
    stream.end()
    assert (stream.recorded, stream.dropped) == ([], {})
    stream.wanted = True
    stream.take(*range(51, 101))
    assert stream.recorded == list(range(51, 101))


def test_a_recording_that_begins_amid_a_video_holds_no_jpeg_of_it(stream):
    stream.wanted = False
    for number in range(5):
        stream.pictures.encoded(stream.unit(number))
    stream.wanted = True
    stream.take(*range(5))
    stream.end()
    assert (stream.recorded, stream.dropped) == ([], {})


def test_a_picture_without_pixels_is_counted(stream):
    empty = Frame(id=1, stamp_ns=1, rgb=np.zeros((0, 0, 3), np.uint8))
    assert stream.pictures.take(empty) == []
    assert stream.dropped == {"not_encodable": 1}
