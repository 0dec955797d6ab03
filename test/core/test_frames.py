# SPDX-License-Identifier: Apache-2.0
"""What a frame takes for a picture."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem_core.errors import NotAPicture
from worldsystem_core.frames import Frame


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((48, 64, 4), np.uint8),
        np.zeros((48, 64), np.uint8),
        np.zeros((48, 64, 3), np.float64),
        np.zeros((48, 64, 3), np.uint16),
    ],
    ids=["rgba", "grey", "float", "16_bit"],
)
def test_what_is_no_picture_of_three_bytes_a_pixel_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(NotAPicture, match=r"frame 3: rgb is .* \(height, width, 3\)"):
        Frame(id=3, stamp_ns=3, rgb=picture)
    assert picture.flags.writeable, "what was refused is still the caller's"


def test_a_mirrored_view_of_a_picture_is_one() -> None:
    bgr = np.zeros((48, 64, 3), np.uint8)
    assert Frame(id=0, stamp_ns=0, rgb=bgr[..., ::-1]).width == 64
