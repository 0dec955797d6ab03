# SPDX-License-Identifier: Apache-2.0
"""What bad links cost: pictures saved of those that could be, and the time until they come again.

The simulated drone's sender flies into a real server on the loopback. It knows what it did to each
message, so that each picture's end can be compared with what had to become of it: one is lost for
good when it, its parameter sets, or one before it in its group of 30 pictures did not arrive whole.
Links are torn with a TCP reset; the drone sends 30 pictures and one key frame a second, and cannot
encode one on request, so that up to a second of each reconnection is the wait for the next.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

import av
import numpy as np
from harness import QUICK, Benchmark
from jaxtyping import UInt8

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.telemetry import Telemetry
from worldsystem_sim.link_faults import LinkFaults
from worldsystem_sim.sender import SendStats

sys.path.insert(0, str(Path(__file__).parents[1] / "test" / "ingest"))
from fault_lab import CLIP, BreakableLink, Expected, Flight, TimedSink, clip, send_flight
from ingest_lab import serving, wait_until

GOP, FPS = 30, 300.0
COUNT = 600 if QUICK else 3000
STREAMS, TEARS = 5, 4 if QUICK else 8
DOWN_S, UP_S, PATIENCE_S = 0.5, 0.4, 10.0

VISIBLE = 12  # of 255; two conversions to RGB differ by less
Picture8 = UInt8[np.ndarray, "h w 3"]


class StreamTimes:
    """A sink that remembers when pictures came out, by stream, and nothing else."""

    def __init__(self) -> None:
        self.shown_ns: dict[str, list[int]] = {}
        self.settled_ids: dict[str, list[int]] = {}

    def frame(self, frame: Frame) -> None:
        self.shown_ns.setdefault(frame.stream, []).append(time.time_ns())
        self.settled_ids.setdefault(frame.stream, []).append(frame.id)

    def encoded(self, unit: EncodedFrame) -> None:
        pass

    def camera(self, camera: Camera, stream: str) -> None:
        pass

    def measured(self, sample: Telemetry, stream: str) -> None:
        pass

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        self.settled_ids.setdefault(stream, []).append(frame_id)


def measure(bench: Benchmark) -> None:
    """Losses, damage and disconnections, then torn links."""
    runs = {
        "loss_1pct": LinkFaults(message_loss=0.01, seed=1),
        "loss_5pct": LinkFaults(message_loss=0.05, seed=2),
        "damage_2pct": LinkFaults(truncate=0.01, bit_flip=0.01, seed=3),
        "disconnects": LinkFaults(disconnect_every_s=COUNT / FPS / 25, fps=FPS, seed=4),
    }
    unexplained = wrong_shown = wrong_after_damage = 0
    for name, faults in runs.items():
        saved, of, without_reason, wrong = flown(faults)
        unexplained += without_reason
        if name.startswith("damage"):
            wrong_after_damage += wrong
        else:
            wrong_shown += wrong
        note = f"{saved} decoded of {of} that depend on nothing lost, {COUNT} sent; GOP {GOP}"
        bench.add(f"saved_{name}", saved / of, "of ideal", note=note)
    compare_with_pyav(bench, runs["loss_5pct"])
    reconnected_s, mended_s, without_reason = torn()
    note = f"from the drone's connection to its first decoded picture; n = {len(reconnected_s)}"
    p95_s = float(np.percentile(reconnected_s, 95))
    bench.add("reconnect_p95_s", p95_s, "s", note=f"{note}; key frame each 1 s")
    p95_s = float(np.percentile(mended_s, 95))
    bench.add("link_back_p95_s", p95_s, "s", note="from the mended link on: with the back-off")
    bench.add("wrong_shown", wrong_shown, "frames", note="ours, in the runs of losses and breaks")
    note = f"ours, of {COUNT}; a flipped bit that still makes a picture cannot be noticed"
    bench.add("wrong_shown_damage", wrong_after_damage, "frames", note=note)
    note = "not ended exactly once, or for another reason than the sender's; all runs"
    bench.add("unexplained_frames", unexplained + without_reason, "frames", note=note)


def compare_with_pyav(bench: Benchmark, faults: LinkFaults) -> None:
    """The pictures that a bare PyAV loop shows of the same packets, and that are wrong."""
    decoder, shown, wrong = av.CodecContext.create("h264", "r"), 0, 0
    for number in range(COUNT):
        unit, planned = clip(GOP)[number % CLIP], faults.of_frame(number)
        sets = [
            s for s, lost in zip((unit.sps, unit.pps), planned.sets_lost, strict=True) if not lost
        ]
        if planned.lost:
            continue
        packet = av.Packet(b"".join(sets) + unit.slices)
        packet.pts = number
        with contextlib.suppress(av.FFmpegError):
            for picture in decoder.decode(packet):
                shown += 1
                wrong += is_wrong(picture.pts, picture.to_ndarray(format="rgb24"))
    note = f"a bare PyAV loop, 5 % of messages lost: of {shown} shown, those that were never sent"
    bench.add("naive_wrong_shown", wrong, "frames", note=note)


@cache
def true_pictures() -> list[Picture8]:
    """The clip as it is decoded when nothing is lost."""
    decoder = av.CodecContext.create("h264", "r")
    packets = [*(av.Packet(unit.annex_b) for unit in clip(GOP)), None]
    return [p.to_ndarray(format="rgb24") for packet in packets for p in decoder.decode(packet)]


def is_wrong(number: int, rgb: Picture8) -> bool:
    """Whether a picture differs visibly, in any pixel, from the one that was sent."""
    difference = np.abs(rgb.astype(np.int16) - true_pictures()[number % CLIP])
    return bool(difference.max() > VISIBLE)


def flown(faults: LinkFaults) -> tuple[int, int, int, int]:
    """Pictures saved, those that could be, those whose end nobody can explain, and wrong ones."""
    sink = TimedSink()
    with serving(sink, decode_queue_frames=2000) as server:
        flight = Flight(COUNT, FPS, GOP)
        stats = send_flight(f"ws://127.0.0.1:{server.port}", faults, flight)
        expected = Expected.of(stats, faults, GOP)
        wait_until(lambda: expected.last in sink.settled, PATIENCE_S)
    drops, settled = dict(sink.drops), sink.settled
    first = min(settled)
    due = set(range(first, expected.last + 1))
    unexplained = len(due ^ set(settled)) + len(settled) - len(set(settled))
    unexplained += sum((drops.get(n) == "lost_on_link") != (n in expected.lost) for n in due)
    unexplained += sum(why == "corrupt" and n not in expected.damaged for n, why in drops.items())
    saved = len(expected.decodable & set(sink.ids))
    wrong = sum(is_wrong(frame.id, frame.rgb) for frame in sink.frames)
    return saved, len(expected.decodable), unexplained, wrong


def torn() -> tuple[list[float], list[float], int]:
    """For each torn link: seconds from the new connection, and from the mended link, to a picture.

    Also the number of pictures that ended more than once, or never.
    """
    sink, mended_ns = StreamTimes(), dict[str, list[int]]()
    with serving(sink, max_streams=STREAMS + 1) as server, ThreadPoolExecutor(STREAMS) as pool:
        links = {f"drone{at}": BreakableLink(server.port) for at in range(STREAMS)}
        stop = threading.Event()
        flights = {
            name: pool.submit(fly_until, stop, f"{link.url}?stream={name}")
            for name, link in links.items()
        }
        try:
            tear_all(links, sink, mended_ns)
        finally:
            stop.set()
            stats = {name: landed(flight) for name, flight in flights.items()}
            for link in links.values():
                link.close()
    reconnected_s, unexplained = [], 0
    for name, account in stats.items():
        shown = np.array(sink.shown_ns[name])
        reconnected_s += [waited_s(shown, at_ns) for at_ns in account.connected_ns[1:]]
        ids = sorted(sink.settled_ids[name])
        unexplained += len(ids) - len(set(ids)) + (ids[-1] - ids[0] + 1 - len(set(ids)))
    mended_s = [
        waited_s(np.array(sink.shown_ns[n]), at) for n, ats in mended_ns.items() for at in ats
    ]
    return reconnected_s, mended_s, unexplained


def tear_all(
    links: dict[str, BreakableLink], sink: StreamTimes, mended_ns: dict[str, list[int]]
) -> None:
    """Tear and mend each link so many times; the next time only when pictures came again."""
    wait_until(lambda: len(sink.shown_ns) == STREAMS, PATIENCE_S)
    for _ in range(TEARS):
        time.sleep(UP_S)
        for link in links.values():
            link.tear()
            time.sleep(0.07)  # at another place in each one's group of pictures
        time.sleep(DOWN_S)
        for name, link in links.items():
            link.mend()
            mended_ns.setdefault(name, []).append(time.time_ns())
        wait_until(lambda: all(back(sink, name, mended_ns[name][-1]) for name in links), PATIENCE_S)


def back(sink: StreamTimes, stream: str, since_ns: int) -> bool:
    """Whether a picture of `stream` came since then."""
    return sink.shown_ns[stream][-1] > since_ns


def fly_until(stop: threading.Event, url: str) -> SendStats:
    """Send 30 pictures a second until `stop`."""
    stats: SendStats = send_flight(url, LinkFaults(), Flight(10**6, 30.0, GOP, stop=stop))
    return stats


def landed(flight: Future[SendStats]) -> SendStats:
    """The account of a flight that was told to stop."""
    return flight.result(PATIENCE_S)


def waited_s(shown_ns: np.ndarray, since_ns: int) -> float:
    """Time from then to the next picture; infinite when none came."""
    later = shown_ns[shown_ns > since_ns]
    return float(later.min() - since_ns) * 1e-9 if len(later) else float("inf")


if __name__ == "__main__":
    measure(Benchmark("ingest"))
