# SPDX-License-Identifier: Apache-2.0
"""What was put off, because it takes more than its share of the time, is done in the end."""

from __future__ import annotations

from drifting_backend import DriftingBackend
from test_graph_backend import over, path_error, ring  # noqa: F401

from worldsystem_core.reconstruction import MovedKeyframes
from worldsystem_slam3r.maps import keeper
from worldsystem_slam3r.maps.content import SavedMap
from worldsystem_slam3r.session import backend


def drifting(ring):  # noqa: F811
    return DriftingBackend([ring], turn_rad=0.008, growth=1.008)


def test_loops_that_came_too_fast_to_settle_are_settled_at_the_end(ring, monkeypatch):  # noqa: F811
    at_once, graph = over(drifting(ring), [ring], synchronous=True)
    assert graph.counts.corrections > 2
    monkeypatch.setattr(backend, "SETTLING_SHARE", 1e-9)  # after the first, not before the end
    spared, sparing_graph = over(drifting(ring), [ring])
    assert sparing_graph.counts.loops == graph.counts.loops
    assert sparing_graph.counts.corrections == 2
    assert isinstance(spared[-1], MovedKeyframes)
    assert path_error(spared, ring) < 1.2 * path_error(at_once, ring)


def test_a_map_that_is_dear_to_gather_is_saved_at_the_end_all_the_same(
    ring,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    monkeypatch.setattr(keeper, "SAVING_SHARE", 1e-9)
    gathered = []
    content = keeper.MapKeeper._content

    def counted(self):
        gathered.append(len(self._atlas.keyframes))
        return content(self)

    monkeypatch.setattr(keeper.MapKeeper, "_content", counted)
    over(drifting(ring), [ring], map=str(tmp_path / "map"), map_every_s=1e-6)
    assert len(gathered) == 2, "once, and at the end"
    assert gathered[1] == len(SavedMap(tmp_path / "map").nodes) > gathered[0]
