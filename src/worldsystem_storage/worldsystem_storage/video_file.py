# SPDX-License-Identifier: Apache-2.0
"""The session folder: the video as it was received, stills, and what belongs to them.

`<folder>/<YYYYmmdd_HHMMSS>/` holds `video.mp4`, `frame_<number>.jpg`, `metadata.json`, and for each
keyframe `keyframe_<number>.jpg` with `pose_<number>.npy`. H.264 and H.265 are copied, never
re-encoded. The mp4 is written in fragments, so that it plays after a crash. Until the session ends
its stills are listed in `stills.jsonl`, then in `metadata.json`.
"""

from __future__ import annotations

import errno
import heapq
import io
import itertools
import json
import logging
import os
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2

from worldsystem_core.byte_stream import parameter_sets
from worldsystem_core.frames import EncodedFrame, Frame
from worldsystem_core.whole_file import replace_text, sync_folder
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.disk_sync import DiskSync
from worldsystem_storage.errors import DiskFull, StorageError
from worldsystem_storage.space import Reserve
from worldsystem_storage.still_list import STILLS_FILE, StillList

log = logging.getLogger(__name__)

VIDEO_CLOCK_HZ = 90_000
_TICK = Fraction(1, VIDEO_CLOCK_HZ)
_FULL, _AWAY = (errno.ENOSPC, errno.EDQUOT), (errno.EIO, errno.EROFS, errno.ENOTCONN, errno.ESTALE)
_DISK_ERRORS = (*_FULL, *_AWAY)
_LONGEST_PAUSE_NS = 3600 * 10**9
_LONGEST_STEP_BACK_NS = 10**9
_MOST_REORDERED = 16  # as many as either codec allows
_FFMPEG_FORMATS = {"h264": "h264", "h265": "hevc"}


class VideoSession:
    """One session's folder; safe to call from several threads.

    Presentation times are the frames' capture stamps, from the first on, also of pictures that are
    coded out of order. A new parameter set, as after a change of resolution, goes on in
    `video_2.mp4`, because an mp4 track has one, and so does the first key frame after a full disk
    or a pause of an hour, and after the clock was set back.
    Raises `StorageError` when the folder cannot be made; frames that cannot be stored are counted
    in `dropped` by reason.
    """

    def __init__(self, root: Path, config: StorageConfig, start: datetime | None = None) -> None:
        start = start or datetime.now(UTC)
        self.session_id = start.strftime("%Y%m%d_%H%M%S")
        self.total_frames = 0
        self.dropped: Counter[str] = Counter()
        self._config = config
        self._start = start
        self._reserve = Reserve(Path(root), config.reserve_mib)
        self._disk = DiskSync() if config.sync else None
        self._videos: list[str] = []
        self._track: _Track | None = None
        self._lock = threading.RLock()
        self._confirmed_s = 0.0
        self._full = False
        self._closed = False
        self._folder = _new_folder(Path(root), self.session_id)
        self.session_id = self._folder.name
        self._shown = itertools.count()  # one step of it is not divided between threads
        self._stills = StillList(self._folder)
        self._save(None)

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def videos(self) -> list[Path]:
        """The video files so far, in order."""
        return [self._folder / name for name in self._videos]

    def write(self, frame: EncodedFrame) -> bool:
        """Append one access unit; False when it was dropped, which `dropped` counts by reason."""
        with self._lock:
            return self._lost("closed") if self._closed else self._write(frame)

    def still(self, frame: Frame) -> Path | None:
        """Save every `still_every`-th picture that is shown here, from the first on, by its number.

        None for the others. Ids do not count: a picture of another process has its stamp as one.
        """
        every = self._config.still_every
        if self._closed or not every:
            return None
        number = next(self._shown)
        if number % every:
            return None
        path = self._folder / f"frame_{number}.jpg"
        quality = [cv2.IMWRITE_JPEG_QUALITY, self._config.still_quality]
        try:
            self._reserve.check()
            _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR), quality)
            path.write_bytes(jpeg.tobytes())
            self._list_still(number, frame.stamp_ns, path.name)
        except DiskFull as error:
            self._lost("disk_full", error)
            return None
        except (OSError, cv2.error) as error:
            self._lost("still_not_written", error)
            return None
        return path

    def close(self) -> None:
        """Finish the video and write the session's end; calling it twice is allowed."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._end_track()
            self._save(datetime.now(UTC))
        if self._disk:
            self._disk.close()

    def _list_still(self, number: int, stamp_ns: int, name: str) -> None:
        stamp = _iso(datetime.fromtimestamp(stamp_ns / 1e9, UTC))
        with self._lock:
            if not self._closed:
                self._stills.add({"frame_number": number, "timestamp": stamp, "path": name})

    def _write(self, frame: EncodedFrame) -> bool:
        try:
            if frame.is_key:
                self._reserve.check()
                self._full = False
            track = self._track_for(frame)
            if track is None:
                return self._lost(self._why_no_track(frame))
            track.write(frame)
        except DiskFull as error:
            self._full = True
            self._end_track()
            return self._lost("disk_full", error)
        except (OSError, ValueError, av.FFmpegError) as error:
            if getattr(error, "errno", 0) in _DISK_ERRORS:
                self._end_track()  # the next key frame begins another file
            return self._lost("not_written", error)
        self._have_confirmed(track)
        self.total_frames += 1
        if self.total_frames % self._config.metadata_every == 0:
            self._save(None)
        return True

    def _why_no_track(self, frame: EncodedFrame) -> str:
        if self._full:
            return "disk_full"
        return "key_frame_without_parameters" if frame.is_key else "before_key_frame"

    def _have_confirmed(self, track: _Track) -> None:
        """What was written so far comes to the disk once a fragment, for power cuts."""
        if self._disk and time.monotonic() - self._confirmed_s >= self._config.fragment_s:
            self._confirmed_s = time.monotonic()
            self._disk.request(track.fileno())

    def _track_for(self, frame: EncodedFrame) -> _Track | None:
        """The track that `frame` goes to: the current one, or a new one at new parameter sets."""
        if self._track is None and not frame.is_key:
            return None
        parameters = parameter_sets(frame.data, frame.codec) if frame.is_key else ()
        goes_on = self._track is not None and self._track.goes_on(frame, parameters)
        if not parameters or goes_on:
            return self._track
        self._end_track()
        number = len(self._videos) + 1
        name = "video.mp4" if number == 1 else f"video_{number}.mp4"
        self._track = _Track(self._folder / name, frame, parameters, self._config.fragment_s)
        self._videos.append(name)
        return self._track

    def _end_track(self) -> None:
        track, self._track = self._track, None
        try:
            if track is not None:
                track.close()
        except (OSError, av.FFmpegError) as error:
            self._lost("video_not_finished", error)

    def _lost(self, reason: str, error: Exception | None = None) -> bool:
        if error is not None and not self.dropped[reason]:
            log.error("%s: %s: %s; more of it is only counted", self._folder, reason, error)
        self.dropped[reason] += 1
        return False

    def _save(self, end: datetime | None) -> None:
        content: dict[str, object] = {
            "session_id": self.session_id,
            "start_time": _iso(self._start),
            "end_time": None if end is None else _iso(end),
            "total_frames": self.total_frames,
        }
        path = self._folder / "metadata.json"
        try:
            if end is None:
                so_far: dict[str, object] = {**content, "frames": [], "frames_file": STILLS_FILE}
                replace_text(path, json.dumps(so_far, indent=1) + "\n")
            else:
                replace_text(path, self._stills.in_full(content))
                self._stills.remove()
        except OSError as error:
            self._lost("metadata_not_written", error)


class _Track:
    """One mp4 file with one track of H.264 or H.265."""

    def __init__(
        self, path: Path, first: EncodedFrame, parameters: tuple[bytes, ...], fragment_s: float
    ) -> None:
        self.parameters = parameters
        self._first_ns = self._newest_ns = first.stamp_ns
        self._path, self._descriptor = path, -1
        with av.open(io.BytesIO(first.data), format=_FFMPEG_FORMATS[first.codec]) as probe:
            source = probe.streams.video[0]
            if not source.width or not source.codec_context.extradata:
                raise ValueError("the parameter sets of the key frame cannot be read")
            options = {
                "movflags": "frag_keyframe+empty_moov+default_base_moof",
                "frag_duration": str(round(1e6 * fragment_s)),
                "flush_packets": "1",
            }
            whole = str(path.absolute())  # FFmpeg takes `12:30/` for a protocol
            self._container = av.open(whole, "w", format="mp4", options=options)
            self._stream: Any = self._container.add_stream_from_template(source)  # PyAV's union
            depth = source.codec_context.reorder_depth
        self._stream.time_base = _TICK
        self._order = list(range(-depth, 0))
        self._last_dts: int = -depth - 1

    def goes_on(self, key_frame: EncodedFrame, parameters: tuple[bytes, ...]) -> bool:
        """Whether a key frame belongs to this file. FFmpeg takes no step of 2^31 ticks, and none
        back: after one all pictures follow at once. Coding order puts no picture before a key frame
        that is shown after it, so that one far back is of a clock that was set back."""
        step_ns = key_frame.stamp_ns - self._newest_ns
        return (
            self.parameters == parameters and -_LONGEST_STEP_BACK_NS <= step_ns < _LONGEST_PAUSE_NS
        )

    def fileno(self) -> int:
        """A descriptor of the file, for syncing it; there is one from the first write on."""
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDONLY)
            sync_folder(self._path.parent)
        return self._descriptor

    def write(self, frame: EncodedFrame) -> None:
        """Append `frame` at its capture time; a stamp that goes back for good follows the last."""
        self._newest_ns = max(self._newest_ns, frame.stamp_ns)
        tick = round((frame.stamp_ns - self._first_ns) * VIDEO_CLOCK_HZ / 1e9)
        packet = av.Packet(frame.data)
        packet.stream = self._stream
        packet.time_base = _TICK
        packet.dts = self._decoding_tick(tick)
        packet.pts = max(tick, packet.dts)
        packet.is_keyframe = frame.is_key
        self._container.mux(packet)

    def _decoding_tick(self, tick: int) -> int:
        """The stamps in order, as many pictures late as pictures are coded out of order.

        Not all parameter sets tell how many these are; then stamps that go back do.
        """
        if tick < self._last_dts and len(self._order) < _MOST_REORDERED:
            heapq.heappush(self._order, self._last_dts)
        earliest: int = heapq.heappushpop(self._order, tick)
        self._last_dts = max(earliest, self._last_dts + 1)
        return self._last_dts

    def close(self) -> None:
        try:
            self._container.close()
            os.fsync(self.fileno())
        finally:
            if self._descriptor >= 0:
                os.close(self._descriptor)


def _new_folder(root: Path, name: str) -> Path:
    for suffix in ("", *(f"_{number}" for number in range(2, 100))):
        try:
            (root / (name + suffix)).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(
                f"cannot make {root / name}: {error.strerror}; choose another `folder`"
            ) from error
        return root / (name + suffix)
    raise StorageError(f"{root} holds 99 sessions of the second {name}; is it shared by mistake?")


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
