# SPDX-License-Identifier: Apache-2.0
"""After the warm-up no kernel is compiled any more, whatever the film."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import filmed_room
from numba.core.dispatcher import Dispatcher

from worldsystem_slam3r import precompile
from worldsystem_slam3r.backend import create_backend
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.geometric import bundle_kernels, pose, refine_kernels, sweep_kernels


def _compiled() -> dict[str, list[str]]:
    """The argument types that each kernel has been compiled for."""
    return {
        f"{module.__name__}.{name}": sorted(str(types) for types in kernel.signatures)
        for module in (bundle_kernels, pose, refine_kernels, sweep_kernels)
        for name, kernel in vars(module).items()
        if isinstance(kernel, Dispatcher)
    }


def test_a_film_needs_no_kernel_that_the_warm_up_did_not_compile():
    """In a process of its own: in this one other tests have compiled kernels, too."""
    code = "import test_precompile; test_precompile.follow_a_film()"
    here = Path(__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=here, check=True, timeout=250.0)


def follow_a_film() -> None:
    precompile.warm_up()
    ready = _compiled()
    backend = create_backend("geometric", Slam3rConfig(synchronous=True))
    film = filmed_room.frames(filmed_room.sideways_poses(30, 0.09), filmed_room.camera(480, 270))
    for frame in film:
        frame.rgb.flags.writeable = False
        backend.feed(frame)
    backend.finish()
    assert _compiled() == ready


def test_the_warm_up_of_one_process_happens_once(monkeypatch):
    precompile.warm_up_once()
    monkeypatch.setattr(precompile, "warm_up", lambda: 1 / 0)
    create_backend("geometric").finish()
