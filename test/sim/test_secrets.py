# SPDX-License-Identifier: Apache-2.0
"""What the drone must tell its server, it tells nobody else."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from worldsystem_core.errors import ConfigError
from worldsystem_sim.config import SimConfig
from worldsystem_sim.link import Link
from worldsystem_sim.truth import FrameRecord, load_truth, write_truth


@pytest.mark.parametrize(
    "url", ["ws://127.0.0.1:9/ws/video?token=s3kret", "ws://me:s3kret@127.0.0.1:9/ws/video"]
)
def test_a_link_that_breaks_says_where_and_no_secret(url, caplog):
    link = Link(url, 1)
    assert not asyncio.run(link.open())
    assert "127.0.0.1:9/ws/video" in caplog.text
    assert "s3kret" not in caplog.text + link.error


def test_the_ground_truth_holds_no_secret_of_the_address_and_is_read_back(tmp_path):
    config = SimConfig(url="ws://host:5001/?token=s3kret", duration_s=1.0, width=16, height=16)
    write_truth(tmp_path, config, [FrameRecord(0, 10**18, "sent")], Counter())
    assert "s3kret" not in (tmp_path / "scene.json").read_text()
    assert load_truth(tmp_path).config.seed == config.seed


@pytest.mark.parametrize("url", ["ws://me:s3/kret@host", "ws://me:12#s3kret@host"])
def test_an_address_that_a_password_ends_is_refused_without_it(url):
    with pytest.raises(ConfigError, match=r"ws://\*\*\*@host.*write it as") as refused:
        SimConfig(url=url)
    assert not [part for part in ("s3", "kret", "12#") if part in str(refused.value)]
