# SPDX-License-Identifier: Apache-2.0
"""Compiled inner loops of bundle adjustment: robust cost, normal equations, Schur complement.

Cameras are `cam_from_world` (R, t); a camera update is R ← exp(ω) R, t ← t + τ with the six
parameters (ω, τ). The lens is (fx, fy, cx, cy, k1, k2): a ray (a, b, 1) lies at (fx d a + cx,
fy d b + cy) with d = 1 + k1 r² + k2 r⁴ and r² = a² + b². Its updates are those of the logarithm of
the focal length, of k1 and of k2; the first `m` of the three are freed.
Observations are sorted by point: those of point p are `first[p]:first[p + 1]`.
"""

from __future__ import annotations

import numba
import numpy as np

NEAR = 1e-6
"""Depth [world units] at or below which an observation is behind the camera and left out."""


@numba.njit(cache=True, nogil=True, inline="always")
def _turned(R, x):  # type: ignore[no-untyped-def]
    """R x written out: the library call behind `@` costs more than the nine products."""
    return (
        R[0, 0] * x[0] + R[0, 1] * x[1] + R[0, 2] * x[2],
        R[1, 0] * x[0] + R[1, 1] * x[1] + R[1, 2] * x[2],
        R[2, 0] * x[0] + R[2, 1] * x[1] + R[2, 2] * x[2],
    )


@numba.njit(cache=True, nogil=True)
def residuals(R, t, points, cam, point, uv, lens):  # type: ignore[no-untyped-def]
    """Reprojection residuals (n, 2) [px]; NaN where the point is not before the camera."""
    n = len(cam)
    out = np.empty((n, 2))
    for i in range(n):
        c, p = cam[i], point[i]
        y0, y1, y2 = _turned(R[c], points[p])
        z = y2 + t[c, 2]
        if z <= NEAR:
            out[i] = np.nan
            continue
        a, b = (y0 + t[c, 0]) / z, (y1 + t[c, 1]) / z
        r2 = a * a + b * b
        d = 1.0 + r2 * (lens[4] + r2 * lens[5])
        out[i, 0] = lens[0] * d * a + lens[2] - uv[i, 0]
        out[i, 1] = lens[1] * d * b + lens[3] - uv[i, 1]
    return out


@numba.njit(cache=True, nogil=True)
def robust_cost(res, huber_px):  # type: ignore[no-untyped-def]
    """Sum of Huber costs [px²]; a point behind its camera costs as much as one 100 px off."""
    total = 0.0
    for i in range(len(res)):
        r = np.sqrt(res[i, 0] ** 2 + res[i, 1] ** 2)
        if not np.isfinite(r):
            r = 100.0
        total += r * r if r <= huber_px else huber_px * (2.0 * r - huber_px)
    return total


@numba.njit(cache=True, nogil=True, inline="always")
def _jacobians(R, t, X, uv, lens, D, Jc, Jp, Jl, e):  # type: ignore[no-untyped-def]
    """Derivatives of one residual by camera (2×6), point (2×3) and lens (2×3); False if behind.

    `e` (2) becomes the residual; `D` (2, 3) is room to work in.
    """
    y0, y1, y2 = _turned(R, X)
    x0, x1, x2 = y0 + t[0], y1 + t[1], y2 + t[2]
    if x2 <= NEAR:
        return False
    iz = 1.0 / x2
    a, b = x0 * iz, x1 * iz
    r2 = a * a + b * b
    d = 1.0 + r2 * (lens[4] + r2 * lens[5])
    bend = 2.0 * (lens[4] + 2.0 * r2 * lens[5])
    ua, ub = lens[0] * (d + a * a * bend), lens[0] * a * b * bend
    va, vb = lens[1] * a * b * bend, lens[1] * (d + b * b * bend)
    D[0, 0], D[0, 1], D[0, 2] = ua * iz, ub * iz, -(ua * a + ub * b) * iz
    D[1, 0], D[1, 1], D[1, 2] = va * iz, vb * iz, -(va * a + vb * b) * iz
    for k in range(2):
        Jc[k, 0] = -D[k, 1] * y2 + D[k, 2] * y1
        Jc[k, 1] = D[k, 0] * y2 - D[k, 2] * y0
        Jc[k, 2] = -D[k, 0] * y1 + D[k, 1] * y0
        for j in range(3):
            Jc[k, 3 + j] = D[k, j]
            Jp[k, j] = D[k, 0] * R[0, j] + D[k, 1] * R[1, j] + D[k, 2] * R[2, j]
    fa, fb = lens[0] * a, lens[1] * b
    Jl[0, 0], Jl[0, 1], Jl[0, 2] = fa * d, fa * r2, fa * r2 * r2
    Jl[1, 0], Jl[1, 1], Jl[1, 2] = fb * d, fb * r2, fb * r2 * r2
    e[0] = Jl[0, 0] + lens[2] - uv[0]
    e[1] = Jl[1, 0] + lens[3] - uv[1]
    return True


@numba.njit(cache=True, nogil=True)
def normal_equations(R, t, points, cam, first, uv, lens, m, huber_px, damping):  # type: ignore[no-untyped-def]
    """The camera system reduced by the points (Triggs et al., Bundle Adjustment, 2000, sec. 6).

    Returns S (6c+m, 6c+m), its right-hand side, and what back-substitution needs: per point the
    inverse block and gradient, per observation the mixed block (rows 0–5 camera, then the lens).
    """
    c, n, p = len(R), len(cam), len(points)
    f = 6 * c
    S, g = np.zeros((f + m, f + m)), np.zeros(f + m)
    W = np.zeros((n, 6 + m, 3))
    V_inv, gp = np.zeros((p, 3, 3)), np.zeros((p, 3))
    D, Jc, Jp, Jl = np.zeros((2, 3)), np.zeros((2, 6)), np.zeros((2, 3)), np.zeros((2, 3))
    V, e = np.zeros((3, 3)), np.zeros(2)
    for k in range(p):
        V[:] = 0.0
        for i in range(first[k], first[k + 1]):
            ci = cam[i]
            if not _jacobians(R[ci], t[ci], points[k], uv[i], lens, D, Jc, Jp, Jl, e):
                continue
            r = np.sqrt(e[0] * e[0] + e[1] * e[1])
            w = 1.0 if r <= huber_px else huber_px / r
            o = 6 * ci
            for a in range(6):
                for b in range(6):
                    S[o + a, o + b] += w * (Jc[0, a] * Jc[0, b] + Jc[1, a] * Jc[1, b])
                for b in range(m):
                    S[o + a, f + b] += w * (Jc[0, a] * Jl[0, b] + Jc[1, a] * Jl[1, b])
                g[o + a] -= w * (Jc[0, a] * e[0] + Jc[1, a] * e[1])
                for b in range(3):
                    W[i, a, b] = w * (Jc[0, a] * Jp[0, b] + Jc[1, a] * Jp[1, b])
            for a in range(m):
                for b in range(m):
                    S[f + a, f + b] += w * (Jl[0, a] * Jl[0, b] + Jl[1, a] * Jl[1, b])
                g[f + a] -= w * (Jl[0, a] * e[0] + Jl[1, a] * e[1])
                for b in range(3):
                    W[i, 6 + a, b] = w * (Jl[0, a] * Jp[0, b] + Jl[1, a] * Jp[1, b])
            for a in range(3):
                gp[k, a] -= w * (Jp[0, a] * e[0] + Jp[1, a] * e[1])
                for b in range(3):
                    V[a, b] += w * (Jp[0, a] * Jp[0, b] + Jp[1, a] * Jp[1, b])
        for a in range(3):
            V[a, a] += damping * V[a, a] + 1e-9
        _invert(V, V_inv[k])
    for a in range(f + m):
        S[a, a] += damping * S[a, a]
    _eliminate_points(S, g, W, V_inv, gp, cam, first)
    return S, g, W, V_inv, gp


@numba.njit(cache=True, nogil=True)
def _invert(V, out):  # type: ignore[no-untyped-def]
    """Inverse of a symmetric 3×3 matrix by its cofactors."""
    out[0, 0] = V[1, 1] * V[2, 2] - V[1, 2] * V[1, 2]
    out[0, 1] = V[0, 2] * V[1, 2] - V[0, 1] * V[2, 2]
    out[0, 2] = V[0, 1] * V[1, 2] - V[0, 2] * V[1, 1]
    out[1, 1] = V[0, 0] * V[2, 2] - V[0, 2] * V[0, 2]
    out[1, 2] = V[0, 1] * V[0, 2] - V[0, 0] * V[1, 2]
    out[2, 2] = V[0, 0] * V[1, 1] - V[0, 1] * V[0, 1]
    scale = 1.0 / (V[0, 0] * out[0, 0] + V[0, 1] * out[0, 1] + V[0, 2] * out[0, 2])
    for a in range(3):
        for b in range(a, 3):
            out[a, b] *= scale
            out[b, a] = out[a, b]


@numba.njit(cache=True, nogil=True, inline="always")
def _times(A, rows, V, out):  # type: ignore[no-untyped-def]
    """The first `rows` of A (·, 3) times the symmetric V (3, 3)."""
    for a in range(rows):
        for b in range(3):
            out[a, b] = A[a, 0] * V[0, b] + A[a, 1] * V[1, b] + A[a, 2] * V[2, b]


@numba.njit(cache=True, nogil=True)
def _eliminate_points(S, g, W, V_inv, gp, cam, first):  # type: ignore[no-untyped-def]
    """Subtract Σ W V⁻¹ Wᵀ from S and Σ W V⁻¹ gp from g; each pair of observations is met once."""
    m = W.shape[1] - 6
    f = len(S) - m
    WV, lens, lens_V = np.zeros((6, 3)), np.zeros((m, 3)), np.zeros((m, 3))
    for k in range(len(V_inv)):
        lens[:] = 0.0
        for i in range(first[k], first[k + 1]):
            for a in range(m):
                for b in range(3):
                    lens[a, b] += W[i, 6 + a, b]
        _times(lens, m, V_inv[k], lens_V)
        for a in range(m):
            for b in range(m):
                S[f + a, f + b] -= _dot(lens_V[a], lens[b])
            g[f + a] -= _dot(lens_V[a], gp[k])
        for i in range(first[k], first[k + 1]):
            oi = 6 * cam[i]
            _times(W[i], 6, V_inv[k], WV)
            for a in range(6):
                g[oi + a] -= _dot(WV[a], gp[k])
                for b in range(m):
                    S[oi + a, f + b] -= _dot(WV[a], lens[b])
            for j in range(i, first[k + 1]):
                oj = 6 * cam[j]
                for a in range(6):
                    for b in range(6):
                        shared = _dot(WV[a], W[j, b])
                        S[oi + a, oj + b] -= shared
                        if i != j:
                            S[oj + b, oi + a] -= shared
    for a in range(f):
        for b in range(m):
            S[f + b, a] = S[a, f + b]


@numba.njit(cache=True, nogil=True, inline="always")
def _dot(a, b):  # type: ignore[no-untyped-def]
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@numba.njit(cache=True, nogil=True)
def point_steps(step, W, V_inv, gp, cam, first):  # type: ignore[no-untyped-def]
    """Back-substitute the camera and lens step: the step of each point (p, 3)."""
    m = W.shape[1] - 6
    f = len(step) - m
    out = np.zeros_like(gp)
    rhs = np.zeros(3)
    for k in range(len(gp)):
        rhs[:] = gp[k]
        for i in range(first[k], first[k + 1]):
            o = 6 * cam[i]
            for b in range(3):
                for a in range(6):
                    rhs[b] -= W[i, a, b] * step[o + a]
                for a in range(m):
                    rhs[b] -= W[i, 6 + a, b] * step[f + a]
        out[k, 0], out[k, 1], out[k, 2] = _turned(V_inv[k], rhs)
    return out
