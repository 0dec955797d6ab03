# SPDX-License-Identifier: Apache-2.0
"""One picture with the texture of a whole mesh: pieces cut from the photos that show it best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64, Int, Int32, UInt8
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from worldsystem_core.surface import Mesh
from worldsystem_mesh.export.best_photo import NO_PHOTO, best_photos, face_neighbours, projected
from worldsystem_mesh.export.textured import Photo, TexturedMesh

MARGIN_PX = 2
LARGEST_PX = 8192
_PATCH_PX = 4


@dataclass(eq=False)
class Piece:
    """A rectangle of one photo (or of plain colours) that goes into the atlas at (x, y)."""

    pixels: UInt8[np.ndarray, "h w 3"]
    x: int = 0
    y: int = 0


def textured(mesh: Mesh, photos: Sequence[Photo]) -> TexturedMesh:
    """`mesh` with a texture at the photos' resolution; faces that none shows get their own colours.

    An empty mesh gives an empty one with a picture of one pixel.
    """
    best = best_photos(mesh, photos)
    chart = _charts(mesh, best)
    corners = np.zeros((len(mesh.faces), 3, 2))
    piece_of_face = np.zeros(len(mesh.faces), np.int64)
    pieces: list[Piece] = []
    for number, photo in enumerate(photos):
        px = projected(photo, mesh.vertices)[0]
        mine = np.flatnonzero(best == number)
        for faces in _groups(mine, chart):
            low = np.floor(px[mesh.faces[faces]].min(axis=(0, 1))).astype(int) - MARGIN_PX
            high = np.ceil(px[mesh.faces[faces]].max(axis=(0, 1))).astype(int) + MARGIN_PX + 1
            piece_of_face[faces] = len(pieces)
            pieces.append(Piece(_cut(photo.rgb, low, high)))
            corners[faces] = px[mesh.faces[faces]] - low
    _add_plain_colours(mesh, np.flatnonzero(best == NO_PHOTO), pieces, piece_of_face, corners)
    return _assembled(mesh, pieces, piece_of_face, corners)


def packed(sizes: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Places (x, y) for rectangles (width, height) on shelves of falling height, and the size."""
    area = sum(width * height for width, height in sizes)
    widest = max((width for width, _ in sizes), default=1)
    side = max(widest, int(np.ceil(np.sqrt(1.1 * area))))
    places = [(0, 0)] * len(sizes)
    x = y = shelf = 0
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i][1]):
        width, height = sizes[i]
        if x + width > side:
            x, y, shelf = 0, y + shelf, 0
        places[i] = (x, y)
        x, shelf = x + width, max(shelf, height)
    return places, (side, max(y + shelf, 1))


def _charts(mesh: Mesh, best: Int32[np.ndarray, "f"]) -> Int[np.ndarray, "f"]:
    """Number of the connected piece of one photo that each face belongs to."""
    pairs = face_neighbours(mesh)
    pairs = pairs[best[pairs[:, 0]] == best[pairs[:, 1]]]
    count = len(mesh.faces)
    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), (count, count))
    return np.asarray(connected_components(links, directed=False)[1])


def _groups(faces: Int[np.ndarray, "n"], chart: Int[np.ndarray, "f"]) -> list[np.ndarray]:
    """`faces` by chart."""
    order = faces[np.argsort(chart[faces], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(chart[order])) + 1) if len(order) else []


def _cut(rgb: UInt8[np.ndarray, "h w 3"], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A rectangle of a photo; beyond its border the border's colour goes on."""
    rows = np.clip(np.arange(low[1], high[1]), 0, rgb.shape[0] - 1)
    columns = np.clip(np.arange(low[0], high[0]), 0, rgb.shape[1] - 1)
    return np.asarray(rgb[rows[:, None], columns])


def _add_plain_colours(
    mesh: Mesh,
    faces: Int[np.ndarray, "n"],
    pieces: list[Piece],
    piece_of_face: Int[np.ndarray, "f"],
    corners: Float64[np.ndarray, "f 3 2"],
) -> None:
    """A patch for each colour (of 5 bits a channel) that faces without a photo have."""
    if not len(faces):
        return
    mean = mesh.colours[mesh.faces[faces]].mean(axis=1).astype(np.int64) >> 3
    colours, number = np.unique(mean, axis=0, return_inverse=True)
    piece_of_face[faces] = len(pieces) + number.reshape(-1)
    corners[faces] = (_PATCH_PX - 1) / 2.0
    for colour in (8 * colours + 4).astype(np.uint8):
        pieces.append(Piece(np.broadcast_to(colour, (_PATCH_PX, _PATCH_PX, 3))))


def _assembled(
    mesh: Mesh,
    pieces: list[Piece],
    piece_of_face: Int[np.ndarray, "f"],
    corners: Float64[np.ndarray, "f 3 2"],
) -> TexturedMesh:
    """Pieces on one picture; a vertex for each corner that differs in place or in texture."""
    places, (width, height) = packed([piece.pixels.shape[1::-1] for piece in pieces])
    picture = np.zeros((height, width, 3), np.uint8)
    for (x, y), piece in zip(places, pieces, strict=True):
        rows, columns = piece.pixels.shape[:2]
        picture[y : y + rows, x : x + columns] = piece.pixels
    at = np.array(places, np.float64).reshape(-1, 2)
    px = corners + at[piece_of_face][:, None] if len(pieces) else corners
    keys = np.stack([piece_of_face.repeat(3), mesh.faces.reshape(-1).astype(np.int64)], axis=-1)
    _, first, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    uv = (px.reshape(-1, 2)[first] + 0.5) / np.array([width, height])
    return TexturedMesh(
        vertices=mesh.vertices[mesh.faces.reshape(-1)[first]],
        uv=uv.astype(np.float32),
        faces=number.reshape(-1, 3).astype(np.int32),
        texture=_at_most(picture, LARGEST_PX),
    )


def _at_most(picture: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    scale = side / max(picture.shape[:2])
    if scale >= 1.0:
        return picture
    size = (max(int(picture.shape[1] * scale), 1), max(int(picture.shape[0] * scale), 1))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
