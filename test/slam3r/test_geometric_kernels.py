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


def obvious_census(grey):
    """Row by row over the 5×5 taps two pixels apart, the first tap the highest of 24 bits."""
    h, w = grey.shape
    out = np.zeros((h, w), np.uint32)
    taps = [(dv, du) for dv in (-4, -2, 0, 2, 4) for du in (-4, -2, 0, 2, 4) if (dv, du) != (0, 0)]
    for v in range(4, h - 4):
        for u in range(4, w - 4):
            brighter = [grey[v + dv, u + du] > grey[v, u] for dv, du in taps]
            out[v, u] = int("".join("1" if one else "0" for one in brighter), 2)
    return out


def test_census_bits_say_in_order_which_taps_are_brighter(rng):
    grey = rng.integers(0, 5, (H, W)).astype(np.uint8)  # few levels: many taps are just as bright
    codes = sweep_kernels.census(grey)
    assert np.array_equal(codes, obvious_census(grey))
    assert (codes[4:-4, 4:-4] > 0).mean() > 0.5
    assert np.count_nonzero(codes) == np.count_nonzero(codes[4:-4, 4:-4])  # borders are 0


def test_a_change_of_exposure_leaves_census_alone(rng):
    grey = rng.integers(0, 100, (H, W)).astype(np.uint8)
    assert np.array_equal(sweep_kernels.census(grey), sweep_kernels.census(2 * grey + 40))


def test_a_picture_smaller_than_the_pattern_has_no_census():
    assert not sweep_kernels.census(np.arange(64, dtype=np.uint8).reshape(8, 8)).any()


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


def obvious_agreement(inverse_depth, others, turned, moved, tolerance):
    """Each pixel lifted to its point, seen by each other map and compared with the depth there."""
    h, w = inverse_depth.shape
    agree, against = np.zeros((h, w), int), np.zeros((h, w), int)
    for v, u in np.ndindex(h, w):
        if not inverse_depth[v, u] > 0:
            continue
        for other, A, b in zip(others, turned, moved, strict=True):
            x, y, z = A @ (u, v, 1) / inverse_depth[v, u] + b
            if z <= 0:
                continue
            column, row = np.floor(x / z + 0.5), np.floor(y / z + 0.5)
            if not (0 <= column < w and 0 <= row < h):
                continue
            seen = other[int(row), int(column)]
            if not seen > 0:
                continue
            times_as_far = z * seen
            agree[v, u] += abs(times_as_far - 1.0) < tolerance
            against[v, u] += times_as_far < 1.0 - 3.0 * tolerance
    return agree, against


def test_maps_agree_or_contradict_as_each_pixel_s_point_is_seen_by_them(rng):
    tolerance = 0.05
    depth = rng.uniform(1.0, 4.0, (H, W))
    inverse_depth = (1.0 / depth).astype(np.float32)
    inverse_depth[rng.random((H, W)) < 0.1] = np.nan
    inverse_depth[5, 5:9] = 0.0, -0.3, -1.0, 0.0
    plain = np.array([[1.0, 0.02, 0.3], [-0.02, 1.0, -0.4], [1e-3, -1e-3, 1.0]])
    turned = np.array([plain, plain, -np.eye(3), np.eye(3)])  # the third looks back
    moved = np.array([[3.0, -1.0, 0.1], [-2.0, 1.5, -1.2], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    others = (1.0 / rng.uniform(0.5, 4.0, (4, H, W))).astype(np.float32)
    others[3] = inverse_depth * rng.uniform(0.8, 1.1, (H, W)).astype(np.float32)
    others[rng.random(others.shape) < 0.1] = np.nan
    others[rng.random(others.shape) < 0.1] *= -1.0  # nothing can be seen there either
    given = inverse_depth, others, turned.astype(np.float32), moved.astype(np.float32)
    agree, against = sweep_kernels.agreement(*given, np.float32(1.0), np.float32(tolerance))
    obvious = obvious_agreement(*(part.astype(float) for part in given), tolerance)
    assert agree.max() > 1
    assert against.max() > 1
    # Single and double precision may put a ratio or a pixel on either side of its limit.
    assert (agree == obvious[0]).mean() > 0.99
    assert (against == obvious[1]).mean() > 0.99


def test_a_map_agrees_with_itself_and_is_contradicted_by_what_is_seen_behind_it():
    same, still = np.full((H, W), 0.5, np.float32), np.eye(3, dtype=np.float32)
    for factor, agreeing, contradicting in ((1.0, 1, 0), (0.9, 0, 1), (1.1, 0, 0), (0.97, 0, 0)):
        agree, against = sweep_kernels.agreement(
            same,
            (factor * same)[None].astype(np.float32),
            still[None],
            np.zeros((1, 3), np.float32),
            np.float32(1.0),
            np.float32(0.02),
        )
        assert (agree == agreeing).all()
        assert (against == contradicting).all()


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
