# SPDX-License-Identifier: Apache-2.0
"""The compiled loops of dense depth, each against a slow and obvious twin."""

import numpy as np
import pytest

from worldsystem_slam3r.geometric import refine_kernels, sweep_kernels

D, H, W = 12, 20, 26
P1, P2_EDGE, P2 = np.int16(20), np.int16(100), np.int16(200)


def warp(tilt: float, shift: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A neighbour's `H` and `b`: dense pixels are doubled, tilted and moved with inverse depth."""
    turned = np.array([[2.0, tilt, 1.013], [-tilt, 2.0, 0.517], [1e-4, -1e-4, 1.0]])
    return turned, np.array(shift)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def obvious_cost(reference, neighbours, turned, moved, inverse_depths):
    h, w = reference.shape
    out = np.full((h, w, len(inverse_depths)), 255, np.uint8)
    for v in range(2, h - 2):
        for u in range(2, w - 2):
            for k, rho in enumerate(inverse_depths):
                costs = []
                for codes, A, b in zip(neighbours, turned, moved, strict=True):
                    x, y, z = A @ (u, v, 1) + rho * b
                    x, y = x / z + 0.5, y / z + 0.5
                    rows, columns = codes.shape
                    if 4 <= x < columns - 4 and 4 <= y < rows - 4:
                        difference = int(reference[v, u]) ^ int(codes[int(y), int(x)])
                        costs.append(difference.bit_count())
                costs.sort()
                if len(costs) > 1:
                    out[v, u, k] = 4 * (costs[0] + costs[1])
                elif costs:
                    out[v, u, k] = 8 * costs[0] + 8
    return out


def test_the_cost_of_a_plane_is_the_mean_of_the_two_neighbours_that_match_best(rng):
    reference = rng.integers(0, 1 << 24, (H, W), np.uint32)
    neighbours = rng.integers(0, 1 << 24, (3, 2 * H, 2 * W), np.uint32)
    warps = [warp(0.05, (9, 2, 0.1)), warp(-0.1, (-20, 3, 0.0)), warp(0.0, (2, -14, -0.1))]
    turned, moved = (np.array(part) for part in zip(*warps, strict=True))
    depths = np.linspace(0.0, 1.0, D)
    compiled = sweep_kernels.cost_volume(
        reference,
        neighbours,
        turned.astype(np.float32),
        moved.astype(np.float32),
        depths.astype(np.float32),
    )
    obvious = obvious_cost(reference, neighbours, turned, moved, depths)
    assert (compiled == sweep_kernels.OUTSIDE).any()
    assert (compiled % 8 == 4).any()  # two neighbours whose bits differ by an odd number
    # Single and double precision may put a pixel on either side of a rounding edge.
    assert (compiled == obvious).mean() > 0.999


def obvious_paths(cost, grey):
    h, w, d = cost.shape
    total = np.zeros(cost.shape, np.int64)
    for dv, du in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        path = np.zeros(cost.shape, np.int64)
        for v in range(h)[:: -1 if dv < 0 else 1]:
            for u in range(w)[:: -1 if du < 0 else 1]:
                inside = 0 <= v - dv < h and 0 <= u - du < w
                before = path[v - dv, u - du] if inside else np.zeros(d, np.int64)
                edge = inside and abs(int(grey[v, u]) - int(grey[v - dv, u - du])) > 8
                jump = before.min() + (P2_EDGE if edge else P2)
                for k in range(d):
                    ways = [before[k], jump]
                    ways += [before[n] + P1 for n in (k - 1, k + 1) if 0 <= n < d]
                    path[v, u, k] = int(cost[v, u, k]) + min(ways) - before.min()
        total += path
    return total


def test_paths_are_added_up_as_the_paper_has_them(rng):
    cost = rng.integers(0, 256, (H, W, D)).astype(np.uint8)
    grey = rng.integers(100, 115, (H, W)).astype(np.uint8)
    total = sweep_kernels.aggregate(cost, grey, P1, P2_EDGE, P2)
    assert np.array_equal(total, obvious_paths(cost, grey))


def test_the_best_plane_is_the_lowest_and_the_second_is_not_its_slope(rng):
    total = rng.integers(100, 4000, (H, W, D)).astype(np.int16)
    cost = rng.integers(0, 256, (H, W, D)).astype(np.uint8)
    plane, distinct, own = sweep_kernels.best_planes(total, cost)
    for v, u in np.ndindex(H, W):
        s = total[v, u].astype(float)
        k = int(np.argmin(s))
        if k in (0, D - 1) or cost[v, u, k] == sweep_kernels.OUTSIDE:
            assert np.isnan(plane[v, u])
            assert distinct[v, u] == 0
            continue
        second = min(s[i] for i in range(D) if abs(i - k) > 2)
        curve = np.polyfit([-1.0, 0.0, 1.0], s[k - 1 : k + 2], 2)
        assert plane[v, u] == pytest.approx(k - curve[1] / (2 * curve[0]), abs=1e-4)
        assert distinct[v, u] == pytest.approx(1 - s[k] / second, abs=1e-5)
        assert own[v, u] == cost[v, u, k]


def test_sharpened_depth_comes_nearer_to_the_surface_than_its_plane():
    """A slanted surface seen by two cameras moved sideways, drawn without any error."""
    # The middle of a dense pixel lies between four of the tracked picture's.
    turned, shift = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1.0]]), 60.0

    def drawn(x, y):
        return 120 + 40 * np.sin(0.35 * x) * np.cos(0.3 * y) + 20 * np.sin(0.15 * x + 0.2 * y)

    y, x = np.mgrid[0 : 2 * H, 0 : 2 * W].astype(float)
    slant = 0.1 + 0.0005 * x / 2  # inverse depth of the reference's pixel
    reference = drawn(x, y)
    neighbours, moved = [], []
    for side in (-1.0, 1.0):
        # x' = x + side · shift · ρ(x), solved for the x whose pixel lies at x'.
        origin = (x - side * shift * 0.1) / (1 + side * shift * 0.00025)
        neighbours.append(drawn(origin, y))
        moved.append([side * shift, 0.0, 0.0])
    truth = (slant[::2, ::2] + slant[1::2, 1::2]) / 2
    step = np.float32(0.012)
    start = (truth + 0.4 * step * np.sign(np.sin(np.arange(W)))).astype(np.float32)
    refined, information = refine_kernels.refine(
        reference.astype(np.float32),
        np.array(neighbours, np.float32),
        np.array([turned, turned], np.float32),
        np.array(moved, np.float32),
        start,
        step,
    )
    sharp = information > 0
    assert sharp.mean() > 0.4
    before = np.abs(start - truth)[sharp]
    after = np.abs(refined - truth)[sharp]
    assert np.median(after) < 0.1 * np.median(before)
    weight = information[sharp] / information[sharp].sum()
    assert (weight * after).sum() < 0.2 * np.median(before)


def test_depth_that_is_not_known_stays_so():
    picture = np.random.default_rng(1).uniform(0, 255, (2 * H, 2 * W)).astype(np.float32)
    unknown = np.full((H, W), np.nan, np.float32)
    refined, information = refine_kernels.refine(
        picture,
        picture[None],
        np.diag([2.0, 2.0, 1.0])[None].astype(np.float32),
        np.zeros((1, 3), np.float32),
        unknown,
        np.float32(0.01),
    )
    assert np.isnan(refined).all()
    assert not information.any()
