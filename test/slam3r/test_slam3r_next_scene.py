# SPDX-License-Identifier: Apache-2.0
"""Where the slam3r back-end's next scene begins to be tried."""

from __future__ import annotations

from test_slam3r_backend import CAMERA, POSES, TRACKED, backend_of
from true_networks import TrueNetworks


def test_after_a_start_the_next_scene_is_tried_from_the_least_stride_again():
    networks = TrueNetworks()
    backend, tried = backend_of(networks), []
    for frame in networks.film(POSES, CAMERA):
        backend.feed(frame)
        tried.append(backend._tracker._bootstrap._tried)
        if backend._tracker.state is TRACKED:
            break
    assert max(tried) > 0, "the start came at the least stride: film it more slowly"
    assert backend._tracker._bootstrap._tried == 0
    assert backend._tracker._bootstrap.held == []
    assert backend._tracker._bootstrap.given_up == []
