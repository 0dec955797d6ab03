# SPDX-License-Identifier: Apache-2.0
"""The slow and obvious twins of the compiled loops behind ground, planes and numbered pixels."""

from __future__ import annotations

import numpy as np


def sampled(vectors, which, stride):
    return vectors[:, ::stride, ::stride][:, which[::stride, ::stride]]


def looking(normals, which, direction, least):
    return which & (np.tensordot(direction, normals, 1) > least)


def densest(normals, weights, starts=24, near=0.94):
    places = np.linspace(0, normals.shape[1] - 1, starts).astype(int)
    totals = [weights[normals[:, place] @ normals > near].sum() for place in places]
    return normals[:, places[int(np.argmax(totals))]]


def mean_near(normals, direction, least):
    total = normals[:, direction @ normals > least].sum(axis=1)
    return total / max(np.linalg.norm(total), 1e-12)


def heights_by_bin(points, direction, bins):
    height = direction @ points
    edges = np.linspace(height.min() - 1e-3, height.max() + 1e-3, bins + 1)
    return np.histogram(height, edges)[0], edges[0], edges[1] - edges[0]


def plane_equations(points, plane, gate, basis):
    distance = plane[:3] @ points + plane[3]
    close = np.abs(distance) < gate * points[2]
    points, distance = points[:, close].T.astype(float), distance[close]
    local = (points - points.mean(axis=0)) @ basis
    a = np.column_stack([local, np.ones(len(local))]) / points[:, 2:]
    b = distance / points[:, 2]
    return np.column_stack([a.T @ a, a.T @ b]), points.mean(axis=0), len(points)


def beside_ground(points, normals, valid, plane, relief, tolerance, tall):
    height = np.tensordot(plane[:3], points, 1) + plane[3] - relief * points[2]
    limit = tolerance * points[2]
    upward = np.tensordot(plane[:3], normals, 1) > 0.5
    on = valid & (np.abs(height) < np.where(upward, limit, 0.6 * limit))
    return on, valid & (height <= -limit), height > tall * limit


def first_plane(points, normals, which, planes, tolerance, centres, radii):
    found = np.full(which.shape, -1)
    for number, (plane, centre, radius) in enumerate(zip(planes, centres, radii, strict=True)):
        distance = np.abs(np.tensordot(plane[:3], points, 1) + plane[3])
        limit = tolerance * points[2]
        facing = np.tensordot(plane[:3], normals, 1) > 0.8
        away = np.linalg.norm(points - centre[:, None, None], axis=0)
        near = (distance < limit) & (facing | (distance < 0.5 * limit)) & (away < radius)
        found = np.where(which & near & (found < 0), number, found)
    return found


def doubled(labels, which):
    full = labels.repeat(2, axis=0).repeat(2, axis=1)[: which.shape[0], : which.shape[1]]
    return np.where(which, full, 255)


def area_of(points, normals, which, focal):
    cosine = np.abs((normals * points).sum(axis=0)) / np.linalg.norm(points, axis=0)
    return np.nansum((points[2] ** 2 / focal / np.maximum(cosine, 0.15))[which])


def areas(labels, count):
    return np.array([(labels == number).sum() for number in range(count)])


def extent_of(labels):
    rows, columns = np.nonzero(labels)
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def by_label(labels, count):
    pixels = [np.flatnonzero(labels == number) for number in range(1, count + 1)]
    return np.concatenate(pixels), np.cumsum([0, *map(len, pixels)])


def inner(labels, rim):
    framed = np.pad(labels, rim)
    h, w = labels.shape
    same = labels > 0
    for down, right in ((0, rim), (2 * rim, rim), (rim, 0), (rim, 2 * rim)):
        same = same & (framed[down : down + h, right : right + w] == labels)
    return same


def at_border(labels, count):
    edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.isin(np.arange(count + 1), edges)


def overhangs(labels, points, normals, up, reaches, steepest):
    tilt = np.tensordot(up, normals, 1)
    found, taken = [], np.zeros(labels.shape, bool)
    for reach in reaches:
        above, below = labels[:-reach], labels[reach:]
        meets = (above > 0) & (below > 0) & (above != below) & ~taken[reach:]
        rows, columns = np.nonzero(meets)
        under = rows + reach
        way = points[:, rows, columns] - points[:, under, columns]
        over = (up @ way > 0) & (tilt[under, columns] < steepest)
        over &= way[2] < 0.02 * points[2, under, columns]
        rows, columns, under = rows[over], columns[over], under[over]
        taken[under, columns] = True
        gap = np.linalg.norm(way[:, over], axis=0)
        found.append((labels[rows, columns], labels[under, columns], gap, columns))
    return [np.concatenate(part) for part in zip(*found, strict=True)]


def widths_and_extents(labels, points, count):
    width, extent = [0], [0.0]
    for number in range(1, count + 1):
        own = labels == number
        width.append(own.any(axis=0).sum())
        extent.append(np.ptp(points[:, own], axis=1).max() if own.any() else 0.0)
    return np.array(width), np.array(extent)
