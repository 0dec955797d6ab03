# SPDX-License-Identifier: Apache-2.0
"""Damaged, incomplete and changing streams: what can be saved is, what cannot has a reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from coding_lab import (
    AccessUnit,
    Coding,
    coded,
    cut,
    decode,
    losses_in,
    moving_scene,
    pictures_in,
    without_sets,
)

from worldsystem_core.byte_stream import joined, nal_units
from worldsystem_ingest.codec.decoder import Decoder, DecoderSettings
from worldsystem_ingest.codec.entry import Entry
from worldsystem_ingest.codec.h264 import SEI, entry_of

LIVE = DecoderSettings(low_delay=True)
FILE = DecoderSettings(threads=3)
SHOW = DecoderSettings(low_delay=True, show_broken=True, threads=1)


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_many_threads_give_the_pictures_of_one(codec, b_frames):
    units = coded(moving_scene(24), Coding(codec=codec, b_frames=b_frames))
    one = decode(units, DecoderSettings(codec=codec))
    many = decode(units, DecoderSettings(codec=codec, threads=4))
    assert [o.index for o in one] == [o.index for o in many]
    assert len(pictures_in(one)) == 24
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("damaged", [0, 3, 6, 11])
def test_no_picture_that_depends_on_a_broken_one_is_shown(threads, b_frames, damaged):
    units = coded(moving_scene(30), Coding(b_frames=b_frames))
    clean = pictures_in(decode(units))
    units[damaged] = cut(units[damaged])
    outcomes = decode(units, DecoderSettings(threads=threads))
    for index, rgb in pictures_in(outcomes).items():
        np.testing.assert_array_equal(rgb, clean[index])
    lost = losses_in(outcomes)
    assert lost[damaged] == "corrupt"
    next_key = 10 * (damaged // 10 + 1)
    assert set(lost) <= set(range(damaged, next_key + 3))  # B-frames before a key frame come after
    assert set(lost.values()) <= {"corrupt", "no_key_frame"}


def test_live_goes_on_at_the_next_key_frame_after_a_broken_picture():
    units = coded(moving_scene(30), Coding())
    units[4] = cut(units[4])
    outcomes = decode(units, LIVE)
    assert losses_in(outcomes) == {4: "corrupt", **dict.fromkeys(range(5, 10), "no_key_frame")}


def test_broken_pictures_are_shown_and_marked_when_wanted():
    units = coded(moving_scene(30), Coding())
    clean = pictures_in(decode(units))
    units[4] = cut(units[4])
    outcomes = decode(units, SHOW)
    assert len(pictures_in(outcomes)) == 30
    assert [o.index for o in outcomes if not o.whole] == list(range(4, 10))
    assert np.any(outcomes[4].rgb != clean[4])
    np.testing.assert_array_equal(outcomes[12].rgb, clean[12])


def test_with_broken_pictures_shown_a_gap_does_not_end_the_video():
    units = coded(moving_scene(20), Coding())
    decoder, outcomes = Decoder(SHOW), []
    for index in (*range(4), *range(6, 20)):
        outcomes += decoder.missing() if index == 6 else []
        outcomes += decoder.feed(index, units[index].data, units[index].is_key)
    assert [o.index for o in outcomes] == [*range(4), *range(6, 20)]
    assert [o.index for o in outcomes if not o.whole] == [6, 7, 8, 9]


def test_showing_broken_pictures_still_begins_at_a_key_frame():
    units = coded(moving_scene(20), Coding())[5:]
    assert set(losses_in(decode(units, SHOW))) == set(range(5))


def test_parameter_sets_that_never_come_are_named_and_then_waited_for():
    units = coded(moving_scene(40), Coding())
    bare = [without_sets(unit) for unit in units]
    assert set(losses_in(decode(bare, LIVE)).values()) == {"no_key_frame", "no_parameter_sets"} - {
        "no_key_frame"
    }
    outcomes = decode(bare[:20] + units[20:30] + bare[30:], LIVE)
    assert set(pictures_in(outcomes)) == set(range(20, 40))
    assert losses_in(outcomes) == dict.fromkeys(range(20), "no_parameter_sets")


def test_one_missing_kind_of_parameter_set_is_as_bad():
    units = [without_sets(u, (8,)) for u in coded(moving_scene(10), Coding())]
    assert losses_in(decode(units, LIVE)) == dict.fromkeys(range(10), "no_parameter_sets")


def test_parameter_sets_are_kept_for_later_key_frames():
    units = coded(moving_scene(30), Coding())
    later = [without_sets(unit) if n else unit for n, unit in enumerate(units)]
    later[14] = cut(later[14])
    assert set(pictures_in(decode(later, LIVE))) == {*range(14), *range(20, 30)}


@pytest.mark.parametrize("settings", [LIVE, FILE, SHOW])
def test_a_change_of_size_costs_no_picture(settings):
    small = coded(moving_scene(14), Coding())
    large = coded(moving_scene(16, 320, 192), Coding())
    outcomes = decode(small + large + small, settings)
    assert [o.index for o in outcomes] == list(range(44))
    widths = [o.rgb.shape[1] for o in outcomes]
    assert widths == [160] * 14 + [320] * 16 + [160] * 14


def test_a_change_of_size_costs_no_picture_with_b_frames():
    small = coded(moving_scene(14), Coding(b_frames=2))
    large = coded(moving_scene(16, 320, 192), Coding(b_frames=3))
    outcomes = decode(small + large, FILE)
    assert [o.rgb.shape[1] for o in outcomes] == [160] * 14 + [320] * 16


def intra_refresh(count: int) -> list[AccessUnit]:
    """One IDR picture, then columns of intra blocks that sweep over the picture."""
    return coded(moving_scene(count), Coding(gop=12, params="intra-refresh=1"))


@pytest.mark.parametrize("settings", [LIVE, DecoderSettings(), FILE])
def test_a_stream_with_intra_refresh_can_be_entered_in_the_middle(settings):
    units = intra_refresh(80)
    clean = pictures_in(decode(units))
    assert sum(entry_of(unit.data) is Entry.KEY for unit in units) == 1
    first = 15
    outcomes = decode(units[first:], settings, first=first)
    shown = pictures_in(outcomes)
    assert set(losses_in(outcomes).values()) == {"no_key_frame"}
    assert min(shown) <= first + 24  # the next recovery point, and one sweep
    for index in range(60, 80):
        np.testing.assert_array_equal(shown[index], clean[index])


def test_intra_refresh_goes_on_after_a_broken_picture():
    units = intra_refresh(80)
    clean = pictures_in(decode(units))
    units[20] = cut(units[20])
    outcomes = decode(units, LIVE)
    assert set(losses_in(outcomes)) <= set(range(20, 48))
    np.testing.assert_array_equal(pictures_in(outcomes)[79], clean[79])


def without_kinds(unit: AccessUnit, *kinds: int) -> AccessUnit:
    kept = [nal for nal in nal_units(unit.data) if nal[0] & 31 not in kinds]
    return AccessUnit(joined(kept), False, unit.shows)


@pytest.mark.parametrize("settings", [LIVE, DecoderSettings(), FILE])
def test_without_any_key_frame_intra_pictures_will_do_after_a_while(settings):
    units = coded(moving_scene(200), Coding(gop=20, b_frames=1, params="open-gop=1"))
    without_keys = [without_kinds(units[0], 1, 5), *(without_kinds(u, SEI) for u in units[1:])]
    assert not any(entry_of(u.data) in (Entry.KEY, Entry.RECOVERY) for u in without_keys)
    intra = [n for n, unit in enumerate(without_keys) if entry_of(unit.data) is Entry.INTRA]
    clean, shown = pictures_in(decode(units)), pictures_in(decode(without_keys, settings))
    assert min(shown) == next(n for n in intra if n >= 90)  # 3 s of waiting
    wrong = [n for n, rgb in shown.items() if np.any(rgb != clean[n])]
    assert wrong == []
    assert len(shown) >= 98


@pytest.mark.parametrize("settings", [LIVE, FILE, SHOW])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_fed_every_unit_is_settled_once(settings, seed):
    rng = np.random.default_rng(seed)
    units = coded(moving_scene(60), Coding(b_frames=seed % 2 * 2))
    for index, unit in enumerate(units):
        data = bytearray(unit.data)
        if rng.random() < 0.2:
            for at in rng.integers(5, len(data), 5):
                data[at] = rng.integers(0, 256)
        elif rng.random() < 0.1:
            data = data[: rng.integers(0, len(data))]
        units[index] = AccessUnit(bytes(data), unit.is_key, unit.shows)
    decode(units, settings)


def test_a_decoder_that_is_dropped_while_its_threads_work_does_not_hang():
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from coding_lab import Coding, coded, moving_scene
from worldsystem_ingest.codec.decoder import Decoder, DecoderSettings
units = coded(moving_scene(30, 640, 480), Coding())
for _ in range(20):
    decoder = Decoder(DecoderSettings(threads=3))
    for index, unit in enumerate(units[:28]):
        decoder.feed(index, unit.data, unit.is_key)
    del decoder
"""
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
