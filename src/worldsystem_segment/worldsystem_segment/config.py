# SPDX-License-Identifier: Apache-2.0
"""Settings of segmentation; lengths are fractions of the scene unit, since scale is unknown."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.config import Config, param


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(Config):
    """How instances are cut out of a keyframe and how they keep their identity in the map.

    The scene unit is the median depth of the first usable keyframe; it never changes afterwards.
    """

    backend: str = param(
        "geometric", "what finds the objects: geometric (no weights), grounded_sam2 or sam3"
    )
    prompt: str = param(
        "",
        "phrases that select what is reported; empty = every object, or none with networks, which "
        "find what they are asked for alone",
    )
    prompt_threshold: float = param(
        0.3, "least score of phrases that tell none (networks)", low=0.0, high=1.0
    )
    detect_every: int = param(10, "pictures from one detection to the next (networks)", low=1)
    detector: str = param(
        "", "folder of Grounding DINO, MM-Grounding-DINO or LLMDet weights (grounded_sam2)"
    )
    masks: str = param("", "folder of SAM 2.1, EdgeTAM or SAM 3 weights")
    device: str = param(
        "auto", "where networks run; auto: the GPU if there is one", choices=("auto", "cpu", "cuda")
    )
    max_followed: int = param(20, "objects followed at once (networks)", low=1, high=200)
    lost_frames: int = param(150, "pictures after which an unseen one is no longer followed", low=1)
    max_wait_s: float = param(
        2.0, "a live keyframe that waited longer makes way once a newer one waits [s]", low=0.05
    )
    every_picture: bool = param(
        True, "networks follow objects through every picture, not only keyframes"
    )

    work_width_px: int = param(320, "wider keyframes are thinned to about this width [px]", low=32)
    min_confidence: float = param(0.1, "points below it are unknown", low=0.0, high=1.0)
    min_area_fraction: float = param(
        0.0012, "smallest instance [fraction of the picture]", low=0.0001, high=0.5
    )

    jump: float = param(
        0.05, "step in depth that separates things [fraction of depth]", low=0.005, high=0.5
    )
    crease_deg: float = param(
        40.0, "concave crease that separates touching things [degree]", low=5.0, high=90.0
    )
    ground_tolerance: float = param(
        0.012, "height above the ground that is still ground [fraction of depth]", low=0.001
    )
    relief: float = param(
        0.08, "how far the ground may leave its plane [fraction of depth]", low=0.005
    )
    wall_area: float = param(0.06, "smallest wall [scene unit squared]", low=0.01)
    max_extent: float = param(1.5, "longest object; longer is structure [scene unit]", low=0.01)

    voxel: float = param(0.015, "edge of a voxel of a track [scene unit]", low=0.001, high=0.5)
    confirm_hits: int = param(3, "sightings that confirm a track", low=1)
    tentative_keyframes: int = param(5, "an unconfirmed track unseen so long goes", low=1)
    vanish_keyframes: int = param(
        3, "sightings of empty space in a row that end a confirmed track", low=1
    )
    max_tracks: int = param(500, "tracks kept at most; births beyond it are counted", low=1)
    map: str = param("", "folder whose objects it goes on with, and keeps them saved to")
    map_every_s: float = param(
        10.0,
        "time between two saves of `map`, longer with many objects; 0 = only at the end [s]",
        low=0.0,
    )
    restore: bool = param(
        False, "ask at the start for the keyframes of before: after a crash of this stage alone"
    )
    map_folder: str = param(
        "", "where the service `save_objects` saves that is told no path; empty: `map`"
    )

    crops_per_object: int = param(30, "pictures kept of each object", low=1, high=1000)
    crops_mb: float = param(200.0, "pictures of all objects together [MB]", low=1.0)
    crop_period_s: float = param(2.0, "an object's best picture is told at most so often [s]")

    identify_url: str = param("", "vision service that is asked what objects are; empty: nobody is")
    identify_style: str = param(
        "chat",
        "`chat` (OpenAI-compatible) or `multipart` (POST of a form)",
        choices=("chat", "multipart"),
    )
    identify_model: str = param("", "model that a chat service is asked for")
    identify_question: str = param(
        "What is this object? Answer with a short noun phrase.", "what it is asked"
    )
    identify_by_itself: bool = param(False, "ask about each new object, not only when called")
    identify_timeout_s: float = param(20.0, "longest wait for an answer [s]", low=0.1, high=300.0)
    identify_per_minute: int = param(10, "requests at most, retries included", low=1, high=600)
    identify_attempts: int = param(3, "tries before giving up", low=1, high=10)

    max_voxels: int = param(4000, "voxels per track at most; more are counted", low=16)
