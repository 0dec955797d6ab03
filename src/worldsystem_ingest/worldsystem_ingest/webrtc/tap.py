# SPDX-License-Identifier: Apache-2.0
"""The one place that reaches into aiortc: coded pictures before its decoder, and its network.

aiortc has no public way to coded pictures. Its receiver hands every packet, in the clear and after
retransmission, to a jitter buffer whose `add` answers with a picture to decode; ours takes the
packet and answers with none. `test_webrtc_tap.py` says which of these names is gone when a new
version of aiortc changes them; until then `Untappable` keeps the endpoint from accepting anyone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import aiortc
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RtcpPsfbPacket,
    RtcpSrPacket,
    RtpPacket,
    pack_remb_fci,
)

from worldsystem_core.errors import BackendError

_BUFFER = "_RTCRtpReceiver__jitter_buffer"
_ESTIMATOR = "_RTCRtpReceiver__remote_bitrate_estimator"
_OUR_SOURCE = "_RTCRtpReceiver__rtcp_ssrc"
_METHODS = ("_handle_rtcp_packet", "_send_rtcp", "_send_rtcp_pli", "_send_rtcp_nack")

TakePacket = Callable[[RtpPacket], None]
TakeReport = Callable[[int, int], None]


class Untappable(BackendError):
    """This version of aiortc has no place where coded pictures can be taken."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"aiortc {aiortc.__version__} has no {name!r}, through which WebRTC's video is taken; "
            f"install the version in tools/constraints.txt"
        )


class Tap:
    """Takes the packets of one receiver; to be made before the receiver starts.

    aiortc's own estimate of the bit rate is switched off: it allows half more than what arrives,
    so that a camera that turns from a wall to a street gets no bits for half a minute.

    `take_packet` gets each packet once, with what it adds to its picture as `_data`; retransmitted
    ones like any other. `take_report` gets the NTP time and RTP timestamp of sender reports.
    """

    def __init__(
        self, receiver: aiortc.RTCRtpReceiver, take_packet: TakePacket, take_report: TakeReport
    ) -> None:
        if not isinstance(getattr(receiver, _BUFFER, None), JitterBuffer):
            raise Untappable(f"RTCRtpReceiver.{_BUFFER}")
        for name in _METHODS:
            if not inspect.iscoroutinefunction(getattr(receiver, name, None)):
                raise Untappable(f"RTCRtpReceiver.{name}")
        for name in (_ESTIMATOR, _OUR_SOURCE):
            if not hasattr(receiver, name):
                raise Untappable(f"RTCRtpReceiver.{name}")
        self._receiver = receiver
        self._take_report = take_report
        self._handle_rtcp = receiver._handle_rtcp_packet
        setattr(receiver, _BUFFER, _Through(take_packet))
        setattr(receiver, _ESTIMATOR, None)
        setattr(receiver, "_handle_rtcp_packet", self._on_rtcp)  # noqa: B010

    async def ask_for_key_frame(self, source: int) -> None:
        """Send a picture loss indication (RFC 4585, 6.3.1) for the SSRC `source`."""
        await self._receiver._send_rtcp_pli(source)

    async def ask_again(self, source: int, sequences: list[int]) -> None:
        """Send a generic NACK (RFC 4585, 6.2.1) for packets of the SSRC `source`."""
        await self._receiver._send_rtcp_nack(source, sequences)

    async def limit_bitrate(self, source: int, kbps: int) -> None:
        """Tell the sender the most that the link carries (REMB); it stays in force."""
        packet = RtcpPsfbPacket(
            fmt=RTCP_PSFB_APP,
            ssrc=getattr(self._receiver, _OUR_SOURCE),
            media_ssrc=0,
            fci=pack_remb_fci(1000 * kbps, [source]),
        )
        await self._receiver._send_rtcp(packet)

    async def _on_rtcp(self, packet: Any) -> None:  # Any: aiortc's union of RTCP packets
        if isinstance(packet, RtcpSrPacket):
            info = packet.sender_info
            self._take_report(info.ntp_timestamp, info.rtp_timestamp)
        await self._handle_rtcp(packet)


class _Through(JitterBuffer):
    """A jitter buffer that keeps nothing and has nothing decoded."""

    def __init__(self, take_packet: TakePacket) -> None:
        super().__init__(capacity=1)
        self._take_packet = take_packet

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        self._take_packet(packet)
        return False, None


def packet_data(packet: RtpPacket) -> bytes:
    """What `packet` adds to its coded picture: aiortc notes it beside the packet's fields."""
    data = getattr(packet, "_data", None)
    if not isinstance(data, bytes):
        raise Untappable("RtpPacket._data")
    return data


def gather_on(connection: aiortc.RTCPeerConnection, addresses: list[str]) -> None:
    """Offer only `addresses` of this machine to peers, instead of all but the loopback.

    To be called between the remote and the local description. A server that listens on the
    loopback only must not open ports on every network.
    """
    for transceiver in connection.getTransceivers():
        gatherer = transceiver.receiver.transport.transport.iceGatherer
        ice = getattr(gatherer, "_connection", None)
        gather = getattr(ice, "get_component_candidates", None)
        if not inspect.iscoroutinefunction(gather):
            raise Untappable("RTCIceGatherer._connection.get_component_candidates")
        setattr(ice, "get_component_candidates", _only_on(addresses, gather))  # noqa: B010


def _only_on(ours: list[str], gather: Any) -> Any:  # Any: aioice's method, whatever it takes
    async def gather_there(*args: Any, **kwargs: Any) -> Any:
        return await gather(*args, **{**kwargs, "addresses": ours})

    return gather_there
