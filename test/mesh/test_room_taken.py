# SPDX-License-Identifier: Apache-2.0
"""A mesher takes memory for what it holds, not for what it may hold."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

EMPTY = """
    from worldsystem_core.freed_memory import keep_freed_memory
    from worldsystem_mesh.config import MeshConfig
    from worldsystem_mesh.launcher import Launcher
    from worldsystem_mesh.mesher import Mesher
    from worldsystem_mesh.volume import BlockVolume

    def resident_mb():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 1e6

    keep_freed_memory()
    launcher = Launcher("cpu", 1)
    before_mb = resident_mb()
    volume = BlockVolume(MeshConfig(device="cpu", memory_mb=1000), launcher, 0.02)
    mesher = Mesher(MeshConfig(device="cpu", memory_mb=1000))
    print(volume.slot_limit, resident_mb() - before_mb)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of its pages")
def test_room_for_hundreds_of_thousands_of_blocks_takes_memory_only_as_they_come():
    code = textwrap.dedent(EMPTY)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    slots, taken_mb = told.stdout.split()[-2:]
    assert int(slots) > 200_000
    assert float(taken_mb) < 30.0
