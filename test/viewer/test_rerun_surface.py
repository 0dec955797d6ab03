# SPDX-License-Identifier: Apache-2.0
"""How often a part of the surface is logged to Rerun."""

from __future__ import annotations

import pytest
from world_for_viewers import delta, growing_ground

from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.rerun_sink import RerunSink

pytest.importorskip("rerun", reason="rerun-sdk is not installed")


def test_a_part_that_changes_while_it_is_logged_waits_for_the_next_time(tmp_path):
    config = ViewerConfig(rerun=True, rerun_serve=False, rerun_file=str(tmp_path / "run.rrd"))
    sink, logged = RerunSink(config), []
    blocks = list(next(iter(growing_ground())).blocks[:1])

    class Entities:
        def chunk(self, index, surface):
            logged.append(index)
            assert len(logged) < 10
            sink.mesh(delta(blocks, len(logged)))

        def renew(self, mesh_of):
            pass

    sink._entities = Entities()
    sink.mesh(delta(blocks, 0))
    sink._log_surface()
    assert len(logged) == 1
    sink._log_surface()
    assert len(logged) == 2
