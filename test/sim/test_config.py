# SPDX-License-Identifier: Apache-2.0
"""Settings with which no flight could be drawn or sent are refused, and told how to mend them."""

from __future__ import annotations

import pytest

from worldsystem_core.errors import ConfigError
from worldsystem_sim.config import SimConfig


@pytest.mark.parametrize("name", ["width", "height"])
def test_an_odd_picture_is_refused_with_its_even_neighbours(name):
    with pytest.raises(ConfigError, match=f"{name} = 361 is odd.* take 360 or 362"):
        SimConfig(**{name: 361})


@pytest.mark.parametrize(
    "url",
    [
        "ws://h:99999",
        "ws://h:abc",
        "ws://h:0",
        "ws://:5001",
        "ws://[::1:5001",
        "ws://h#5001",
        "127.0.0.1:5001",
        "localhost:5001",
        "http://h:5001",
        "",
    ],
)
def test_what_is_no_address_of_a_server_is_refused_with_one_that_is(url):
    with pytest.raises(ConfigError, match="write it as ws://127"):
        SimConfig(url=url)


@pytest.mark.parametrize(
    "url", ["ws://h", "wss://h:443/", "ws://[::1]:5001", "ws://u@h:1/under?token=x/"]
)
def test_an_address_of_a_server_is_right(url):
    assert SimConfig(url=url).url == url


@pytest.mark.parametrize("name", ["seed", "clock_offset_s"])
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_beyond_what_the_drone_can_count_are_refused(name, sign):
    number = sign * 2**63
    with pytest.raises(ConfigError, match="is outside"):
        SimConfig(**{name: number if name == "seed" else float(number)})
