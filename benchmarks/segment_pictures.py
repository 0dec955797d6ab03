# SPDX-License-Identifier: Apache-2.0
"""Draws docs/pictures/objects.jpg: the indoor clip's tracks and its objects in the map.

tools/env.sh python benchmarks/segment_pictures.py
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from segment_films import Seen, see_indoor_clip

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import project
from worldsystem_core.geometry.se3 import inverse, look_at, transform
from worldsystem_core.objects import MapObject, ShownTracks
from worldsystem_core.overlay import draw_tracks, id_colour
from worldsystem_core.reconstruction import Keyframe

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "objects.jpg"
VIEW = Camera.from_horizontal_fov(960, 720, np.deg2rad(60.0))
MIN_SIGHTINGS = 6
MIN_POINTS = 150
POINT_STEP = 3
MIN_CONFIDENCE = 0.4
EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1]


def main() -> None:
    """Run the pipeline over the clip and draw what it found."""
    seen = see_indoor_clip()
    late = seen.keyframes[-8]  # the chair and the cabinet are both in view
    tracks = cv2.resize(draw_tracks(ShownTracks(rgb=late[0].rgb, tracks=late[1])), (960, 720))
    picture = np.hstack([tracks, world_view(seen)])
    smaller = cv2.resize(picture, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    cv2.imwrite(os.fspath(PICTURE), smaller[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    print(PICTURE, PICTURE.stat().st_size // 1000, "kB")


def world_view(seen: Seen) -> UInt8[np.ndarray, "h w 3"]:
    """The map's points with the boxes of its objects, seen from behind and above the cameras."""
    keyframes = [keyframe for keyframe, _ in seen.keyframes]
    eye_from_world = inverse(_behind(keyframes))
    picture = _splatted(keyframes, eye_from_world)
    shown = [o for o in seen.objects.objects if _worth_showing(o)]
    for thing in sorted(shown, key=lambda o: -float(np.linalg.norm(o.world_from_box[:3, 3]))):
        _draw_box(picture, thing, eye_from_world)
    return picture


def _worth_showing(thing: MapObject) -> bool:
    return thing.sightings >= MIN_SIGHTINGS and thing.point_count >= MIN_POINTS


def _behind(keyframes: list[Keyframe]) -> Float[np.ndarray, "4 4"]:
    """A camera that looks the way the last keyframe does, from farther back and higher up."""
    pose = keyframes[-8].world_from_cam
    depth = float(np.nanmedian(keyframes[-8].pointmap[..., 2]))
    up, ahead = -pose[:3, 1], pose[:3, 2]
    eye = pose[:3, 3] - 0.5 * depth * ahead + 0.6 * depth * up
    return np.asarray(look_at(eye, pose[:3, 3] + 0.8 * depth * ahead, up))


def _splatted(
    keyframes: list[Keyframe], eye_from_world: Float[np.ndarray, "4 4"]
) -> UInt8[np.ndarray, "h w 3"]:
    points, colours = [], []
    for keyframe in keyframes[::2]:
        some = (slice(None, None, POINT_STEP), slice(None, None, POINT_STEP))
        sure = keyframe.confidence[some] > MIN_CONFIDENCE
        points.append(transform(keyframe.world_from_cam, keyframe.pointmap[some][sure]))
        colours.append(keyframe.rgb[some][sure])
    cloud, colour = np.concatenate(points), np.concatenate(colours)
    local = transform(eye_from_world, cloud)
    pixels, inside = project(local, VIEW)
    order = np.argsort(-local[inside][:, 2], kind="stable")  # the near ones are drawn last
    u, v = np.rint(pixels[inside][order]).astype(int).T
    picture = np.full((VIEW.height, VIEW.width, 3), 24, np.uint8)
    for du, dv in np.ndindex(3, 3):
        picture[np.minimum(v + dv, VIEW.height - 1), np.minimum(u + du, VIEW.width - 1)] = colour[
            inside
        ][order]
    return (0.75 * picture).astype(np.uint8)


def _draw_box(
    picture: UInt8[np.ndarray, "h w 3"],
    thing: MapObject,
    eye_from_world: Float[np.ndarray, "4 4"],
) -> None:
    signs = np.array([[1 if n >> axis & 1 else -1 for axis in range(3)] for n in range(8)])
    corners = transform(thing.world_from_box, 0.5 * signs * thing.size)
    pixels, _ = project(transform(eye_from_world, corners), VIEW)
    if not np.isfinite(pixels).all():
        return
    colour = id_colour(thing.id)
    ends = np.rint(pixels).astype(int)
    for a, b in EDGES:
        cv2.line(picture, tuple(ends[a]), tuple(ends[b]), colour, 2, cv2.LINE_AA)
    text, font = f"{thing.id} {thing.label}", cv2.FONT_HERSHEY_SIMPLEX
    x, y = int(ends[:, 0].min()), max(18, int(ends[:, 1].min()) - 5)
    (width, height), _ = cv2.getTextSize(text, font, 0.55, 1)
    cv2.rectangle(picture, (x, y - height - 4), (x + width + 4, y + 4), colour, -1)
    cv2.putText(picture, text, (x + 2, y), font, 0.55, (0, 0, 0), 1, cv2.LINE_AA)


if __name__ == "__main__":
    main()
