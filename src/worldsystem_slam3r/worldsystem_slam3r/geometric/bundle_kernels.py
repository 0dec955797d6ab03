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


@numba.njit(cache=True, nogil=True)
def residuals(R, t, points, cam, point, uv, K4):  # type: ignore[no-untyped-def]
    """Reprojection residuals (n, 2) [px]; NaN where the point is not before the camera."""
    n = len(cam)
    out = np.empty((n, 2))
    for i in range(n):
        c, p = cam[i], point[i]
        x = R[c] @ points[p] + t[c]
        if x[2] <= NEAR:
            out[i] = np.nan
            continue
        out[i, 0] = K4[0] * x[0] / x[2] + K4[2] - uv[i, 0]
        out[i, 1] = K4[1] * x[1] / x[2] + K4[3] - uv[i, 1]
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


@numba.njit(cache=True, nogil=True)
def _jacobians(R, t, X, K4, Jc, Jp, Jf):  # type: ignore[no-untyped-def]
    """Derivatives of one residual by camera (2×6), point (2×3), log focal (2); False if behind."""
    y = R @ X
    x0, x1, x2 = y[0] + t[0], y[1] + t[1], y[2] + t[2]
    if x2 <= NEAR:
        return False
    iz = 1.0 / x2
    D = np.zeros((2, 3))
    D[0, 0], D[0, 2] = K4[0] * iz, -K4[0] * x0 * iz * iz
    D[1, 1], D[1, 2] = K4[1] * iz, -K4[1] * x1 * iz * iz
    for a in range(2):
        Jc[a, 0] = -D[a, 1] * y[2] + D[a, 2] * y[1]
        Jc[a, 1] = D[a, 0] * y[2] - D[a, 2] * y[0]
        Jc[a, 2] = -D[a, 0] * y[1] + D[a, 1] * y[0]
        for b in range(3):
            Jc[a, 3 + b] = D[a, b]
            Jp[a, b] = D[a, 0] * R[0, b] + D[a, 1] * R[1, b] + D[a, 2] * R[2, b]
    Jf[0] = K4[0] * x0 * iz
    Jf[1] = K4[1] * x1 * iz
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
    Jc, Jp, Jf = np.zeros((2, 6)), np.zeros((2, 3)), np.zeros(2)
    f = 6 * c
    for k in range(p):
        V = np.zeros((3, 3))
        for i in range(first[k], first[k + 1]):
            ci = cam[i]
            if not _jacobians(R[ci], t[ci], points[k], K4, Jc, Jp, Jf):
                continue
            x = R[ci] @ points[k] + t[ci]
            e0 = K4[0] * x[0] / x[2] + K4[2] - uv[i, 0]
            e1 = K4[1] * x[1] / x[2] + K4[3] - uv[i, 1]
            r = np.sqrt(e0 * e0 + e1 * e1)
            w = 1.0 if r <= huber_px else huber_px / r
            o = 6 * ci
            for a in range(6):
                for b in range(a, 6):
                    S[o + a, o + b] += w * (Jc[0, a] * Jc[0, b] + Jc[1, a] * Jc[1, b])
                S[o + a, f] += w * (Jc[0, a] * Jf[0] + Jc[1, a] * Jf[1])
                g[o + a] -= w * (Jc[0, a] * e0 + Jc[1, a] * e1)
                for b in range(3):
                    W[i, a, b] = w * (Jc[0, a] * Jp[0, b] + Jc[1, a] * Jp[1, b])
            S[f, f] += w * (Jf[0] ** 2 + Jf[1] ** 2)
            g[f] -= w * (Jf[0] * e0 + Jf[1] * e1)
            for a in range(3):
                W[i, 6, a] = w * (Jf[0] * Jp[0, a] + Jf[1] * Jp[1, a])
                gp[k, a] -= w * (Jp[0, a] * e0 + Jp[1, a] * e1)
                for b in range(3):
                    V[a, b] += w * (Jp[0, a] * Jp[0, b] + Jp[1, a] * Jp[1, b])
        for a in range(3):
            V[a, a] += damping * V[a, a] + 1e-9
        V_inv[k] = np.linalg.inv(V)
    for a in range(f + 1):
        S[a, a] += damping * S[a, a]
    _eliminate_points(S, g, W, V_inv, gp, cam, first)
    return S, g, W, V_inv, gp


@numba.njit(cache=True, nogil=True)
def _eliminate_points(S, g, W, V_inv, gp, cam, first):  # type: ignore[no-untyped-def]
    """Subtract Σ W V⁻¹ Wᵀ from the upper triangle of S, then mirror it."""
    f = len(S) - 1
    WV = np.zeros((7, 3))
    for k in range(len(V_inv)):
        for i in range(first[k], first[k + 1]):
            oi = 6 * cam[i]
            for a in range(7):
                row = oi + a if a < 6 else f
                for b in range(3):
                    WV[a, b] = (
                        W[i, a, 0] * V_inv[k, 0, b]
                        + W[i, a, 1] * V_inv[k, 1, b]
                        + W[i, a, 2] * V_inv[k, 2, b]
                    )
                g[row] -= WV[a, 0] * gp[k, 0] + WV[a, 1] * gp[k, 1] + WV[a, 2] * gp[k, 2]
            for j in range(first[k], first[k + 1]):
                oj = 6 * cam[j]
                for a in range(7):
                    row = oi + a if a < 6 else f
                    for b in range(7):
                        column = oj + b if b < 6 else f
                        if row <= column:
                            S[row, column] -= (
                                WV[a, 0] * W[j, b, 0]
                                + WV[a, 1] * W[j, b, 1]
                                + WV[a, 2] * W[j, b, 2]
                            )
    for a in range(f + 1):
        for b in range(a):
            S[a, b] = S[b, a]


@numba.njit(cache=True, nogil=True)
def point_steps(step, W, V_inv, gp, cam, first):  # type: ignore[no-untyped-def]
    """Back-substitute the camera step: the step of each point (p, 3)."""
    f = len(step) - 1
    out = np.zeros_like(gp)
    for k in range(len(gp)):
        rhs = gp[k].copy()
        for i in range(first[k], first[k + 1]):
            o = 6 * cam[i]
            for b in range(3):
                for a in range(6):
                    rhs[b] -= W[i, a, b] * step[o + a]
                rhs[b] -= W[i, 6, b] * step[f]
        out[k] = V_inv[k] @ rhs
    return out
