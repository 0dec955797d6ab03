# SPDX-License-Identifier: Apache-2.0
"""What image_transport makes of a picture and its format is the picture that was written."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from worldsystem_storage.picture_format import COLOUR_JPEG, picture_format

COLOURS = np.zeros((48, 64, 3), np.uint8)
COLOURS[:, :32] = (200, 90, 30)
COLOURS[:, 32:] = (10, 60, 220)


def as_image_transport(told: str, picture: bytes) -> np.ndarray:
    """The picture in RGB as compressed_image_transport's subscriber gives it: the pixels as they
    are decoded, named by the words before the semicolon, red and blue exchanged only where the
    rest says that blue came first."""
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    encoding, _, rest = told.partition(";")
    if encoding.startswith("mono"):
        assert pixels.ndim == 2
        return np.repeat(pixels[..., None], 3, axis=2)
    if encoding.startswith("rgb") and "compressed bgr" in rest:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return pixels


def file_of(pixels: np.ndarray, suffix: str, *settings: int) -> bytes:
    return cv2.imencode(suffix, pixels, list(settings))[1].tobytes()


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_keeps_its_colours(progressive):
    bgr = cv2.cvtColor(COLOURS, cv2.COLOR_RGB2BGR)
    jpeg = file_of(bgr, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    assert picture_format(jpeg) == COLOUR_JPEG
    sides = np.s_[:, [0, -1]]  # where the colours meet, those of JPEG run into each other
    shown = as_image_transport(picture_format(jpeg), jpeg)[sides]
    assert np.abs(shown.astype(int) - COLOURS[sides]).max() <= 2


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_png_keeps_its_colours_to_the_bit(kind):
    colours = COLOURS.astype(kind) * (257 if kind is np.uint16 else 1)
    png = file_of(cv2.cvtColor(colours, cv2.COLOR_RGB2BGR), ".png")
    told = picture_format(png)
    assert told.startswith(f"rgb{8 * colours.itemsize};")
    np.testing.assert_array_equal(as_image_transport(told, png), colours)


def test_a_png_with_transparency_keeps_its_colours():
    bgra = cv2.cvtColor(COLOURS, cv2.COLOR_RGB2BGRA)
    png = file_of(bgra, ".png")
    np.testing.assert_array_equal(as_image_transport(picture_format(png), png), COLOURS)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_grey_picture_is_told_as_grey(suffix):
    grey = np.full((48, 64), 130, np.uint8)
    picture = file_of(grey, suffix)
    told = picture_format(picture)
    assert told.startswith("mono8;")
    assert np.abs(as_image_transport(told, picture).astype(int) - 130).max() <= 1


def test_a_grey_png_of_16_bits_is_told_as_such():
    assert picture_format(file_of(np.ones((4, 4), np.uint16), ".png")).startswith("mono16;")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_was_cut_off_is_told_without_an_error(suffix):
    picture = file_of(COLOURS, suffix)
    codec = "png" if suffix == ".png" else "jpeg"
    for length in range(3 if suffix == ".jpg" else 4, len(picture), 7):
        assert codec in picture_format(picture[:length])
