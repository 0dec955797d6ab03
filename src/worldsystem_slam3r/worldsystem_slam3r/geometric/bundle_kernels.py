# SPDX-License-Identifier: Apache-2.0
"""Compiled inner loops of bundle adjustment: robust cost, normal equations, Schur complement.

Cameras are `cam_from_world` (R, t); a camera update is R ← exp(ω) R, t ← t + τ with the six
parameters (ω, τ). Intrinsics are (fx, fy, cx, cy); the focal update scales fx and fy alike.
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
def residuals(R, t, points, cam, point, uv, K4):  # type: ignore[no-untyped-def]
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
        out[i, 0] = K4[0] * (y0 + t[c, 0]) / z + K4[2] - uv[i, 0]
        out[i, 1] = K4[1] * (y1 + t[c, 1]) / z + K4[3] - uv[i, 1]
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
def _jacobians(R, t, X, uv, K4, D, Jc, Jp, Jfe):  # type: ignore[no-untyped-def]
    """Derivatives of one residual by camera (2×6), point (2×3); False if behind.

    `Jfe` (2, 2): by log focal, and the residual itself; `D` (2, 3) is room to work in.
    """
    y0, y1, y2 = _turned(R, X)
    x0, x1, x2 = y0 + t[0], y1 + t[1], y2 + t[2]
    if x2 <= NEAR:
        return False
    iz = 1.0 / x2
    D[0, 0], D[0, 2] = K4[0] * iz, -K4[0] * x0 * iz * iz
    D[1, 1], D[1, 2] = K4[1] * iz, -K4[1] * x1 * iz * iz
    for a in range(2):
        Jc[a, 0] = -D[a, 1] * y2 + D[a, 2] * y1
        Jc[a, 1] = D[a, 0] * y2 - D[a, 2] * y0
        Jc[a, 2] = -D[a, 0] * y1 + D[a, 1] * y0
        for b in range(3):
            Jc[a, 3 + b] = D[a, b]
            Jp[a, b] = D[a, 0] * R[0, b] + D[a, 1] * R[1, b] + D[a, 2] * R[2, b]
    Jfe[0, 0] = K4[0] * x0 * iz
    Jfe[1, 0] = K4[1] * x1 * iz
    Jfe[0, 1] = Jfe[0, 0] + K4[2] - uv[0]
    Jfe[1, 1] = Jfe[1, 0] + K4[3] - uv[1]
    return True


@numba.njit(cache=True, nogil=True)
def normal_equations(R, t, points, cam, first, uv, K4, huber_px, damping):  # type: ignore[no-untyped-def]
    """The camera system reduced by the points (Triggs et al., Bundle Adjustment, 2000, sec. 6).

    Returns S (6c+1, 6c+1), its right-hand side, and what back-substitution needs: per point the
    inverse block and gradient, per observation the mixed block (rows 0–5 camera, row 6 focal).
    """
    c, n, p = len(R), len(cam), len(points)
    S = np.zeros((6 * c + 1, 6 * c + 1))
    g = np.zeros(6 * c + 1)
    W = np.zeros((n, 7, 3))
    V_inv = np.zeros((p, 3, 3))
    gp = np.zeros((p, 3))
    D, Jc, Jp, Jfe = np.zeros((2, 3)), np.zeros((2, 6)), np.zeros((2, 3)), np.zeros((2, 2))
    V = np.zeros((3, 3))
    f = 6 * c
    for k in range(p):
        V[:] = 0.0
        for i in range(first[k], first[k + 1]):
            ci = cam[i]
            if not _jacobians(R[ci], t[ci], points[k], uv[i], K4, D, Jc, Jp, Jfe):
                continue
            e0, e1 = Jfe[0, 1], Jfe[1, 1]
            r = np.sqrt(e0 * e0 + e1 * e1)
            w = 1.0 if r <= huber_px else huber_px / r
            o = 6 * ci
            for a in range(6):
                for b in range(6):
                    S[o + a, o + b] += w * (Jc[0, a] * Jc[0, b] + Jc[1, a] * Jc[1, b])
                S[o + a, f] += w * (Jc[0, a] * Jfe[0, 0] + Jc[1, a] * Jfe[1, 0])
                g[o + a] -= w * (Jc[0, a] * e0 + Jc[1, a] * e1)
                for b in range(3):
                    W[i, a, b] = w * (Jc[0, a] * Jp[0, b] + Jc[1, a] * Jp[1, b])
            S[f, f] += w * (Jfe[0, 0] ** 2 + Jfe[1, 0] ** 2)
            g[f] -= w * (Jfe[0, 0] * e0 + Jfe[1, 0] * e1)
            for a in range(3):
                W[i, 6, a] = w * (Jfe[0, 0] * Jp[0, a] + Jfe[1, 0] * Jp[1, a])
                gp[k, a] -= w * (Jp[0, a] * e0 + Jp[1, a] * e1)
                for b in range(3):
                    V[a, b] += w * (Jp[0, a] * Jp[0, b] + Jp[1, a] * Jp[1, b])
        for a in range(3):
            V[a, a] += damping * V[a, a] + 1e-9
        _invert(V, V_inv[k])
    for a in range(f + 1):
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


@numba.njit(cache=True, nogil=True)
def _eliminate_points(S, g, W, V_inv, gp, cam, first):  # type: ignore[no-untyped-def]
    """Subtract Σ W V⁻¹ Wᵀ from S and Σ W V⁻¹ gp from g; each pair of observations is met once."""
    f = len(S) - 1
    WV = np.zeros((6, 3))
    focal = np.zeros(3)
    for k in range(len(V_inv)):
        focal[:] = 0.0
        for i in range(first[k], first[k + 1]):
            for b in range(3):
                focal[b] += W[i, 6, b]
        for a in range(3):
            along = (
                V_inv[k, a, 0] * focal[0] + V_inv[k, a, 1] * focal[1] + V_inv[k, a, 2] * focal[2]
            )
            S[f, f] -= focal[a] * along
            g[f] -= gp[k, a] * along
        for i in range(first[k], first[k + 1]):
            oi = 6 * cam[i]
            for a in range(6):
                for b in range(3):
                    WV[a, b] = (
                        W[i, a, 0] * V_inv[k, 0, b]
                        + W[i, a, 1] * V_inv[k, 1, b]
                        + W[i, a, 2] * V_inv[k, 2, b]
                    )
                g[oi + a] -= WV[a, 0] * gp[k, 0] + WV[a, 1] * gp[k, 1] + WV[a, 2] * gp[k, 2]
                S[oi + a, f] -= WV[a, 0] * focal[0] + WV[a, 1] * focal[1] + WV[a, 2] * focal[2]
            for j in range(i, first[k + 1]):
                oj = 6 * cam[j]
                for a in range(6):
                    for b in range(6):
                        shared = (
                            WV[a, 0] * W[j, b, 0] + WV[a, 1] * W[j, b, 1] + WV[a, 2] * W[j, b, 2]
                        )
                        S[oi + a, oj + b] -= shared
                        if i != j:
                            S[oj + b, oi + a] -= shared
    for a in range(f):
        S[f, a] = S[a, f]


@numba.njit(cache=True, nogil=True)
def point_steps(step, W, V_inv, gp, cam, first):  # type: ignore[no-untyped-def]
    """Back-substitute the camera step: the step of each point (p, 3)."""
    f = len(step) - 1
    out = np.zeros_like(gp)
    rhs = np.zeros(3)
    for k in range(len(gp)):
        rhs[:] = gp[k]
        for i in range(first[k], first[k + 1]):
            o = 6 * cam[i]
            for b in range(3):
                for a in range(6):
                    rhs[b] -= W[i, a, b] * step[o + a]
                rhs[b] -= W[i, 6, b] * step[f]
        out[k, 0], out[k, 1], out[k, 2] = _turned(V_inv[k], rhs)
    return out
