# SPDX-License-Identifier: Apache-2.0
"""Where a source delivers: encoded and decoded pictures, the camera, telemetry and losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.telemetry import Telemetry

LOST_ON_LINK = "lost_on_link"
CORRUPT = "corrupt"
NO_KEY_FRAME = "no_key_frame"
NO_PARAMETER_SETS = "no_parameter_sets"
DECODER_BUSY = "decoder_busy"
STOPPED = "stopped"
OUTSIDE = "outside"  # of the part that is to be played, or cut away by an edit list


@dataclass(frozen=True)
class Summary:
    """How a source ended: pictures delivered, and in words where it broke off early, if it did."""

    frames: int
    broken: str | None = None


@runtime_checkable
class Sink(Protocol):
    """Takes what a source yields; every picture ends as one `frame` or one `dropped`.

    Ids are unique within a stream. File, URL and camera sources call from the thread that runs them
    and may be kept waiting. The server calls `frame` and the losses of decoding from one thread for
    each stream, and everything else from its network thread, which a sink must not keep waiting.
    """

    def encoded(self, unit: EncodedFrame) -> None:
        """One H.264 access unit as it came, whether or not it can be decoded."""

    def frame(self, frame: Frame) -> None:
        """One decoded picture; ids and stamps grow in the order in which pictures are shown.

        They are its access unit's, but where live units are coded in another order: there each
        picture has those of one of the units under way.
        """

    def camera(self, camera: Camera, stream: str) -> None:
        """The intrinsics of `stream` became known or changed."""

    def measured(self, sample: Telemetry, stream: str) -> None:
        """One measurement that came beside the video of `stream`."""

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        """The picture `frame_id` of `stream` will never come; `reason` is a snake_case name."""
