# SPDX-License-Identifier: Apache-2.0
"""aiortc sends to our receiver: units byte for byte, loss, key frames, clocks, ends."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from ingest_lab import encode

pytest.importorskip("aiortc", reason="aiortc is not installed")

from webrtc_lab import (
    UnitsTrack,
    nals,
    offer_of,
    offering,
    take_answer,
    until,
)

from worldsystem_ingest.webrtc.receiver import ReceivedPicture, Receiver, ReceiverSettings

SETTINGS = ReceiverSettings(
    addresses=["127.0.0.1"],
    stun_servers=[],
    wait_s=0.2,
    silence_s=10.0,
    max_picture_bytes=4_000_000,
)


@dataclass
class Listening:
    receiver: Receiver
    pictures: list[ReceivedPicture]
    ends: list[str]
    connected: list[float] = field(default_factory=list)


@contextlib.asynccontextmanager
async def listening(settings: ReceiverSettings = SETTINGS) -> AsyncIterator[Listening]:
    pictures, ends, connected = [], [], []
    receiver = Receiver(
        settings,
        take=pictures.append,
        connected=lambda: connected.append(time.monotonic()),
        ended=ends.append,
    )
    try:
        yield Listening(receiver, pictures, ends, connected)
    finally:
        await receiver.close()


async def connect(peer, receiver: Receiver) -> None:
    await take_answer(peer, await receiver.answer(await offer_of(peer)))


def test_units_arrive_byte_for_byte():
    units = encode(30)

    async def run() -> list[ReceivedPicture]:
        track = UnitsTrack(units, 0.01)
        async with listening() as heard, offering(track) as peer:
            await connect(peer, heard.receiver)
            await until(lambda: len(heard.pictures) == len(units))
            assert heard.receiver.codec == "h264"
            return heard.pictures

    pictures = asyncio.run(run())
    assert [nals(p.data) for p in pictures] == [nals(unit.data) for unit in units]
    assert [p.is_key for p in pictures] == [unit.is_key for unit in units]
    assert [p.number for p in pictures] == list(range(30))
    gaps_ms = np.diff([p.sender_ns for p in pictures]) / 1e6
    assert np.median(gaps_ms) == pytest.approx(10.0, abs=0.1)
