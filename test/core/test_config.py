# SPDX-License-Identifier: Apache-2.0
"""Wrong settings are refused with an answer that names the right ones."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from worldsystem_core.config import Config, config_from, param, settings_of
from worldsystem_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Sample(Config):
    voxel_m: float = param(0.02, "voxel edge [m]", low=0.002, high=0.5)
    device: str = param("cuda", "where", choices=("cuda", "cpu"))
    count: int = param(3, "how many")


def test_a_whole_number_serves_as_a_float_but_not_the_other_way_round():
    assert config_from(Sample, {"voxel_m": 0.5}).voxel_m == 0.5
    with pytest.raises(ConfigError, match="must be int"):
        Sample(count=1.5)
    with pytest.raises(ConfigError, match="must be int, not bool"):
        Sample(count=True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"voxl_m": 0.1}, ("voxl_m", "voxel_m")),
        ({"voxel_m": 0.6}, ("0.6", "0.002", "0.5")),
        ({"device": "abacus"}, ("abacus", "cuda, cpu")),
        ({"voxel_m": float("nan")}, ("voxel_m", "nan is not a number")),
    ],
)
def test_an_error_names_the_value_and_what_is_allowed(given, words):
    with pytest.raises(ConfigError) as error:
        config_from(Sample, given)
    assert all(word in str(error.value) for word in words)


def test_the_reference_lists_every_setting_with_its_limits():
    voxel, device, count = settings_of(Sample)
    assert (voxel.name, voxel.default, voxel.limits) == ("voxel_m", 0.02, "0.002 … 0.5")
    assert device.limits == "cuda, cpu"
    assert count.help == "how many"
