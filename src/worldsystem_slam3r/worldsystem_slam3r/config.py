# SPDX-License-Identifier: Apache-2.0
"""Settings of the reconstruction stage."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.config import Config, param

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Slam3rConfig(Config):
    """Poses and dense keyframes from a video."""

    backend: str = param(
        "geometric",
        "which reconstruction back-end runs: geometric, slam3r, slam3r_tiny (weights of your own: "
        "training/README.md), da3, or auto: slam3r where it keeps up with a video, else geometric",
    )
    synchronous: bool = param(
        False, "compute dense depth inside feed(), so that the same video gives the same result"
    )
    prompt_depth: bool = param(
        False,
        "measure a keyframe's depth at once, from those before it, instead of from both sides "
        "once the next is there",
    )
    own_process: bool = param(
        False,
        "run the back-end in a process of its own, whose interpreter no other stage holds up; "
        "`worldsystem run` turns it on for live sources where all stages share a process and there "
        "are two cores or more",
    )
    spare_process: bool = param(
        True,
        "where the back-end has a process of its own, keep another that has loaded everything and "
        "takes over when that dies",
    )
    focal_px: float = param(
        0.0, "focal length at the video's own size; 0 = from the camera, else estimated [px]", low=0
    )
    frame_step: int = param(
        1, "every so many pictures one is worked on; the others end as `skipped`", low=1
    )
    queue_frames: int = param(
        6,
        "pictures that may wait; when more come the oldest is let go and counted",
        low=1,
        high=100,
    )
    processing_width: int = param(640, "pictures wider than this are reduced [px]", low=64)
    tracks: int = param(400, "points followed from picture to picture", low=50, high=4000)
    window_keyframes: int = param(9, "keyframes refined together", low=3, high=40)
    depth_planes: int = param(64, "inverse-depth steps of the plane sweep", low=16, high=255)
    depth_neighbours: int = param(4, "keyframes that a dense depth is matched to", low=1, high=8)
    threads: int = param(2, "threads of the picture library", low=1, high=16)

    path_poses: int = param(
        200_000,
        "most poses of the path, some hours; of a longer one the older half is thinned out",
        low=100,
    )
    cloud_points: int = param(
        2_000_000, "most points of the cloud of all keyframes", low=1000, high=2_000_000
    )
    cloud_period_s: float = param(
        5.0, "time from one publication of that cloud to the next [s]; 0: never", low=0.0
    )
    graph: bool = param(
        True, "close loops, survive losses and merge sub-maps around whichever back-end runs"
    )
    submap_after_s: float = param(
        3.0, "time without a place after which a sub-map is begun [s]", low=0.2
    )
    submap_keyframes: int = param(
        40, "keyframes of a sub-map without a place that wait for an overlap", low=3, high=500
    )

    replace_views: bool = param(
        True,
        "let a keyframe stand in for an older one that shows the same from the same place: the map "
        "then grows with the area that was seen, not with time",
    )

    metric: bool = param(
        True, "turn the scene into a metric map once GPS or another measurement tells its size"
    )
    metric_sigma: float = param(
        0.05,
        "relative standard deviation of the scale from which it is believed",
        low=0.001,
        high=0.5,
    )
    map: str = param(
        "", "folder of a saved map to go on in and to keep saved; a new one where there is none"
    )
    map_folder: str = param(
        "", "where the service `save_map` saves that is told no path; empty: `map`"
    )
    map_every_s: float = param(
        10.0,
        "time between two saves of `map`, longer for one that is large; 0 = only load it [s]",
        low=0.0,
    )
    map_mb: int = param(
        256, "memory for the compressed surfaces of keyframes that a map is saved from [MB]", low=0
    )
    marker_m: float = param(
        0.0, "edge of printed ArUco markers (4×4, 50) in sight; 0 = none [m]", low=0.0
    )

    weights: str = param(
        "", "folder of the networks' weights; empty: WORLDSYSTEM_WEIGHTS, else the cache"
    )
    fallback: bool = param(
        False, "run `geometric`, saying so, where the back-end asked for cannot run here"
    )
    device: str = param(
        "auto", "where the networks run; auto: the GPU if there is one", choices=DEVICES
    )
    precision: str = param(
        "auto",
        "number type of the networks; auto: bfloat16 on a GPU, else float32",
        choices=PRECISIONS,
    )
    cuda_graphs: bool = param(
        True, "record the networks' kernels once per shape and replay them; on a GPU"
    )
    compiled: bool = param(
        False, "compile the networks' blocks with torch.compile, in the first minute; for a GPU"
    )
    whole_video: bool = param(
        False, "place no frame before the video has ended: each may then look ahead; for files"
    )
    whole_video_frames: int = param(
        20_000, "most frames of a whole video, which are kept at 150 kB each", low=1
    )
    picture_px: int = param(
        0, "side of the networks' square picture; 0 = as the weights were trained [px]", low=0
    )
    keyframe_stride: int = param(
        0, "frames from one key frame to the next; 0 = as the motion demands", low=0, high=100
    )
    stride_min: int = param(1, "least key-frame stride that motion can demand", low=1, high=100)
    stride_max: int = param(15, "largest key-frame stride that motion can demand", low=1, high=100)
    initial_window: int = param(5, "key frames that a scene starts with", low=3, high=11)
    initial_confidence: float = param(
        5.0, "mean confidence wanted of a start; below it the window shrinks", low=0
    )
    neighbours: int = param(
        3, "frames before it, a stride apart, that a frame is seen together with", low=1, high=10
    )
    scene_frames: int = param(
        7, "retrieved scene frames that a frame is seen together with", low=1, high=50
    )
    retrieve_every: int = param(5, "frames between two retrievals of scene frames", low=1)
    register_together: int = param(
        2, "frames registered in one call: more is faster, and later by as many", low=1, high=20
    )
    da3_variant: str = param(
        "auto", "network of `da3`: auto (the largest that fits), small, base, large, giant, nested"
    )
    da3_window: int = param(8, "pictures that `da3` sees together", low=2, high=64)
    da3_overlap: int = param(
        4, "pictures that two of its windows share, at most all but one", low=1, high=32
    )
    da3_px: int = param(504, "longer side of its pictures [px]", low=56, high=1008)
    local_confidence: float = param(
        1.5, "points of a frame's own geometry below this confidence count as unknown", low=1
    )
    lost_confidence: float = param(
        2.0, "a frame whose mean confidence in the scene is lower is lost", low=0
    )
    inlier_share: float = param(
        0.4, "a frame of whose points fewer fit its pixels and its geometry is lost", low=0, high=1
    )
    most_way: float = param(
        1.0,
        "a frame that would lie further from the last, in mean distances of what is seen, is "
        "lost; 0 = not judged",
        low=0,
    )
    restart_after: int = param(
        30, "lost frames after which a new scene is begun, beside looking for the old", low=1
    )
    keyframe_confidence: float = param(
        3.0, "points below this confidence are left out of key frames", low=1
    )
    buffer_frames: int = param(100, "scene frames kept to register to", low=10, high=1000)
    buffer_strategy: str = param(
        "reservoir",
        "which scene frame makes room: a random one (single places) or the oldest (long ways)",
        choices=("reservoir", "fifo"),
    )
    re_anchor: bool = param(
        True, "show the networks the scene from the last camera, as in training, not from its start"
    )
    seed: int = param(42, "of the random choice of scene frames", low=0)
