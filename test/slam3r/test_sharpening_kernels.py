# SPDX-License-Identifier: Apache-2.0
"""The loops that sharpen depth between the planes, against slow and obvious twins and laws."""

import numpy as np
import pytest
from scipy.interpolate import griddata

from worldsystem_slam3r.geometric import refine_kernels

H, W = 20, 26
STEP = np.float32(0.02)
CENTRED = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1.0]])
"""The middle of a dense pixel lies between four of the tracked picture's."""


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def obvious_smooth(inverse_depth, information, step):
    """The mean over the window of what is, like what lies opposite, on the pixel's surface."""
    h, w = inverse_depth.shape
    out = inverse_depth.astype(float)
    around = [(dv, du) for dv in range(-2, 3) for du in range(-2, 3) if (dv, du) != (0, 0)]
    for v in range(2, h - 2):
        for u in range(2, w - 2):
            rho = inverse_depth[v, u]
            if not rho > 0:
                continue
            values, weights = [rho], [information[v, u] + 1e-3]
            for dv, du in around:
                both = inverse_depth[[v + dv, v - dv], [u + du, u - du]]
                if (np.abs(both - rho) < 1.5 * step).all():
                    values.append(both[0])
                    least = information[[v + dv, v - dv], [u + du, u - du]].min()
                    weights.append(least + 1e-3)
            out[v, u] = np.average(values, weights=weights)
    return out


def test_smoothed_depth_is_the_weighted_mean_of_the_pairs_on_its_surface(rng):
    inverse_depth = rng.normal(0.2, STEP, (H, W)).astype(np.float32)
    inverse_depth[rng.random((H, W)) < 0.05] = np.nan
    inverse_depth[9:11, 6:12] = -0.01  # lies within a step of the next, but is no depth
    inverse_depth[9:11, 12:15] = 0.004
    information = rng.exponential(1.0, (H, W)).astype(np.float32)
    information[rng.random((H, W)) < 0.2] = 0.0
    smooth = refine_kernels.smooth(inverse_depth, information, STEP)
    obvious = obvious_smooth(inverse_depth, information, STEP)
    np.testing.assert_allclose(smooth, obvious, rtol=1e-5)
    assert np.nanmax(np.abs(smooth - inverse_depth)) > 0.5 * STEP


def test_smoothing_leaves_a_slanted_surface_and_its_edge_where_they_are(rng):
    v, u = np.mgrid[0:H, 0:W].astype(np.float32)
    slanted = np.float32(0.2) + np.float32(0.4) * STEP * u - np.float32(0.2) * STEP * v
    slanted[:, W // 2 :] += 20 * STEP
    information = rng.exponential(1.0, (H, W)).astype(np.float32)
    smooth = refine_kernels.smooth(slanted, information, STEP)
    np.testing.assert_allclose(smooth, slanted, rtol=1e-5)


def seen_in(A, b, u, v, rho):
    """The neighbour's pixel of a reference pixel at this inverse depth, and how far ahead it is."""
    x, y, z = A @ (u, v, 1) + rho * b
    return np.array([x, y]) / z, z


def between_pixels(picture, x, y):
    """Bilinear grey value and its slopes to the right and down."""
    rows, columns = picture.shape
    x, y = np.clip(x, 0, columns - 2), np.clip(y, 0, rows - 2)
    left, top = int(x), int(y)
    (a, b), (c, d) = picture[top : top + 2, left : left + 2]
    p, q = x - left, y - top
    grey = (1 - q) * ((1 - p) * a + p * b) + q * ((1 - p) * c + p * d)
    return grey, (1 - q) * (b - a) + q * (d - c), (1 - p) * (c - a) + p * (d - b)


def obvious_patch(picture, A, b, u, v, rho):
    """The patch's 16 grey values in a neighbour and their change with rho; None when outside.

    Where the patch lies and how it is turned comes from numerical derivatives of the projection.
    """
    (x, y), z = seen_in(A, b, u, v, rho)
    rows, columns = picture.shape
    if z <= 1e-6 or not (4 <= x <= columns - 6 and 4 <= y <= rows - 6):
        return None
    e = 1e-5
    way = (seen_in(A, b, u, v, rho + e)[0] - seen_in(A, b, u, v, rho - e)[0]) / (2 * e)
    # One step of the tracked picture is half a dense pixel.
    right = (seen_in(A, b, u + e, v, rho)[0] - seen_in(A, b, u - e, v, rho)[0]) / (4 * e)
    down = (seen_in(A, b, u, v + e, rho)[0] - seen_in(A, b, u, v - e, rho)[0]) / (4 * e)
    if np.abs([right, down]).sum() > 4:
        return None
    grey, slope = [], []
    for j in (-1.5, -0.5, 0.5, 1.5):
        for i in (-1.5, -0.5, 0.5, 1.5):
            value, along, across = between_pixels(picture, *((x, y) + i * right + j * down))
            grey.append(value)
            slope.append(along * way[0] + across * way[1])
    return np.array(grey), np.array(slope)


def obvious_equations(patch, moved, slope):
    """Jᵀr and JᵀJ of one neighbour once means and contrasts are equal; zeros where it is another
    thing that is seen."""
    patch, moved, slope = (part - part.mean() for part in (patch, moved, slope))
    gain = np.clip(patch.std() / max(moved.std(), 1.0), 0.7, 1.4)
    residual, jacobian = gain * moved - patch, gain * slope
    off = np.abs(residual).mean()
    if off > refine_kernels.MAX_RESIDUAL or off > patch.std():
        return np.zeros(2)
    return np.array([jacobian @ residual, jacobian @ jacobian]) / (4 + off**2)


def obvious_refine(reference, neighbours, turned, moved, start, step):
    h, w = start.shape
    refined, information = start.astype(float), np.zeros((h, w))
    for v in range(2, h - 2):
        for u in range(2, w - 2):
            patch = reference[2 * v - 1 : 2 * v + 3, 2 * u - 1 : 2 * u + 3].ravel()
            if not start[v, u] > 0 or patch.std() < 1.0:
                continue
            rho = start[v, u]
            for _ in range(2):
                sums = np.zeros(2)
                for picture, A, b in zip(neighbours, turned, moved, strict=True):
                    found = obvious_patch(picture, A, b, u, v, rho)
                    if found is not None:
                        sums += obvious_equations(patch, *found)
                if sums[1] == 0:
                    break
                change = np.clip(-sums[0] / sums[1], -step, step)
                rho += change
                if abs(change) < refine_kernels.SETTLED * step:
                    break
            if sums[1] > 0 and abs(rho - start[v, u]) < step and rho > 0:
                refined[v, u], information[v, u] = rho, sums[1] * step**2
    return refined, information


def drawn(u, v):
    """Grey value of the surface at the reference's dense pixel; its contrast fades out below."""
    x, y = 2 * u + 0.5, 2 * v + 0.5
    waves = 80 * np.sin(0.35 * x) * np.cos(0.3 * y) + 20 * np.sin(0.15 * x + 0.2 * y)
    return 120 + waves / (1 + np.exp(0.6 * (v - 0.5 * H)))


def surface(u):
    """Inverse depth: 0 at the first columns that are looked at."""
    return 0.001 * (u - 2)


def filmed(A, b):
    """What a camera sees of the surface: the grey values of many of its points where they lie."""
    v, u = np.mgrid[-4 : H + 4 : 0.25, -4 : W + 4 : 0.25].reshape(2, -1)
    x, y, z = A @ [u, v, np.ones_like(u)] + surface(u) * b[:, None]
    pixels = tuple(np.mgrid[0 : 2 * H, 0 : 2 * W][::-1])
    return griddata((x / z, y / z), drawn(u, v), pixels, fill_value=0.0)


CAMERAS = [
    (CENTRED, np.array([-60.0, -3.0, 0.2])),
    (CENTRED, np.array([60.0, 3.0, -0.2])),
    (
        np.array([[6.6, 0.3, -65.0], [-0.1, 1.0, 10.0], [-4e-3, 4e-3, 1.0]]),
        np.array([-30, 20, 1.0]),
    ),
    (-CENTRED, np.array([60.0, 3.0, -0.2])),  # the surface is behind it
]


def slanted_surface(rng):
    """Pictures of a slanted surface, with all that can be wrong with them."""
    reference = filmed(CENTRED, np.zeros(3)) + rng.normal(0, 0.8, (2 * H, 2 * W))
    neighbours = np.array([filmed(A, b) for A, b in CAMERAS[:3]])
    neighbours += rng.normal(0, 0.8, neighbours.shape)
    neighbours[0] = 1.7 * neighbours[0] - 60  # another exposure, beyond what is made up for
    neighbours[1] = 0.8 * neighbours[1] + 10
    neighbours[1, :, 20:32] = rng.uniform(0, 255, (2 * H, 12))  # something before it
    neighbours[1, :, 32:36] = rng.uniform(110, 130, (2 * H, 4))
    start = surface(np.mgrid[0:H, 0:W][1]) + rng.uniform(-1.0, 1.0, (H, W)) * STEP
    start[rng.random((H, W)) < 0.05] = np.nan
    return (
        reference.astype(np.float32),
        neighbours[[0, 1, 2, 0]].astype(np.float32),
        np.array([A for A, _ in CAMERAS], np.float32),
        np.array([b for _, b in CAMERAS], np.float32),
        start.astype(np.float32),
    )


def test_sharpened_depth_is_that_of_plain_gauss_newton(rng):
    given = slanted_surface(rng)
    refined, information = refine_kernels.refine(*given, STEP)
    obvious, certain = obvious_refine(*(part.astype(float) for part in given), float(STEP))
    assert 0.3 < (certain > 0).mean() < 0.8
    assert np.array_equal(np.isnan(refined), np.isnan(given[-1]))
    # Single precision may put a patch on the other side of a limit: one of 520 pixels at most.
    assert ((information > 0) == (certain > 0)).mean() > 0.997
    near = np.isclose(refined, obvious, rtol=0.0, atol=1e-3 * STEP, equal_nan=True)
    assert near.mean() > 0.997
    assert np.isclose(information, certain, rtol=1e-2).mean() > 0.997
