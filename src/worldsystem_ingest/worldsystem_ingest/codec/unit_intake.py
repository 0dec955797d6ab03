# SPDX-License-Identifier: Apache-2.0
"""Access units that come without numbers or times, made into encoded frames."""

from __future__ import annotations

from collections.abc import Callable

from worldsystem_core.frames import EncodedFrame
from worldsystem_ingest.codec.decoder import SYNTAX
from worldsystem_ingest.codec.entry import Entry
from worldsystem_ingest.sink import CORRUPT, LOST_ON_LINK, NO_PARAMETER_SETS, Sink

Deliver = Callable[[EncodedFrame, bool], None]


class UnitIntake:
    """Numbers units as they come, over any number of connections; their arrival is their stamp.

    A key frame without parameter sets gets those that came before. A connection that does not begin
    at a key frame has lost at least one picture, which is counted as one `lost_on_link`. As in
    `Assembly`, a recovery point counts as a key frame: some encoders never send a whole one. Where
    a connection begins at one, the decoder must begin there, too, which `after_loss` says.
    """

    def __init__(self, sink: Sink, deliver: Deliver, stream: str) -> None:
        self._sink = sink
        self._deliver = deliver
        self._stream = stream
        self._codec = ""
        self._next_id = 0
        self._last_stamp_ns = -1
        self._rejoined = False
        self._gap = False

    def connected(self) -> None:
        """The next unit is the first of a new connection."""
        self._rejoined = self._next_id > 0

    def take(self, data: bytes, codec: str, arrival_ns: int) -> None:
        """One access unit."""
        if codec != self._codec:
            self._codec = codec
            self._syntax = SYNTAX[codec]
            self._sets = self._syntax.ParameterSets()
        kinds, wanted = self._syntax.nal_types(data), set(self._syntax.ParameterSets.kinds)
        if kinds & wanted:
            self._sets.take(data)
        entry = self._syntax.entry_of(data)
        is_key = entry is Entry.KEY or (entry is Entry.RECOVERY and self._sets.complete)
        if self._rejoined and not is_key:
            self._lose(LOST_ON_LINK)
        self._gap |= self._rejoined and entry is not Entry.KEY
        self._rejoined = False
        if not kinds & self._syntax.PICTURE_TYPES:
            self._lose(CORRUPT)
        elif is_key and not wanted <= kinds and not self._sets.complete:
            self._lose(NO_PARAMETER_SETS)
        else:
            whole = data if not is_key or wanted <= kinds else self._sets.annexb() + data
            self._pass_on(whole, is_key, arrival_ns)

    def _pass_on(self, data: bytes, is_key: bool, arrival_ns: int) -> None:
        self._last_stamp_ns = max(arrival_ns, self._last_stamp_ns + 1)
        unit = EncodedFrame(
            id=self._next_id,
            stamp_ns=self._last_stamp_ns,
            arrival_ns=arrival_ns,
            data=data,
            is_key=is_key,
            stream=self._stream,
            codec=self._codec,
        )
        self._next_id += 1
        self._sink.encoded(unit)
        self._deliver(unit, self._gap)
        self._gap = False

    def _lose(self, reason: str) -> None:
        self._sink.dropped(self._next_id, reason, self._stream)
        self._next_id += 1
        self._gap = True
