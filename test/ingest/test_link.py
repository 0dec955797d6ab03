# SPDX-License-Identifier: Apache-2.0
"""What a URL says, what people may see of it, and what its packets' stamps mean."""

from __future__ import annotations

import itertools
import struct
import time
from dataclasses import dataclass
from fractions import Fraction

import av
import pytest

from worldsystem_core.errors import SourceError
from worldsystem_core.shown_url import without_secrets
from worldsystem_ingest.url.link import link_error, parse_link
from worldsystem_ingest.url.link_clock import LinkClock, WallLag

SECOND_NS = 10**9


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://cam/live", "rtsp://cam/live"),
        ("rtsp://pilot:a%40b@cam:554/live", "rtsp://pilot:***@cam:554/live"),
        ("rtsp://pilot:a@b@cam/live", "rtsp://pilot:***@cam/live"),
        ("rtsp://pilot@cam/live", "rtsp://pilot@cam/live"),
        ("http://h/x?token=abc&q=1&Key=z", "http://h/x?token=***&q=1&Key=***"),
        ("srt://h:9?mode=caller&passphrase=secret", "srt://h:9?mode=caller&passphrase=***"),
        (
            "https://h/x?access_token=a&api_key=b&pw=c&X-Amz-Signature=d&q=1",
            "https://h/x?access_token=***&api_key=***&pw=***&X-Amz-Signature=***&q=1",
        ),
        ("http://h/x?q=1&Token=a#b", "http://h/x?q=1&Token=***"),
        ("rtsp://pilot:12/34@cam/live?pwd=a", "rtsp://***@cam/live?pwd=***"),
        ("https://h/@pilot/live.m3u8", "https://h/@pilot/live.m3u8"),
    ],
)
def test_passwords_and_tokens_are_never_shown(url, shown):
    assert without_secrets(url) == shown
    assert parse_link(url).shown == shown


@pytest.mark.parametrize("password", ["12#34", "fr#ed", "fr/ed", "fr?ed"])
def test_a_password_that_ends_the_address_is_refused_with_how_to_write_it(password):
    with pytest.raises(SourceError, match=r"rtsp://\*\*\*@cam.*as %23 %2F %3F") as refused:
        parse_link(f"rtsp://pilot:{password}@cam/live")
    assert not [part for part in ("12", "34", "fr", "ed@") if part in str(refused.value)]


def test_the_transport_of_rtsp_is_tcp_unless_the_url_says_otherwise():
    assert parse_link("rtsp://cam/live").options["rtsp_transport"] == "tcp"
    link = parse_link("rtsp://cam/live?channel=1&transport=udp")
    assert link.options["rtsp_transport"] == "udp"
    assert link.url == "rtsp://cam/live?channel=1"
    with pytest.raises(SourceError, match=r"unknown transport 'carrier-pigeon'.*tcp, udp"):
        parse_link("rtsp://cam/live?transport=carrier-pigeon")


def test_a_url_without_our_parameters_is_opened_as_it_is():
    odd = "rtsp://cam/live?a=b%2Fc&d&e=f+g"
    assert parse_link(odd).url == odd


@pytest.mark.parametrize(
    ("url", "listens"),
    [
        ("rtsp://cam/live", False),
        ("rtmp://0.0.0.0:1935/live?listen=1", True),
        ("rtmp://server/live", False),
        ("srt://0.0.0.0:9000?mode=listener", True),
        ("srt://server:9000", False),
        ("tcp://0.0.0.0:9000?listen=1", True),
        ("tcp://server:9000", False),
        ("udp://0.0.0.0:9000", True),
        ("rtp://0.0.0.0:9000", True),
        ("http://server/x.ts", False),
    ],
)
def test_who_calls_whom_is_known_from_the_url(url, listens):
    assert parse_link(url).listens == listens


@pytest.mark.parametrize("url", ["rtsp://[cam/live", "rtsp://cam:70000/live"])
def test_what_is_no_url_is_refused_with_an_example(url):
    with pytest.raises(SourceError, match="write it like rtsp://"):
        parse_link(url)


def test_dash_is_refused_with_what_can_be_read_instead():
    with pytest.raises(SourceError, match=r"cdn/x\.mpd: .* reads no DASH; .* HLS"):
        parse_link("https://cdn/x.mpd")


@pytest.mark.parametrize(
    ("error", "words", "refused"),
    [
        (av.HTTPUnauthorizedError(1, "x"), "user name and password", True),
        (av.HTTPForbiddenError(1, "x"), r"\(403\)", True),
        (av.HTTPNotFoundError(1, "x"), "no stream of this path", False),
        (av.ConnectionRefusedError(111, "x"), "nothing listens at cam:554", False),
        (av.ExitError(1, "x"), r"no data from cam:554 for 3\.0 s", False),
        (av.TimeoutError(110, "x"), r"no data from cam:554 for 3\.0 s", False),
        (TimeoutError(), r"no data from cam:554 for 3\.0 s", False),
        (av.InvalidDataError(1, "x"), "not video", False),
        (OSError(5, "Input/output error"), "host name", False),
    ],
)
def test_an_error_tells_what_is_wrong_and_no_password(error, words, refused):
    found = link_error(error, parse_link("rtsp://pilot:secret@cam:554/live"), 3.0)
    odd = link_error(error, parse_link("rtsp://pilot:98/76@cam/live"), 3.0)
    assert not [part for part in ("98", "76") if part in str(odd)]
    with pytest.raises(type(found), match=words):
        raise found
    assert found.refused == refused
    assert "secret" not in str(found)


@dataclass
class FakePacket:
    """As much of `av.Packet` as stamps need; PyAV cannot make the side data of RTSP's reports."""

    pts: int | None
    wall_ns: int | None = None
    time_base: Fraction = Fraction(1, 1000)
    decoded: int | None = None  # where it is not the time at which it is shown

    @property
    def dts(self) -> int | None:
        return self.pts if self.decoded is None else self.decoded

    def has_sidedata(self, kind: str) -> bool:
        return kind == "prft" and self.wall_ns is not None

    def get_sidedata(self, kind: str) -> bytes:
        return struct.pack("=qi4x", self.wall_ns // 1000, 24)


def packet(pts: int | None, *, wall_ns: int | None = None) -> FakePacket:
    return FakePacket(pts, wall_ns)


def stamps_of(clock: LinkClock, times: list[tuple[int, int]]) -> list[int]:
    return [clock.stamp_ns(packet(pts_ms), arrival_ns) for pts_ms, arrival_ns in times]


def test_stamps_follow_the_senders_clock_not_the_arrival():
    clock, base_ns = LinkClock(30.0, "mpegts"), time.time_ns()
    delays_ms = [5, 0, 40, 0, 25, 0, 60, 0]
    times = [(at * 40, base_ns + (at * 40 + d) * 10**6) for at, d in enumerate(delays_ms)]
    stamps = stamps_of(clock, times)
    assert stamps[-1] == base_ns + 7 * 40 * 10**6
    assert all(stamp <= arrival for stamp, (_, arrival) in zip(stamps, times, strict=True))
    steps_ns = [b - a for a, b in itertools.pairwise(stamps[3:])]
    assert steps_ns == [40 * 10**6] * 4


@pytest.mark.parametrize("jump_ms", [-100_000, -3_000, 5_000, 95_443_717])
def test_a_jump_of_the_senders_time_shows_in_no_stamp(jump_ms):
    clock, base_ns = LinkClock(30.0, "mpegts"), time.time_ns()
    times = [
        (200_000 + at * 40 + (jump_ms if at >= 50 else 0), base_ns + at * 40 * 10**6)
        for at in range(100)
    ]
    errors_ns = [
        s - arrival for s, (_, arrival) in zip(stamps_of(clock, times), times, strict=True)
    ]
    assert errors_ns == [0] * 100
    assert clock.jumps == 1


def test_a_jam_is_no_jump():
    clock, base_ns = LinkClock(30.0, "mpegts"), time.time_ns()
    jam_end = 80 * 40
    times = [
        (at * 40, base_ns + max(at * 40, jam_end if at >= 20 else 0) * 10**6) for at in range(120)
    ]
    stamps = stamps_of(clock, times)
    assert clock.jumps == 0
    assert [s - base_ns for s in stamps] == [at * 40 * 10**6 for at in range(120)]


def test_pictures_between_others_that_refer_to_them_are_stamped_evenly():
    clock, base_ns = LinkClock(30.0, "mpegts"), time.time_ns()
    shown = [0] + [4 * group + place for group in range(50) for place in (4, 1, 2, 3)]
    stamps = {
        at: clock.stamp_ns(FakePacket(40 * at, decoded=40 * (n - 1)), base_ns + 40_000_000 * n)
        for n, at in enumerate(shown)
    }
    ordered = [stamps[at] for at in sorted(stamps)][4:]
    assert {b - a for a, b in itertools.pairwise(ordered)} == {40_000_000}
    assert clock.jumps == 0


def test_formats_without_stamps_are_stamped_on_arrival():
    clock, base_ns = LinkClock(30.0, "h264"), time.time_ns()
    arrivals = [base_ns + at * 70 * 10**6 for at in range(50)]  # FFmpeg would say 40 ms
    assert [clock.stamp_ns(packet(at * 40), a) for at, a in enumerate(arrivals)] == arrivals
    assert LinkClock(30.0, "mpegts").stamp_ns(packet(None), base_ns) == base_ns


@pytest.mark.parametrize(
    ("delay_s", "believed"),
    [
        (0.08, True),
        (9.0, True),
        (-0.04, True),
        (11.0, False),
        (-0.06, False),
        (7200.0, False),
        (-7200.0, False),
    ],
)
def test_the_senders_wall_clock_is_believed_while_it_can_be_right(delay_s, believed):
    clock, now_ns = LinkClock(30.0, "rtsp"), time.time_ns() // 1000 * 1000
    wall_ns = now_ns - round(delay_s * 10**9)
    stamp_ns = clock.stamp_ns(packet(0, wall_ns=wall_ns), now_ns)
    assert stamp_ns == (min(wall_ns, now_ns) if believed else now_ns)
    assert (clock.source == "sender's wall clock") == believed


def slow_camera(
    clock: LinkClock, seconds: float, told_after_s: float, slow_s: float
) -> list[float]:
    """How far stamps are behind the arrivals [s], of 25 pictures a second of a slow wall clock."""
    base_ns = time.time_ns() // 1000 * 1000
    lags_s = []
    for at in range(round(seconds * 25)):
        arrival_ns = base_ns + at * 40_000_000
        is_told = at >= told_after_s * 25
        wall_ns = arrival_ns - round(slow_s * SECOND_NS) if is_told else None
        stamp_ns = clock.stamp_ns(packet(at * 40, wall_ns=wall_ns), arrival_ns)
        lags_s.append((arrival_ns - stamp_ns) / SECOND_NS)
    return lags_s


def test_stamps_approach_a_slow_wall_clock_at_half_speed():
    lags_s = slow_camera(LinkClock(30.0, "rtsp"), 12.0, 5.0, 3.0)
    steps_s = [0.04 - (b - a) for a, b in itertools.pairwise(lags_s)]
    assert min(steps_s) == pytest.approx(0.02)
    assert lags_s[125] == 0.0
    assert lags_s[276:] == [3.0] * 24  # 6 s after the first report


def test_a_new_connection_begins_with_the_lag_of_the_one_before():
    lag = WallLag()
    slow_camera(LinkClock(30.0, "rtsp", lag), 12.0, 5.0, 3.0)
    assert slow_camera(LinkClock(30.0, "rtsp", lag), 10.0, 5.0, 3.0) == [3.0] * 250


def test_a_wall_clock_that_is_set_right_is_followed_at_once():
    lag = WallLag()
    slow_camera(LinkClock(30.0, "rtsp", lag), 1.0, 0.0, 3.0)
    assert slow_camera(LinkClock(30.0, "rtsp", lag), 2.0, 1.0, 0.1) == [3.0] * 25 + [0.1] * 25
    assert slow_camera(LinkClock(30.0, "rtsp", lag), 1.0, 0.0, 11.0) == [0.0] * 25
