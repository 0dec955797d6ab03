# SPDX-License-Identifier: Apache-2.0
"""What the relay sends, written to a file, plays elsewhere."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import av
import pytest
import websockets
from ingest_lab import RunningServer, encode, number_in, packets_of, send, serving


@pytest.fixture
def relayed(tmp_path: Path) -> Path:
    """What a consumer that joins in the middle of the second GOP writes to a file."""
    units = encode(40)

    async def write(server: RunningServer, path: Path) -> None:
        packets = packets_of(units)
        at = next(i for i, p in enumerate(packets) if int.from_bytes(p[13:21], "big") == 15)
        await send(server.url("/ws/video"), packets[:at])
        async with websockets.connect(server.url("/ws/h264_stream"), max_size=None) as consumer:
            await send(server.url("/ws/video"), packets[at:])
            pictures = [await asyncio.wait_for(consumer.recv(), 5) for _ in range(30)]
        path.write_bytes(b"".join(pictures))

    path = tmp_path / "relayed.h264"
    with serving() as server:
        asyncio.run(write(server, path))
        server.sink.wait_settled(40)
    return path


def test_pyav_plays_a_relayed_file_from_its_first_picture(relayed):
    with av.open(str(relayed)) as container:
        shown = [number_in(p.to_ndarray(format="rgb24")) for p in container.decode(video=0)]
    assert shown == list(range(10, 40))


def tool(name: str) -> str:
    path = shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not installed; `apt install ffmpeg` installs it")
    return path


def test_ffmpeg_plays_a_relayed_file_without_complaint(relayed):
    command = [tool("ffmpeg"), "-v", "warning", "-xerror", "-i", relayed]
    made = subprocess.run(
        [*command, "-f", "framemd5", "-"], capture_output=True, text=True, timeout=30, check=True
    )
    pictures = [line for line in made.stdout.splitlines() if not line.startswith("#")]
    assert len(pictures) == 30
    assert not made.stderr


def test_ffplay_plays_a_relayed_file(relayed):
    command = [tool("ffplay"), "-v", "warning", "-autoexit", "-an", "-i", relayed]
    played = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "HOME": str(relayed.parent)},
    )
    assert played.returncode == 0, played.stderr
    assert "Error" not in played.stderr
