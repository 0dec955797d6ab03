# SPDX-License-Identifier: Apache-2.0
"""One scene and one small camera for all tests of the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from worldsystem_sim.config import SimConfig
from worldsystem_sim.render import Renderer
from worldsystem_sim.scene import Scene, build_scene


@pytest.fixture(scope="session")
def scene() -> Scene:
    return build_scene(1)


@pytest.fixture(scope="session")
def config() -> SimConfig:
    return SimConfig(width=160, height=90, duration_s=2.0, fps=10.0, bitrate_kbps=600)


@pytest.fixture(scope="session")
def renderer(scene: Scene, config: SimConfig) -> Renderer:
    return Renderer(scene, config.camera)


@pytest.fixture(scope="session", autouse=True)
def cache_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLDSYSTEM_CACHE", str(folder))
        yield folder
