# SPDX-License-Identifier: Apache-2.0
"""Known colours come out as they went in, whatever the matrix, the range and the pixel format."""

from __future__ import annotations

import av
import numpy as np
import pytest
from coding_lab import Coding, coded, decode, moving_scene, pictures_in

from worldsystem_ingest.codec.decoder import DecoderSettings
from worldsystem_ingest.codec.pictures import RgbConversion

PATCHES = [
    (255, 255, 255),
    (0, 0, 0),
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (128, 128, 128),
    (200, 80, 40),
    (20, 180, 220),
]
BT709, UNTAGGED, BT470BG, BT601, BT2020 = 1, 2, 5, 6, 9
WEIGHTS = {  # of red and blue in luma
    BT709: (0.2126, 0.0722),
    UNTAGGED: (0.299, 0.114),
    BT470BG: (0.299, 0.114),
    BT601: (0.299, 0.114),
    BT2020: (0.2627, 0.0593),
}
FORMATS = {
    "yuv420p": 8,
    "nv12": 8,
    "yuv422p": 8,
    "yuv444p": 8,
    "yuv420p10le": 10,
    "yuv422p10le": 10,
}


def patch(
    rgb: tuple[int, int, int], pix_fmt: str, matrix: int, *, full: bool, size=(64, 48)
) -> av.VideoFrame:
    """A picture of one colour, computed from the matrix' definition (ITU-T H.273, 8.3)."""
    red, green, blue = (value / 255 for value in rgb)
    k_red, k_blue = WEIGHTS[matrix]
    luma = k_red * red + (1 - k_red - k_blue) * green + k_blue * blue
    cb, cr = (blue - luma) / 2 / (1 - k_blue), (red - luma) / 2 / (1 - k_red)
    depth = FORMATS.get(pix_fmt, 8)
    step, most = 2 ** (depth - 8), 2**depth - 1
    if full:
        levels = [luma * most, cb * most + 2 ** (depth - 1), cr * most + 2 ** (depth - 1)]
    else:
        levels = [step * (16 + 219 * luma), step * (128 + 224 * cb), step * (128 + 224 * cr)]
    levels = [min(most, round(level)) for level in levels]
    picture = av.VideoFrame(*size, pix_fmt)
    picture.colorspace, picture.color_range = matrix, 2 if full else 1
    for number, plane in enumerate(picture.planes):
        samples = np.frombuffer(plane, np.uint8 if depth == 8 else np.uint16)
        if pix_fmt == "nv12" and number == 1:
            samples[0::2], samples[1::2] = levels[1:]
        else:
            samples[:] = levels[number]
    return picture


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("pix_fmt", FORMATS)
def test_a_patch_has_its_colour_again(pix_fmt, matrix, full):
    convert = RgbConversion()
    for colour in PATCHES:
        rgb = convert(patch(colour, pix_fmt, matrix, full=full))
        assert np.abs(rgb.astype(int) - colour).max() <= 3  # of rounding to 8 bits, twice


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("matrix", [BT709, BT601])
def test_colours_survive_the_codec_and_a_change_of_format(pix_fmt, matrix):
    units = coded([patch((200, 80, 40), "yuv420p", BT709, full=False)] * 3, Coding(matrix=BT709))
    full = pix_fmt == "yuvj420p"
    coding = Coding(pix_fmt=pix_fmt, matrix=matrix, full_range=full)
    units += coded([patch((20, 180, 220), pix_fmt, matrix, full=full)] * 3, coding)
    shown = pictures_in(decode(units, DecoderSettings(low_delay=True)))
    assert len(shown) == 6
    for index, rgb in shown.items():
        colour = (200, 80, 40) if index < 3 else (20, 180, 220)
        assert np.abs(rgb.astype(int) - colour).max() <= 6  # and of the codec's quantisation


@pytest.mark.parametrize("size", [(64, 48), (66, 50), (854, 480), (63, 47)])
def test_any_size_gives_a_contiguous_read_only_array(size):
    pix_fmt = "yuv444p" if size[0] % 2 else "yuv420p"
    units = coded(moving_scene(3, *size), Coding(pix_fmt=pix_fmt))
    shown = pictures_in(decode(units))
    assert sorted(shown) == [0, 1, 2]
    for rgb in shown.values():
        assert rgb.shape == (size[1], size[0], 3)
        assert rgb.flags.c_contiguous
        assert not rgb.flags.writeable


def test_the_conversion_writes_into_the_array_that_is_handed_on():
    rgb = RgbConversion()(patch((10, 20, 30), "yuv420p", BT709, full=False, size=(640, 480)))
    assert not rgb.flags.owndata


def test_a_picture_stays_when_later_ones_are_converted():
    convert = RgbConversion()
    first = convert(patch((200, 80, 40), "yuv420p", BT709, full=False))
    before = first.copy()
    for _ in range(50):
        convert(patch((20, 180, 220), "yuv420p", BT709, full=False))
    np.testing.assert_array_equal(first, before)
