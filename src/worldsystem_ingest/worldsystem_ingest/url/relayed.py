# SPDX-License-Identifier: Apache-2.0
"""What servers relay: pure Annex-B, or the drone app's packets as they came."""

from __future__ import annotations

import logging
import time

from worldsystem_core import wire
from worldsystem_core.byte_stream import nal_units
from worldsystem_core.errors import ProtocolError
from worldsystem_core.frames import Camera
from worldsystem_core.wire import PacketType
from worldsystem_ingest.codec import h264
from worldsystem_ingest.codec.access_units import AccessUnitSplitter
from worldsystem_ingest.codec.unit_intake import UnitIntake
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sender.session import Deliver, SenderSession
from worldsystem_ingest.sink import Sink

_log = logging.getLogger(__name__)
_MIB = 2**20
_PACKETS, _ANNEXB = "packets", "Annex-B"
_FIRST_NAL_TYPES = {
    PacketType.SPS: {h264.SPS},
    PacketType.PPS: {h264.PPS},
    PacketType.KEY_FRAME: {h264.IDR_SLICE, h264.SLICE, h264.SPS, h264.PPS, h264.SEI, 9},
    PacketType.FRAME: {h264.SLICE, h264.PARTITION_A, h264.SEI, 9},
}


class RelayedVideo:
    """Takes a server's messages; the first one that can be understood tells which kind they are."""

    def __init__(self, sink: Sink, deliver: Deliver, config: IngestConfig) -> None:
        self._session = SenderSession(sink, deliver, config.stream, config, lambda message: None)
        self._intake = UnitIntake(sink, deliver, config.stream)
        self._splitter = AccessUnitSplitter(int(config.max_message_mb * _MIB))
        self._faulty_messages = 0
        self.form = ""
        self.received = 0

    @property
    def camera(self) -> Camera | None:
        """The intrinsics that the sender told, if it did."""
        return self._session.camera

    @property
    def codec(self) -> str:
        """`h264` or `h265`; empty until it is known."""
        return "h264" if self.form == _PACKETS else self._splitter.codec

    @property
    def stamps(self) -> str:
        """What the stamps are."""
        by_form = {_PACKETS: "the sender's times", _ANNEXB: "arrival, as no times come"}
        return by_form.get(self.form, "")

    @property
    def bad_messages(self) -> int:
        """Messages that could not be understood."""
        return self._faulty_messages

    def connected(self) -> None:
        """The next message is the first of a new connection."""
        self._session.connected()
        self._intake.connected()
        self._splitter.restart()

    def disconnected(self) -> None:
        """The connection ended, and with it the last unit."""
        self._session.disconnected()
        self._take_units(self._splitter.finish(), time.time_ns())

    def take(self, message: bytes | str) -> None:
        """One message; one that is not understood is counted and changes nothing."""
        arrival_ns = time.time_ns()
        try:
            if isinstance(message, str):
                self._session.take_control(message)
                return
            if not self.form:
                self.form = _form_of(message)
            if self.form == _PACKETS:
                self._session.take_packet(message)
                self.received += 1
            else:
                self._take_annexb(message, arrival_ns)
        except ProtocolError as error:
            self._faulty_messages += 1
            _log.debug("bad message: %s", error)

    def _take_annexb(self, message: bytes, arrival_ns: int) -> None:
        garbage = self._splitter.garbage_bytes
        self._take_units(self._splitter.feed(message), arrival_ns)
        self._faulty_messages += self._splitter.garbage_bytes > garbage

    def _take_units(self, units: list[bytes], arrival_ns: int) -> None:
        for unit in units:
            self._intake.take(unit, self._splitter.codec or "h264", arrival_ns)
            self.received += 1


def _form_of(message: bytes) -> str:
    """The kind of a message; empty when it may be either, or neither.

    The first bytes of a packet may look like a start code and a NAL unit; but only in a packet does
    a NAL unit of the kind that byte 4 tells follow its header.
    """
    try:
        packet = wire.unpack(message)
    except ProtocolError:
        return _ANNEXB if h264.nal_types(message) else ""
    first = next(nal_units(wire.with_start_code(packet.payload)), b"")
    if first and not first[0] & 0x80 and first[0] & 0x1F in _FIRST_NAL_TYPES[packet.type]:
        return _PACKETS
    return _ANNEXB if h264.nal_types(message) else ""
