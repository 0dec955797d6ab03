# SPDX-License-Identifier: Apache-2.0
"""Sixteen bytes hold a splat well enough, in the layout that the Spark viewer reads."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from test_raster import scattered

from worldsystem_core.errors import ProtocolError
from worldsystem_core.splats.files import read_spz, save_splats, write_ply, write_spz
from worldsystem_core.splats.gaussians import Gaussians, matrices_of
from worldsystem_core.splats.packed import deflate, inflate, pack, unpack
from worldsystem_core.splats.raster_reference import pack_plainly


def test_packing_keeps_what_can_be_seen():
    some = scattered(500)
    back = unpack(pack(some))
    assert np.abs(back.means - some.means).max() < 5 * 2**-11
    assert np.abs(np.log(back.scales / some.scales)).max() < 0.5 * 21 / 254 + 1e-4
    turned = matrices_of(back.rotations) @ matrices_of(some.rotations).transpose(0, 2, 1)
    angle = np.degrees(np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert angle.max() < 2.0  # 8 bits of an angle, 8 + 8 of an axis
    assert np.abs(back.rgb - some.rgb).max() < 0.5 / 255 + 1e-6
    assert np.abs(back.opacities - some.opacities).max() < 0.5 / 255 + 1e-6


def test_the_words_are_those_of_spark():
    # worked out by hand from Spark 2.2's setPackedSplat
    one = Gaussians(
        np.float32([[1.0, -2.0, 0.5]]),
        np.float32([[1.0, np.exp(-12.0), 0.0]]),
        np.float32([[np.cos(np.pi / 6), 0, 0, np.sin(np.pi / 6)]]),
        np.float32([[1.0, 0.0, 0.2]]),
        np.float32([0.4]),
    )
    words = pack(one)[0]
    assert words[0] == 255 | 0 << 8 | 51 << 16 | 102 << 24
    assert words[1] == 0x3C00 | 0xC000 << 16
    assert words[2] == 0x3800 | 128 << 16 | 128 << 24
    assert words[3] == 146 | 1 << 8 | 0 << 16 | 85 << 24


def test_packing_is_that_of_the_plain_twin():
    some = scattered(2000)
    words, twin = pack(some), pack_plainly(some)
    octets = [w.view(np.uint8).astype(int) for w in (words, twin)]
    assert np.abs(octets[0] - octets[1]).max() <= 1  # where rounding is a toss-up
    assert (octets[0] != octets[1]).mean() < 1e-3


def test_deflated_planes_come_back_and_damage_is_an_error():
    words = pack(scattered(100))
    data = deflate(words)
    assert np.array_equal(inflate(data, 100), words)
    for broken, count in ((data[:-9], 100), (data, 99), (data, 101), (b"nonsense", 100)):
        with pytest.raises(ProtocolError):
            inflate(broken, count)


def test_a_file_that_is_no_spz_is_refused_however_much_it_claims_to_hold(tmp_path):
    path = write_spz(scattered(20), tmp_path / "world.spz")
    content = gzip.decompress(path.read_bytes())
    claims = struct.pack("<I", 1_000_000_000)
    for broken in (
        path.read_bytes()[:-20],
        content,  # not packed at all
        gzip.compress(content[:9]),
        gzip.compress(b"PLY " + content[4:]),
        gzip.compress(content[:-1]),
        gzip.compress(content + b"\0"),
        gzip.compress(content[:8] + claims + content[12:]),
    ):
        path.write_bytes(broken)
        with pytest.raises(ProtocolError):
            read_spz(path)


def test_none_packs_to_nothing():
    assert pack(Gaussians.empty()).shape == (0, 4)
    assert len(unpack(inflate(deflate(pack(Gaussians.empty())), 0))) == 0


def test_spz_and_ply_hold_the_same_splats(tmp_path):
    some = scattered(300)
    back = read_spz(write_spz(some, tmp_path / "world.spz"))
    assert np.abs(back.means - some.means).max() < np.median(some.scales.max(axis=1)) / 8
    assert np.abs(np.log(back.scales / some.scales)).max() < 0.5 / 16 + 1e-4
    assert np.abs(np.abs((back.rotations * some.rotations).sum(axis=1)) - 1).max() < 1e-4
    assert np.abs(back.rgb - some.rgb).max() < 0.02
    plyfile = pytest.importorskip("plyfile")
    rows = plyfile.PlyData.read(write_ply(some, tmp_path / "world.ply"))["vertex"]
    assert np.allclose(np.exp(rows["scale_1"]), some.scales[:, 1], rtol=1e-4)
    assert np.allclose(rows["rot_0"], some.rotations[:, 0])
    assert np.allclose(1 / (1 + np.exp(-rows["opacity"])), some.opacities, atol=2e-4)


@pytest.mark.parametrize("form", [".ply", ".spz"])
def test_splats_that_cannot_be_written_leave_the_file_before(tmp_path, full_disk, form):
    path = tmp_path / f"world{form}"
    assert save_splats(scattered(20), path)[0]
    before = path.read_bytes()
    full_disk()
    saved, why = save_splats(scattered(40), path)
    assert (saved, path.read_bytes()) == (False, before)
    assert "No space left" in why


@pytest.mark.parametrize(("name", "why"), [("world.ply", "no splats yet"), ("", "must end in")])
def test_nothing_and_nowhere_are_not_written(tmp_path, monkeypatch, name, why):
    monkeypatch.chdir(tmp_path)
    saved, told = save_splats(scattered(0) if name else scattered(3), Path(name))
    assert not saved
    assert why in told
    assert not list(tmp_path.iterdir())
