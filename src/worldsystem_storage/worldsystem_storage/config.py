# SPDX-License-Identifier: Apache-2.0
"""Settings of the recorder."""

from __future__ import annotations

import re
from dataclasses import dataclass

from worldsystem_core.config import Config, param
from worldsystem_core.errors import ConfigError
from worldsystem_storage.selection import Selection


@dataclass(frozen=True, kw_only=True)
class StorageConfig(Config):
    """Where and how a run is recorded."""

    folder: str = param("recordings", "folder that holds one folder for each recording")
    name: str = param("", "name of the first recording's folder; empty = date and time")
    record_at_start: bool = param(True, "record from the start, not only when asked to")
    video_files: bool = param(True, "also write video.mp4, stills and metadata.json of the session")
    compression: str = param(
        "lz4", "compression of the bag's chunks", choices=("lz4", "zstd", "none")
    )
    chunk_kib: int = param(1024, "size at which a chunk of the bag is closed [KiB]", low=16)
    flush_s: float = param(
        0.5, "longest time a message waits in memory: what a crash can lose [s]", low=0.01, high=60
    )
    sync: bool = param(
        True, "have the disk confirm each flush: a power cut then loses little more than a crash"
    )
    split_mib: int = param(2048, "size at which the bag goes on in another file [MiB]", low=1)
    split_s: float = param(0.0, "time after which it does [s]; 0: never", low=0.0)
    topics: str = param(
        "",
        "topics to record, separated by spaces: /names, which stand for what lies below them too, "
        "or regular expressions; empty: all but the bulky",
    )
    exclude: str = param("", "topics that are left out, told in the same way")
    reserve_mib: int = param(
        1024, "free space left on the disk; recording stops before it is used [MiB]", low=1
    )
    queue_messages: int = param(4096, "messages that may wait for the disk", low=1)
    queue_mib: int = param(256, "size of the messages that may wait for the disk [MiB]", low=1)
    stall_s: float = param(
        5.0,
        "how long beyond flush_s the bag may fail to grow while messages come, before the recorder "
        "says so [s]",
        low=0.1,
    )
    still_every: int = param(30, "pictures from one still to the next; 0 for none", low=0)
    still_quality: int = param(90, "JPEG quality of stills", low=1, high=100)
    keyframe_files: bool = param(
        True, "also write keyframe_<number>.jpg and pose_<number>.npy into the session's folder"
    )
    metadata_every: int = param(300, "pictures between two saves of metadata.json", low=1)
    fragment_s: float = param(
        0.5, "length of a fragment of video.mp4: what a crash can lose [s]", low=0.05, high=60
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, words in (("topics", self.topics), ("exclude", self.exclude)):
            try:
                Selection(words)
            except re.error as error:
                raise ConfigError(
                    f"StorageConfig.{name} = {words!r} is no regular expression: {error}"
                ) from error
