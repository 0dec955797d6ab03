# SPDX-License-Identifier: Apache-2.0
"""The surface as a stream for a thin line, made only while somebody listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from worldsystem_core.mesh_stream.catalogue import SurfaceCatalogue
from worldsystem_core.mesh_stream.link import PARCELS_AT_ONCE, MeshLink, Parcel
from worldsystem_core.mesh_stream.streamed import MeshEncoding, StreamedDelta, streamed
from worldsystem_core.surface import MeshDelta
from worldsystem_mesh.config import MeshConfig

_FIRST_BYTES_PER_VERTEX = {MeshEncoding.RAW: 46.0, MeshEncoding.DRACO: 9.0, MeshEncoding.CODE: 2.5}


class MeshStreamer:
    """One stream for all its listeners, within `stream_mbps`.

    A new listener is given the whole surface, by beginning anew for all: blocks replace themselves,
    and what has gone stays to be told to those who have it.
    `snapshot` gives everything there is. One thread.
    """

    def __init__(self, config: MeshConfig, snapshot: Callable[[], MeshDelta]) -> None:
        self._bits_per_s = 1e6 * config.stream_mbps
        self._encoding = MeshEncoding[config.stream_encoding.upper()]
        self._snapshot = snapshot
        self._listeners = self._joins = 0
        self._catalogue: SurfaceCatalogue | None = None
        self._link = self._new_link()
        self._latest: MeshDelta | None = None
        self._told = self._whole_from = 0
        self._part = 0
        self.bytes = 0
        self.messages = 0

    def listeners(self, count: int, joins: int = 0) -> None:
        """How many there are now, and ever came, as far as that is known: one may have taken
        another's place. 0 ends the stream and lets go of what it held: who comes back sees by a
        missing part that it was told nothing for a while."""
        if not count:
            self._part += self._catalogue is not None
            self._catalogue = self._latest = None
        elif count > self._listeners or joins > self._joins:
            self._begin()
        self._listeners, self._joins = count, joins

    def take(self, delta: MeshDelta) -> None:
        """What changed on the surface."""
        self._latest = delta
        if self._catalogue is not None:
            self._catalogue.apply(delta, delta.sequence)

    def next(self, now_s: float) -> Iterator[StreamedDelta]:
        """What the line may carry now."""
        for _ in range(PARCELS_AT_ONCE):
            if self._catalogue is None or self._latest is None:
                return
            parcel = self._link.next(self._catalogue, now_s)
            if parcel is None:
                return
            message = self._encoded(parcel, self._latest)
            self._link.account(parcel, message.bytes)
            self.bytes += message.bytes
            self.messages += 1
            yield message

    @property
    def missing_blocks(self) -> int:
        """Blocks that listeners do not have at full level."""
        return self._link.missing(self._catalogue) if self._catalogue is not None else 0

    def _encoded(self, parcel: Parcel, latest: MeshDelta) -> StreamedDelta:
        complete_to = self._complete_to(parcel)
        delta = MeshDelta(
            stamp_ns=latest.stamp_ns,
            sequence=complete_to,
            base_sequence=min(self._told, complete_to),
            block_size=latest.block_size,
            blocks=parcel.blocks,
            removed=parcel.removed,
            total_vertices=latest.total_vertices,
            total_faces=latest.total_faces,
            keyframe_count=latest.keyframe_count,
            capture_ns=latest.capture_ns,
            scale=latest.scale,
        )
        self._told = complete_to
        self._part += 1
        encoding = MeshEncoding.RAW if parcel.raw else self._encoding
        return streamed(delta, encoding, level=parcel.level, part=self._part)

    def _complete_to(self, parcel: Parcel) -> int:
        """0 until the whole surface of the beginning is told: blocks of a snapshot all bear its
        sequence, so that the one before it would seem complete."""
        return parcel.complete_to if parcel.complete_to >= self._whole_from else 0

    def _begin(self) -> None:
        self._told = 0
        if self._catalogue is not None:
            self._link.begin_anew(self._catalogue)
        else:
            self._latest = self._snapshot()
            self._catalogue = SurfaceCatalogue()
            self._catalogue.apply(self._latest, self._latest.sequence)
            self._link = self._new_link()
        self._whole_from = self._catalogue.change

    def _new_link(self) -> MeshLink:
        each = _FIRST_BYTES_PER_VERTEX[self._encoding]
        return MeshLink(self._bits_per_s, bytes_per_vertex=each)
