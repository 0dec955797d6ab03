# SPDX-License-Identifier: Apache-2.0
"""Waiting for a start: growing strides are tried until the network trusts what it sees."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from worldsystem_slam3r.slam3r.networks import Networks
from worldsystem_slam3r.slam3r.pose import Sample, known_points, robust_sim3
from worldsystem_slam3r.slam3r.scene_start import SceneStart, find_start
from worldsystem_slam3r.slam3r.shots import SAMPLES_ACROSS, Shot

log = logging.getLogger(__name__)

_STRIDES = (1, 2, 3, 5, 8, 12, 15, 20, 30, 50, 100)
_WANTED_BASELINE = 0.08
"""Way between the window's cameras over the scene's depth, which a start should have."""
_WEAK = 0.5
"""Share of the wanted confidence with which the last stride is still taken."""


@dataclass(frozen=True, eq=False)
class Found:
    """A start, the shots that it was made from, those it can place too, and the stride."""

    start: SceneStart
    keys: list[Shot]
    others: list[Shot]
    stride: int


class Bootstrap:
    """Holds frames until a window of them makes a scene; at most one window at the last stride.

    A start needs confidence, and some way between its cameras while longer strides are left to
    try. What the last stride cannot start is given up, and the trial begins anew.
    """

    def __init__(
        self, networks: Networks, *, window: int, strides: tuple[int, int], wanted_score: float
    ) -> None:
        low, high = strides
        self._networks = networks
        self._window = window
        between = [s for s in _STRIDES if low <= s <= high]
        self._strides = sorted({low, *between, high})
        self._wanted = wanted_score
        self._tried = 0
        self.held: list[Shot] = []
        self.given_up: list[Shot] = []

    def add(self, shot: Shot) -> Found | None:
        """Take the next shot; return the start if it makes one."""
        self.held.append(shot)
        stride = self._strides[self._tried]
        if len(self.held) <= (self._window - 1) * stride:
            return None
        last = self._tried == len(self._strides) - 1
        found = self._attempt(stride, last=last)
        if found is None and last:
            self.give_up()
        elif found is None:
            self._tried += 1
        return found

    def attempt_with_what_is_there(self) -> Found | None:
        """The stream has ended: the widest window that the held shots allow."""
        if len(self.held) < 2:
            return None
        window = min(self._window, len(self.held))
        return self._attempt((len(self.held) - 1) // (window - 1), last=True)

    def give_up(self) -> None:
        """Let go of the shots held so far (they stay in `given_up`) and begin anew."""
        self.given_up += self.held
        self.held = []
        self._tried = 0

    def _attempt(self, stride: int, *, last: bool) -> Found | None:
        window = self.held[::stride][: self._window]
        start = find_start(
            self._networks, [shot.view.tokens for shot in window], wanted_score=self._wanted
        )
        enough = start.score >= self._wanted and (last or baseline(start) >= _WANTED_BASELINE)
        weak = last and not enough and start.score >= _WEAK * self._wanted
        if not enough and not weak:
            log.debug("no start at stride %d: confidence %.2f", stride, start.score)
            return None
        if weak:
            log.warning(
                "the scene starts with a confidence of only %.2f; %.2f is wanted "
                "(slam3r.initial_confidence)",
                start.score,
                self._wanted,
            )
        keys = window[: len(start)]
        used = {id(shot) for shot in keys}
        others = [shot for shot in self.held if id(shot) not in used]
        return Found(start, keys, others, stride)


def baseline(start: SceneStart) -> float:
    """Largest distance between the window's cameras over the median distance of its points."""
    every = max(1, start.points.shape[1] // SAMPLES_ACROSS)
    shared = start.points[:, ::every, ::every].cpu().double().numpy().reshape(len(start), -1, 3)
    own = start.own_points[:, ::every, ::every].cpu().double().numpy().reshape(len(start), -1, 3)
    positions = [_position(a, b) for a, b in zip(shared, own, strict=True)]
    found = np.array([position for position in positions if position is not None])
    if len(found) < 2:
        return 0.0
    reach = float(np.nanmedian(np.linalg.norm(shared[start.reference], axis=1)))
    apart = np.linalg.norm(found[:, None] - found[None], axis=-1).max()
    return float(apart / reach) if reach > 0 else 0.0


def _position(shared: np.ndarray, own: np.ndarray) -> np.ndarray | None:
    known = known_points(own, shared)
    sample = Sample(np.zeros((known.sum(), 2)), own[known], shared[known], np.ones(known.sum()))
    fit = robust_sim3(sample)
    return None if fit is None else fit[0].translation
