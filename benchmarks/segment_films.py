# SPDX-License-Identifier: Apache-2.0
"""Recorded films for segmentation: the indoor clip through the whole pipeline, and DAVIS' masks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from reconstruction_films import DATA

from worldsystem.pipeline import Pipeline
from worldsystem_core.frames import Camera, Frame
from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_core.reconstruction import Keyframe, NewKeyframe
from worldsystem_segment.segmenter import Segmenter
from worldsystem_slam3r.config import Slam3rConfig

ICL_HZ = 30.0
DAVIS_HZ = 24.0
DAVIS = Camera(width=854, height=480, fx=800.0, fy=800.0, cx=426.5, cy=239.5)
ICL = Camera(width=640, height=480, fx=525.0, fy=525.0, cx=319.5, cy=239.5)


@dataclass(frozen=True, eq=False)
class Seen:
    """What came of a film: keyframes with their tracks, and the objects at its end."""

    keyframes: list[tuple[Keyframe, TrackFrame]]
    objects: MapObjects
    segmenter: Segmenter


def see_indoor_clip(stride: int = 1) -> Seen:
    """The whole pipeline over the indoor clip, its camera known, its scale not."""
    pipeline = Pipeline(Slam3rConfig(backend="geometric", synchronous=True))
    kept: list[tuple[Keyframe, TrackFrame]] = []
    paths = sorted((DATA / "icl_livingroom1" / "rgb").glob("*.jpg"))[::stride]
    for index, path in enumerate(paths):
        frame = Frame(
            id=index, stamp_ns=int(index * stride * 1e9 / ICL_HZ), rgb=_read(path), camera=ICL
        )
        step = pipeline.feed(frame)
        new = [e.keyframe for e in step.events if isinstance(e, NewKeyframe)]
        if new and step.tracks is not None:
            kept.append((new[-1], step.tracks))
    pipeline.finish()
    return Seen(kept, pipeline.segmenter.objects(0), pipeline.segmenter)


def davis_dog() -> list[tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]]:
    """Pictures of a running dog and its true masks."""
    folder = DATA / "davis_libby"
    pictures = sorted((folder / "JPEGImages").glob("*.jpg"))
    masks = sorted((folder / "Annotations").glob("*.png"))
    return [(_read(p), _read(m)[..., 0] > 0) for p, m in zip(pictures, masks, strict=True)]


def follow_the_dog() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Label pictures of the keyframes that the film yields, and the true masks of the dog.

    The camera's focal length is a guess: the film does not tell it.
    """
    pipeline = Pipeline(Slam3rConfig(backend="geometric", synchronous=True))
    labels, truths = [], []
    film = davis_dog()
    for index, (rgb, _) in enumerate(film):
        stamp_ns = int(index * 1e9 / DAVIS_HZ)
        step = pipeline.feed(Frame(id=index, stamp_ns=stamp_ns, rgb=rgb, camera=DAVIS))
        new = [e.keyframe for e in step.events if isinstance(e, NewKeyframe)]
        if new and step.tracks is not None:
            size = film[0][1].shape[::-1]
            picture = cv2.resize(step.tracks.labels, size, interpolation=cv2.INTER_NEAREST)
            labels.append(np.asarray(picture))
            truths.append(film[new[-1].frame_id][1])
    return labels, truths


def has_films() -> bool:
    """Whether the recordings are on this machine."""
    return (DATA / "davis_libby").is_dir() and (DATA / "icl_livingroom1").is_dir()


def _read(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    picture = cv2.imread(os.fspath(path), cv2.IMREAD_COLOR)
    assert picture is not None, path
    return np.ascontiguousarray(picture[..., ::-1])
