# SPDX-License-Identifier: Apache-2.0
"""Collects what measures metres, and says when and how the scene becomes a map.

Positions come from GPS (east, north, up about the middle of the fixes until the map turned into
those axes) or, without it, from a phone's own odometry in its level frame; both at once: GPS gives
the frame, the phone a scale. Heights come from the barometer, lengths from printed markers.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Keyframe, Pose
from worldsystem_core.telemetry import GpsFix, OdometrySample, PressureSample, Telemetry
from worldsystem_slam3r.graph.pose_graph import Anchor
from worldsystem_slam3r.scale.enu import ENU, LEVEL, EnuFrame, height_m
from worldsystem_slam3r.scale.fit import Heights, Measured, MetricFit, Positions, fit_metric
from worldsystem_slam3r.scale.hanging import (
    HangingSamples,
    HeightSample,
    Hung,
    PositionSample,
    WorldOf,
)
from worldsystem_slam3r.scale.marker import MarkerRuler

log = logging.getLogger(__name__)

CORRELATED_S = 10.0
"""Errors of GPS and barometer within so long count as one error [s]."""
NEWEST = 5
"""So many positions say together how far the map has drifted."""
GPS_HORIZONTAL_M, GPS_VERTICAL_M = 3.0, 6.0
"""Standard deviations of a fix that tells none [m]."""
NO_ALTITUDE_M = 1000.0
PRESSURE_M = 1.0
ODOMETRY_M = 0.1
LEAST_M = 0.01
"""No measurement is believed to be better, whatever it says of itself."""
LEAST_SAMPLES = 6
OUTLIER_SIGMAS = 4.0
MARKERS_KEPT = 200


@dataclass(frozen=True)
class _Length:
    """Logarithm of metres per unit of a keyframe, and its standard deviation."""

    keyframe_id: int
    log_scale: float
    sigma: float


def _is_sound(observation: Telemetry) -> bool:
    """Whether it holds numbers; one that does not would spoil every fit after it. A receiver that
    knows no place yet says 0/0."""
    if isinstance(observation, GpsFix):
        where = (observation.latitude_deg, observation.longitude_deg)
        return all(map(math.isfinite, where)) and where != (0.0, 0.0)
    if isinstance(observation, PressureSample):
        return 0.0 < observation.pressure_pa < math.inf
    if isinstance(observation, OdometrySample):
        return all(map(math.isfinite, observation.position_m))
    return True


class MetricScale:
    """Takes observations and told poses; answers with fits in the world as it is now."""

    def __init__(self, world_of: WorldOf, *, marker_m: float = 0.0) -> None:
        self._world_of = world_of
        self._gps = HangingSamples(world_of)
        self._odometry = HangingSamples(world_of)
        self._pressure = HangingSamples(world_of)
        self._all = (self._gps, self._odometry, self._pressure)
        self._lengths: list[_Length] = []
        self._ruler = MarkerRuler(marker_m) if marker_m > 0 else None
        self.enu: EnuFrame | None = None
        self._origin_stays = False
        self.clock_s = 0.0
        self.size: tuple[float, float] | None = None
        """What the last fit had of the size by lengths, not places: the logarithm of the factor on
        the world's, and its standard deviation."""

    def observe(self, observation: Telemetry) -> None:
        """Take a measurement; what says nothing of metres is passed by, as what is no number."""
        if not _is_sound(observation):
            return
        if isinstance(observation, GpsFix):
            self._observe_fix(observation)
        elif isinstance(observation, PressureSample):
            height = height_m(observation.pressure_pa)
            self._pressure.sample(HeightSample(observation.stamp_ns, height, PRESSURE_M))
        elif isinstance(observation, OdometrySample):
            sigma = observation.position_error_m
            sigma = max(sigma, LEAST_M) if math.isfinite(sigma) else ODOMETRY_M
            where, spread = np.array(observation.position_m), np.eye(3) * sigma**2
            self._odometry.sample(PositionSample(observation.stamp_ns, where, spread))

    def _observe_fix(self, fix: GpsFix) -> None:
        if self.enu is None:
            ground = fix.altitude_m if math.isfinite(fix.altitude_m) else 0.0
            self.enu = EnuFrame(fix.latitude_deg, fix.longitude_deg, ground)
        flat = not math.isfinite(fix.altitude_m)
        altitude_m = self.enu.altitude_m if flat else fix.altitude_m
        where = self.enu.position_m(fix.latitude_deg, fix.longitude_deg, altitude_m)
        across, up = fix.horizontal_error_m / math.sqrt(2.0), fix.vertical_error_m
        across = across if math.isfinite(across) else GPS_HORIZONTAL_M
        up = NO_ALTITUDE_M if flat else up if math.isfinite(up) else GPS_VERTICAL_M
        spread = np.diag([max(across, LEAST_M) ** 2] * 2 + [max(up, LEAST_M) ** 2])
        self._gps.sample(PositionSample(fix.stamp_ns, where, spread))

    def put_origin(self, enu: EnuFrame) -> None:
        """Fixes are told about this place from now on, that of a map which was loaded; those from
        before, which no picture belongs to, are let go."""
        if self.enu is not None and self.enu != enu:
            self._gps.drop_waiting()
        self.enu = enu
        self.keep_origin()

    def keep_origin(self) -> None:
        """The map has the axes about the present origin: later fixes do not move it."""
        self._origin_stays = True

    def _choose_origin(self) -> None:
        """Amid the fixes: the first may be stale, or of a network far away."""
        fixes = [hung.sample.position_m for hung in self._gps.hung]  # type: ignore[union-attr]
        if self._origin_stays or self.enu is None or len(fixes) < LEAST_SAMPLES:
            return
        chosen = self.enu.about(np.median(fixes, axis=0))
        self._gps.measured_in(chosen.from_other(self.enu))
        self.enu = chosen

    def pose(self, pose: Pose) -> None:
        """A tracked pose in the world, as it was told."""
        for samples in self._all:
            samples.pose(pose.stamp_ns, pose.keyframe_id, pose.world_from_cam[:3, 3])

    def keyframe(self, keyframe: Keyframe) -> None:
        """A keyframe in the world, as it was told: a marker may be in it."""
        for samples in self._all:
            samples.keyframe(keyframe.id, keyframe.stamp_ns)
        world = self._world_of(keyframe.id)
        if self._ruler is None or world is None:
            return
        found = self._ruler.log_scale(keyframe)
        if found is not None:
            # metres per world unit → metres per unit of the keyframe
            value = found[0] + math.log(world.scale)
            self._lengths = [*self._lengths, _Length(keyframe.id, value, found[1])][-MARKERS_KEPT:]

    def release_keyframes(self, ids: Iterable[int]) -> None:
        """Keyframes are about to be withdrawn: what hangs on them waits for those that follow."""
        gone = set(ids)
        for samples in self._all:
            samples.release_keyframes(gone)
        self._lengths = [length for length in self._lengths if length.keyframe_id not in gone]

    def hang_on(self, keyframe_id: int, other: int) -> None:
        """A keyframe is about to go: what hangs on it hangs on `other`, which stands in for it."""
        for samples in self._all:
            samples.hang_on(keyframe_id, other)
        old, own = self._world_of(keyframe_id), self._world_of(other)
        if old is None or own is None:
            return
        grown = math.log(own.scale / old.scale)
        self._lengths = [
            replace(length, keyframe_id=other, log_scale=length.log_scale + grown)
            if length.keyframe_id == keyframe_id
            else length
            for length in self._lengths
        ]

    @property
    def sample_count(self) -> int:
        """Measurements that are hung and count."""
        hung = sum(len(s.hung) for s in self._all)
        return hung + len(self._lengths)

    @property
    def missed(self) -> int:
        """Measurements for which the camera had no pose."""
        return sum(s.missed for s in (self._gps, self._odometry, self._pressure))

    @property
    def has_positions(self) -> bool:
        """Whether something outside says where the camera is, not only how far it went."""
        return len(self._positions_from.hung) >= LEAST_SAMPLES

    @property
    def axes(self) -> str:
        """Those of the frame in which positions are told (`ENU`, `LEVEL`); empty without any."""
        if not self.has_positions:
            return ""
        return ENU if self._positions_from is self._gps else LEVEL

    def count_on(self) -> Counter[int]:
        """How many measurements hang on each keyframe."""
        hung = (h.keyframe_id for s in self._all for h in s.hung)
        return Counter([*hung, *(length.keyframe_id for length in self._lengths)])

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest position that counts; 0 without any."""
        hung = self._positions_from.hung
        return hung[-1].sample.stamp_ns if hung else 0

    def drift_sigmas(self) -> float:
        """How far the newest positions are together from where the map, being metric, has the
        camera, in the standard deviations of one; 0 where there are too few."""
        found = self._positions_from.placed(PositionSample, last=NEWEST)
        if len(found) < NEWEST:
            return 0.0
        newest = _positions(found)
        off = newest.scene + self.clock_s * newest.velocity - newest.map_m
        mean, spread = off.mean(axis=0), newest.covariance.mean(axis=0) / newest.shared
        return float(np.sqrt(mean @ np.linalg.solve(spread, mean) / 3.0))

    @property
    def sources(self) -> tuple[str, ...]:
        """What measures metres here."""
        counts = {
            "gps": len(self._gps.hung),
            "odometry": len(self._odometry.hung),
            "barometer": len(self._pressure.hung),
            "marker": len(self._lengths),
        }
        return tuple(name for name, count in counts.items() if count)

    @property
    def _positions_from(self) -> HangingSamples:
        gps = self._gps
        return gps if len(gps.hung) >= LEAST_SAMPLES or not self._odometry.hung else self._odometry

    def fit(
        self,
        up: Float64[np.ndarray, "3"],
        up_rad: float,
        *,
        nod: tuple[Float64[np.ndarray, "3"], float] | None = None,
        size_sigma: float = math.inf,
        of: set[int] | None = None,
    ) -> MetricFit | None:
        """`map_from_world` by all that is known; `up` is the world's likely vertical (with `nod` as
        `Measured` has it), and `size_sigma` how well its size is known already (standard deviation
        of its logarithm).

        With `of` only what hangs on those keyframes counts.
        """
        self._choose_origin()
        source = self._positions_from
        positions = self._enough(source, of)
        log_scales = self._log_lengths(of)
        if source is self._gps and len(self._odometry.hung) >= LEAST_SAMPLES:
            path = self._enough(self._odometry, of)
            own = Measured(positions=path, up=up, up_rad=up_rad, nod=nod)
            phone = fit_metric(own)
            if phone is not None:
                log_scales.append((math.log(phone.map_from_scene.scale), phone.scale_sigma))
        self.size = _together(log_scales)
        if math.isfinite(size_sigma):
            log_scales.append((0.0, size_sigma))
        measured = Measured(
            positions=positions,
            heights=_heights(self._pressure.placed(HeightSample, of)),
            log_scales=tuple(log_scales),
            up=up,
            up_rad=up_rad,
            nod=nod,
        )
        fit = fit_metric(measured)
        if fit is not None:
            self.clock_s = fit.clock_s
        return fit

    def _enough(self, source: HangingSamples, of: set[int] | None) -> Positions:
        found = source.placed(PositionSample, of)
        return _positions(found) if len(found) >= LEAST_SAMPLES else Positions.none()

    def anchors(self) -> dict[int, Anchor]:
        """Where the positions put each keyframe, the world being metric; outliers left out."""
        source = self._positions_from
        inflation = _inflation([hung.sample.stamp_ns for hung in source.hung])
        votes: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        for hung, world in source.placed(PositionSample):
            assert isinstance(hung.sample, PositionSample)
            offset = world.scale * world.rotation @ (hung.place + self.clock_s * hung.velocity)
            where = hung.sample.position_m - offset
            off = np.abs(where - world.translation)
            limit = OUTLIER_SIGMAS * np.sqrt(np.diag(hung.sample.covariance))
            if (off < limit + 0.05 * float(np.linalg.norm(world.translation))).all():
                votes.setdefault(hung.keyframe_id, []).append((where, hung.sample.covariance))
        return {
            key: Anchor(
                np.mean([where for where, _ in found], axis=0),
                inflation * np.mean([spread for _, spread in found], axis=0) / len(found),
            )
            for key, found in votes.items()
        }

    def _log_lengths(self, of: set[int] | None) -> list[tuple[float, float]]:
        found = []
        for length in self._lengths:
            world = self._world_of(length.keyframe_id)
            if world is not None and (of is None or length.keyframe_id in of):
                # markers are seen many times with the same error: they count as ten at most
                sigma = length.sigma * math.sqrt(max(1.0, len(self._lengths) / 10.0))
                found.append((length.log_scale - math.log(world.scale), sigma))
        return found


def _together(log_scales: list[tuple[float, float]]) -> tuple[float, float] | None:
    """All of them as one, each weighed by its standard deviation; None where there are none."""
    total = sum(sigma**-2 for _, sigma in log_scales)
    if not total:
        return None
    return sum(value * sigma**-2 for value, sigma in log_scales) / total, total**-0.5


def _positions(found: list[tuple[Hung, Sim3]]) -> Positions:
    if not found:
        return Positions.none()
    inflation = _inflation([hung.sample.stamp_ns for hung, _ in found])
    return Positions(
        np.array([world.apply(hung.place) for hung, world in found]),
        np.array([_turned(hung, world) for hung, world in found]),
        np.array([hung.sample.position_m for hung, _ in found]),  # type: ignore[union-attr]
        inflation * np.array([hung.sample.covariance for hung, _ in found]),  # type: ignore[union-attr]
        inflation,
    )


def _heights(found: list[tuple[Hung, Sim3]]) -> Heights:
    if len(found) < LEAST_SAMPLES:
        return Heights.none()
    inflation = _inflation([hung.sample.stamp_ns for hung, _ in found])
    return Heights(
        np.array([world.apply(hung.place) for hung, world in found]),
        np.array([hung.sample.height_m for hung, _ in found]),  # type: ignore[union-attr]
        math.sqrt(inflation) * np.array([hung.sample.sigma_m for hung, _ in found]),  # type: ignore[union-attr]
        inflation,
    )


def _turned(hung: Hung, world: Sim3) -> np.ndarray:
    turned: np.ndarray = world.scale * world.rotation @ hung.velocity
    return turned


def _inflation(stamps_ns: list[int]) -> float:
    """How much more a single error weighs because its neighbours share it. Times in which nothing
    was measured do not set those apart that were measured together."""
    if len(stamps_ns) < 2:
        return 1.0
    gaps_s = np.diff(np.sort(stamps_ns)) / 1e9
    span_s = float(np.minimum(gaps_s, CORRELATED_S).sum())
    return max(1.0, CORRELATED_S * len(stamps_ns) / max(span_s, CORRELATED_S))
