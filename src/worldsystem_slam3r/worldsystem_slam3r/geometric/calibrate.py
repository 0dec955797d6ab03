# SPDX-License-Identifier: Apache-2.0
"""The lens found out from several keyframes: focal length and radial distortion.

A camera that nobody knows gets both (as far as its motion shows them; where it does not, the
assumed focal length and a straight lens are held by their priors). A camera that was told is
checked, and overruled only when the pictures clearly say otherwise; where only its focal length was
told, and is right, radial distortion that shows clearly is found beside it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from worldsystem_core.frames import Camera
from worldsystem_slam3r.geometric.bundle import FIXED, FOCAL_AND_RADIAL, Adjusted, Bundle, adjust
from worldsystem_slam3r.geometric.dense import View
from worldsystem_slam3r.geometric.lens import Lens, LensChange
from worldsystem_slam3r.geometric.map_store import Map

log = logging.getLogger(__name__)

KEYFRAMES = (8, 16, 24)
"""Keyframes after which the lens is found out, then once more, and for good: two starting views of
a rendered room were 5 % off, eight 1 %; radial distortion needs tracks to cross the picture."""
LAST_LOOK_KEYFRAMES = 4
"""Keyframes that are worth a look when no more will come. Of ten rendered films the start was 1 to
69 % off; a look at two keyframes was off by 12 to 128 %, at three 3 to 25 %, at four 1 to 6 %."""
BETTER_GAIN = 0.05
"""Share by which the cost must fall for a lens found before to be given up for a newer one."""
FOCAL_SIGMA = 0.02
"""Relative standard deviation from which a focal length is worth overruling another."""
WRONG_SHARE = 0.08
"""How far a told focal length must be from the found one to be wrong."""
WRONG_GAIN = 0.3
"""Share by which the cost must fall for a told camera to be overruled."""
AGREEMENT = 0.05
"""How near two searches must come to each other to overrule what was told: in flight along a road,
where the motion hardly shows it, two searches came to 304 and 333 px instead of 417 px."""
BENT_K1, BENT_GAIN = 0.03, 0.15
"""The least k1, and share by which the cost must fall, for a lens told as straight to be bent. Of a
rendered room through k1 = -0.1 it fell by 23 %, of the same and five other straight films by 2 % at
most. Both maps are adjusted as a whole for that, which alone takes up to 75 % off the cost."""
FOCAL_WIDTHS = (0.35, 3.0)
LEAST_SLOPE = 0.3
"""Least growth of the filmed radius with the true one, over the whole picture, of a sound lens."""
ITERATIONS = 60
LEAST_GAIN = 1e-5
"""Focal length and depth trade slowly: at the usual 1e-4 a search stopped half-way."""
MIN_POINTS = 60


@dataclass(frozen=True, eq=False)
class Found:
    """What eight keyframes say about the lens, and the map that belongs to it."""

    filmed: Camera
    focal_sigma: float
    cost_share: float
    bundle: Bundle
    result: Adjusted
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class _Asked:
    """What all keyframes of a map are asked of the lens: their bundle, and as it was filmed."""

    filmed: Camera
    bundle: Bundle
    rows: np.ndarray
    seen: Bundle

    @staticmethod
    def of(world: Map, lens: Lens) -> _Asked | None:
        """None where few points are known, or distortion that cannot be adjusted."""
        bundle, rows = world.bundle(world.latest(len(world.keyframes)), 1)
        c = lens.filmed
        told = (*c.distortion, 0.0, 0.0, 0.0, 0.0, 0.0)[:5]
        if len(rows) < MIN_POINTS or any(told[2:]):
            return None
        K4, uv = np.array([c.fx, c.fy, c.cx, c.cy]), lens.filmed_px(bundle.uv)
        return _Asked(c, bundle, rows, replace(bundle, uv=uv, K4=K4, radial=np.array(told[:2])))

    def adjusted(self, free_lens: int, *, hold_focal: bool = False) -> Adjusted:
        return adjust(
            self.seen,
            free_lens=free_lens,
            hold_focal=hold_focal,
            iterations=ITERATIONS,
            least_gain=LEAST_GAIN,
        )

    def found(self, result: Adjusted) -> Found | None:
        """The lens of an adjusted bundle; None where it could not be one."""
        if not _sound(result, self.filmed):
            log.info("the lens could not be found out: %.0f px, %s", result.K4[0], result.radial)
            return None
        filmed = replace(
            self.filmed,
            fx=float(result.K4[0]),
            fy=float(result.K4[1]),
            distortion=(float(result.radial[0]), float(result.radial[1]), 0.0, 0.0),
        )
        share = result.cost_after / max(result.cost_before, 1e-9)
        return Found(filmed, result.focal_sigma, share, self.bundle, result, self.rows)


class LensSearch:
    """Decides when the lens is looked for and whether what was found is better than what is used.

    `note` says what was told wrong; empty while there is nothing to say.
    """

    def __init__(self) -> None:
        self.unknown = False
        self.note = ""
        self._turn = 0
        self._doubt_px = 0.0

    @property
    def begun(self) -> bool:
        """Whether the lens was looked for at all."""
        return self._turn > 0

    def due(self, keyframes: int) -> bool:
        """Whether enough keyframes have come since the last search."""
        return self._turn < len(KEYFRAMES) and keyframes >= KEYFRAMES[self._turn]

    def search(self, world: Map, lens: Lens) -> Found | None:
        """The lens to use from now on; None when the present one stays."""
        first, self._turn = self._turn == 0, self._turn + 1
        found = find_lens(world, lens)
        if found is None:
            return None
        told = lens.filmed
        if self.unknown:
            adopted = first or found.cost_share < 1.0 - BETTER_GAIN
        else:
            adopted = self._contradicts(found, told)
        log.info(
            "lens: %.0f px so far, %.0f px (±%.1f %%), k1 %.3f, k2 %.3f from the pictures%s",
            *(told.fx, found.filmed.fx, 100.0 * found.focal_sigma, *found.filmed.distortion[:2]),
            "" if adopted else ", not adopted",
        )
        if not adopted:
            return None if self.unknown else _bend(world, lens, found)
        if not self.unknown:
            self.unknown = True  # what was told is not believed any more
            self.note = (
                f"the camera was told wrong: focal length {told.fx:.0f} px, the pictures say "
                f"{found.filmed.fx:.0f} px at {told.width}×{told.height}; theirs is used"
            )
            log.warning("%s", self.note)
        return found

    def _contradicts(self, found: Found, told: Camera) -> bool:
        """Whether two searches in a row say clearly, and alike, that the told camera is wrong."""
        wrong = abs(np.log(found.filmed.fx / told.fx)) > WRONG_SHARE
        wrong &= found.focal_sigma < FOCAL_SIGMA
        before, self._doubt_px = self._doubt_px, found.filmed.fx if wrong else 0.0
        self.note = ""
        if wrong and found.cost_share < 1.0 - WRONG_GAIN:
            self.note = (
                f"the focal length told, {told.fx:.0f} px, may be wrong: the pictures fit "
                f"{found.filmed.fx:.0f} px better"
            )
        if not wrong or before <= 0 or found.cost_share > 1.0 - WRONG_GAIN:
            return False
        return bool(abs(np.log(found.filmed.fx / before)) < AGREEMENT)


def find_lens(world: Map, lens: Lens) -> Found | None:
    """Adjust all keyframes of a young map together with the lens; None where that says nothing."""
    asked = _Asked.of(world, lens)
    return None if asked is None else asked.found(asked.adjusted(FOCAL_AND_RADIAL))


def find_bend(world: Map, lens: Lens) -> Found | None:
    """As `find_lens` with the focal length held; the cost is compared with the least of a straight
    lens."""
    asked = _Asked.of(world, lens)
    if asked is None:
        return None
    straight = asked.adjusted(FIXED).cost_after
    bent = asked.adjusted(FOCAL_AND_RADIAL, hold_focal=True)
    return asked.found(replace(bent, cost_before=straight))


def _bend(world: Map, lens: Lens, found: Found) -> Found | None:
    """The radial distortion that was not told beside a right focal length, where it is clear."""
    told = lens.filmed
    if any(told.distortion) or abs(found.filmed.distortion[0]) < BENT_K1:
        return None
    if abs(np.log(found.filmed.fx / told.fx)) > WRONG_SHARE:
        return None
    bent = find_bend(world, lens)
    if bent is None or bent.cost_share > 1.0 - BENT_GAIN:
        return None
    log.info("lens: %.0f px as told, k1 %.3f, k2 %.3f", told.fx, *bent.filmed.distortion[:2])
    return bent


def settle(world: Map, found: Found, change: LensChange, lens: Lens) -> None:
    """Move the map over to the found `lens`.

    The first keyframe stays and so does the distance to the newest one, so that poses told so far
    remain valid.
    """
    result = found.result
    centres = -np.einsum("cji,cj->ci", result.rotations, result.translations)
    before = -np.einsum("cji,cj->ci", found.bundle.rotations, found.bundle.translations)
    scale = np.linalg.norm(before[-1] - before[0]) / np.linalg.norm(centres[-1] - centres[0])
    moved = before[0] + scale * (centres - before[0])
    p = lens.pinhole
    world.K4 = np.array([p.fx, p.fy, p.cx, p.cy])
    records = world.latest(len(world.keyframes))
    for record, rotation, centre in zip(records, result.rotations, moved, strict=True):
        record.cam_from_world[:3, :3] = rotation
        record.cam_from_world[:3, 3] = -rotation @ centre
        record.grey, record.rgb = change.picture(record.grey), change.picture(record.rgb)
        record.px = change.px(record.px)
        inside = change.inside(record.px)
        record.ids, record.px = record.ids[inside], record.px[inside]
        record.features = None
        record.view = View.of(record.grey, p)
    world.points.position[found.rows] = before[0] + scale * (result.points - before[0])
    world.points.first_px[:] = change.px(world.points.first_px)


def _sound(result: Adjusted, camera: Camera) -> bool:
    """Whether a lens could be one: its focal length plausible, its distortion one to one."""
    if not FOCAL_WIDTHS[0] < result.K4[0] / camera.width < FOCAL_WIDTHS[1]:
        return False
    corner = np.hypot(camera.width / result.K4[0], camera.height / result.K4[1]) / 2.0
    r2 = np.linspace(0.0, corner, 32) ** 2
    k1, k2 = result.radial
    return bool((1.0 + 3.0 * k1 * r2 + 5.0 * k2 * r2**2 > LEAST_SLOPE).all())
