# SPDX-License-Identifier: Apache-2.0
"""A GPU for which Warp makes no kernels any more is passed by."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import warp as wp

from worldsystem_core.errors import BackendError
from worldsystem_mesh import precompile
from worldsystem_mesh.launcher import Launcher, start_warp


@pytest.fixture
def old_card(monkeypatch):
    start_warp()
    card = SimpleNamespace(arch=61, alias="cuda:0")
    monkeypatch.setattr(wp, "is_cuda_available", lambda: True)
    monkeypatch.setattr(wp, "get_cuda_devices", lambda: [card])
    monkeypatch.setattr(wp, "get_cuda_supported_archs", lambda: [75, 80, 90])


@pytest.mark.usefixtures("old_card")
def test_beside_a_gpu_that_is_too_old_for_warp_the_mesh_is_made_on_the_processor(monkeypatch):
    launcher = Launcher("auto", 1)
    assert launcher.device == "cpu"
    launcher.close()
    with pytest.raises(BackendError, match="too old for Warp"):
        Launcher("cuda", 1)
    compiled = []
    monkeypatch.setattr(wp, "load_module", lambda _module, device=None: compiled.append(device))
    precompile.precompile()
    assert compiled == [["cpu"]] * len(precompile.MODULES)
