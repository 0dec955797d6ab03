# SPDX-License-Identifier: Apache-2.0
"""Encoding, the cache of flights, and reading a flight without a network."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from worldsystem_core.wire import PacketType
from worldsystem_sim import cache, offline
from worldsystem_sim.encode import packets_of


def test_a_second_read_comes_from_the_cache_with_the_same_bytes(config):
    first = [unit.annex_b for unit in cache.access_units(config)]
    calls: list[tuple[int, int]] = []
    second = [unit.annex_b for unit in cache.access_units(config, lambda *c: calls.append(c))]
    assert second == first
    assert calls == [(20, 20)]


def test_rendering_anew_gives_the_same_bytes(config):
    first = [unit.annex_b for unit in cache.access_units(config)]
    cache.cache_path(config).unlink()
    assert [unit.annex_b for unit in cache.access_units(config)] == first


def test_a_damaged_cache_file_is_made_anew(config):
    first = [unit.annex_b for unit in cache.access_units(config)]
    path = cache.cache_path(config)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(broken)
        assert [unit.annex_b for unit in cache.access_units(config)] == first
        assert path.read_bytes() == whole


def test_an_abandoned_rendering_leaves_no_file(config, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDSYSTEM_CACHE", str(tmp_path))
    units = cache.access_units(replace(config, seed=9))
    next(units)
    del units  # nobody reads on
    assert list(tmp_path.rglob("*")) == []


def test_a_cache_that_cannot_be_used_costs_no_picture(config, tmp_path, monkeypatch, caplog):
    first = [unit.annex_b for unit in cache.access_units(config)]
    (tmp_path / "file").touch()
    monkeypatch.setenv("WORLDSYSTEM_CACHE", str(tmp_path / "file" / "cache"))
    assert [unit.annex_b for unit in cache.access_units(config)] == first
    assert "not kept for the next time" in caplog.text


def test_a_disk_that_fills_up_costs_no_picture_and_nothing_is_left(config, tmp_path, monkeypatch):
    first = [unit.annex_b for unit in cache.access_units(config)]
    monkeypatch.setenv("WORLDSYSTEM_CACHE", str(tmp_path))
    path, put_in_place = cache.cache_path(config), os.replace

    def full(source: str | Path, target: str | Path) -> None:
        if Path(target) == path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put_in_place(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert [unit.annex_b for unit in cache.access_units(config)] == first
    assert list(path.parent.iterdir()) == []


def test_every_setting_of_the_picture_has_its_own_cache_file(config):
    others = [replace(config, seed=2), replace(config, fps=5.0), replace(config, exposure=1.0)]
    assert len({cache.cache_path(c) for c in [config, *others]}) == 4
    assert cache.cache_path(replace(config, loss=0.5)) == cache.cache_path(config)


def test_a_key_frame_comes_each_second_with_its_parameter_sets(config):
    units = list(cache.access_units(config))
    assert [i for i, unit in enumerate(units) if unit.is_key] == [0, 10]
    kinds = [packet.type for packet in packets_of(units[10], 10, 5)]
    assert kinds == [PacketType.SPS, PacketType.PPS, PacketType.KEY_FRAME]
    assert [packet.type for packet in packets_of(units[11], 11, 5)] == [PacketType.FRAME]


def test_decoded_frames_show_what_was_rendered(config, renderer):
    frames = list(offline.frames(config))
    assert [frame.id for frame, _ in frames] == list(range(20))
    for frame, pose in frames[::7]:
        difference = frame.rgb.astype(float) - renderer.render(pose).rgb
        assert np.sqrt(np.mean(difference**2)) < 30.0  # heavy compression, the right picture
    assert np.diff([frame.stamp_ns for frame, _ in frames]).tolist() == [100_000_000] * 19


def test_views_give_the_truth_of_the_chosen_frames(config, renderer):
    (view,) = offline.views(config, [13])
    assert view.frame_number == 13
    assert np.array_equal(view.ids, renderer.render(view.world_from_cam).ids)
    assert not list(offline.views(config, []))
