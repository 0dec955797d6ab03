# SPDX-License-Identifier: Apache-2.0
"""Live playlists (HLS) over loopback HTTP, whose segments come whole, one after another."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import av
import pytest
from ingest_lab import number_in, wait_until
from link_lab import RunningLink, http_server, numbered_units, running, send_head

SEGMENT_S, FPS, SEGMENTS = 0.5, 20, 16


@cache
def segments() -> list[bytes]:
    """Transport streams of numbered pictures, whose times go on from one to the next."""
    per_segment = round(SEGMENT_S * FPS)
    units = numbered_units(SEGMENTS * per_segment, gop=per_segment)
    parts = []
    for first in range(0, len(units), per_segment):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mpegts") as container:
            stream = container.add_stream("libx264", rate=FPS)
            stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
            for at, unit in enumerate(units[first : first + per_segment], first):
                packet = av.Packet(unit.data)
                packet.pts = packet.dts = at * 90_000 // FPS
                packet.time_base = Fraction(1, 90_000)
                packet.stream = stream
                packet.is_keyframe = unit.is_key
                container.mux(packet)
        parts.append(buffer.getvalue())
    return parts


@dataclass
class LivePlaylist:
    """A sender of two segments a second, three of which are there when it is first asked.

    `ends_after`: so many segments are made; then the playlist stands still, or `is_closed`.
    """

    tells_length: bool = True
    ends_after: int = SEGMENTS
    is_closed: bool = False
    unavailable: int = 0  # so many answers are 503
    began_s: float | None = None

    @property
    def made(self) -> int:
        since_s = time.monotonic() - self.began_s if self.began_s else 0.0
        return min(self.ends_after, 3 + int(since_s / SEGMENT_S))

    def answer(self, handler, connection: int) -> None:
        if handler.path.endswith(".ts"):
            body = segments()[int(handler.path.strip("/s.t"))]
        elif self.unavailable:
            self.unavailable -= 1
            send_head(handler, 503, Content_Length=0)
            return
        else:
            self.began_s = self.began_s or time.monotonic()
            body = self._text().encode()
        send_head(handler, **({"Content_Length": len(body)} if self.tells_length else {}))
        handler.wfile.write(body)

    def _text(self) -> str:
        made = self.made
        head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n"
        listed = "".join(f"#EXTINF:{SEGMENT_S},\ns{at}.ts\n" for at in range(made))
        ended = self.is_closed and made == self.ends_after
        return head + listed + ("#EXT-X-ENDLIST\n" if ended else "")


@contextlib.contextmanager
def following(playlist: LivePlaylist) -> Iterator[RunningLink]:
    """A link to it whose patience with other URLs is shorter than a segment."""
    segments()  # which takes a while
    with (
        http_server(playlist.answer) as url,
        running(url.replace("live.ts", "live.m3u8"), stall_s=0.25) as link,
    ):
        yield link


def numbers(link: RunningLink) -> list[int]:
    return [number_in(frame.rgb) for frame in link.sink.frames]


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_pause_until_the_next_segment_is_no_stall(tells_length):
    with following(LivePlaylist(tells_length=tells_length)) as link:
        link.wait_frames(60, 15.0)
    assert numbers(link)[:60] == list(range(60))
    assert link.source.state.connections == 1


def test_a_playlist_that_is_unavailable_for_a_moment_is_opened_again_and_nothing_comes_twice():
    playlist = LivePlaylist()
    with following(playlist) as link:
        link.wait_frames(40, 15.0)
        playlist.unavailable = 1
        wait_until(lambda: link.source.state.connections == 2, 15.0)
        link.wait_frames(60, 15.0)
        assert not link.results
    shown = numbers(link)
    assert shown == sorted(set(shown))
    assert shown[-1] - shown[0] < len(shown) + 4 * SEGMENT_S * FPS


def test_a_playlist_that_stands_still_brings_no_picture_again(monkeypatch):
    monkeypatch.setattr("worldsystem_ingest.url.connection._SEGMENTS_S", 1.5)
    with following(LivePlaylist(ends_after=3)) as link:
        wait_until(lambda: link.source.state.connections == 2, 15.0)
        wait_until(lambda: link.source.state.state == "waiting", 15.0)
        assert "no data" in link.source.problem()
    shown = numbers(link)
    assert shown == list(range(len(shown)))
    assert len(shown) >= 29  # a picture is whole when the next begins


def test_a_live_playlist_that_is_closed_ends_the_source():
    with following(LivePlaylist(ends_after=5, is_closed=True)) as link:
        wait_until(lambda: bool(link.results), 15.0)
    assert numbers(link) == list(range(50))


def test_a_playlist_that_was_closed_before_is_played_once():
    with following(LivePlaylist(ends_after=3, is_closed=True)) as link:
        wait_until(lambda: bool(link.results), 15.0)
    assert numbers(link) == list(range(30))
    assert link.source.state.connections == 1
