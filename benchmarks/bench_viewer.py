# SPDX-License-Identifier: Apache-2.0
"""The web page and its server: the line, catching up, memory, twenty viewers, the browser's part.

The demo flight (`viewer_film.py`) is shown at its own pace. `bench_viewer.py PART...` runs some
(line, load, live, browser) into `viewer_PART.json`. The soak runs only when it is named, since a
short one says nothing of growth; `SOAK_MIN=30` makes it so long.
"""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import viewer_in_browser
import viewer_live
import viewer_soak
from harness import QUICK, Benchmark
from scipy.spatial import cKDTree
from viewer_client import Client
from viewer_film import KEYFRAMES_PER_S, Moment, film

from worldsystem_core.interpreter import share_interpreter
from worldsystem_core.mesh_code.code import decode, encode
from worldsystem_core.surface import BlockIndex, MeshBlock, join_blocks
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher
from worldsystem_mesh.precompile import precompile
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.page_server import PageServer

FILM_S = 14.0 if QUICK else 40.0
OFFLINE_S = 3.0 if QUICK else 10.0
SOAK_MIN = float(os.environ.get("SOAK_MIN", "0.5" if QUICK else "2"))
VOXEL = 0.15
SAMPLES = 4_000
FURTHEST_M = 1.0
VIEWERS = 20
PAIRS = 1 if QUICK else 7
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "viewer_error.png"


@dataclass
class Shown:
    """What the server had, block by block, at each moment."""

    moments: list[Moment]
    blocks: dict[BlockIndex, MeshBlock] = field(default_factory=dict)

    def tell(self, server: PageServer, moment: Moment) -> None:
        for pose in moment.poses:
            server.pose(pose)
        server.keyframe(moment.keyframe)
        server.image(moment.rgb, moment.keyframe.stamp_ns, moment.tracks.labels)
        server.tracks(moment.tracks)
        server.objects(moment.objects)
        if moment.delta is not None:
            server.mesh(replace(moment.delta, capture_ns=moment.keyframe.stamp_ns))
            for index in moment.delta.removed:
                self.blocks.pop(index, None)
            self.blocks |= {block.index: block for block in moment.delta.blocks}


def main() -> None:
    """Run all, or the parts that are named, and write the figures."""
    share_interpreter()
    precompile()
    parts = sys.argv[1:] or [part for part in PARTS if part != "soak"]
    name = f"viewer_{'_'.join(sys.argv[1:])}" if sys.argv[1:] else "viewer"
    moments = [_frozen(moment) for moment in film(FILM_S, voxel=VOXEL)]
    gc.collect()
    gc.freeze()  # a live pipeline holds no film
    bench = Benchmark(name, id_prefix="viewer")
    for part in parts:
        PARTS[part](bench, moments)
    if sys.argv[1:]:
        length = f"SOAK_MIN={SOAK_MIN:g} " if "soak" in parts else ""
        given = f'{length}make bench NAME=viewer ARGS="{" ".join(parts)}"'
        os.environ.setdefault("BENCH_COMMAND", given)
    bench.write()


def _frozen(moment: Moment) -> Moment:
    """With its blocks made, so that showing it costs no mesher's time."""
    if moment.delta is None:
        return moment
    return replace(moment, delta=moment.delta.with_blocks(tuple(moment.delta.blocks)))


def _line(bench: Benchmark, moments: list[Moment]) -> None:
    """A thin line, an unlimited one, and one that is cut for a while, beside each other."""
    server = PageServer(ViewerConfig(web_port=0, mesh="code"))
    server.start()
    thin = Client(server.port, mesh="code")
    quick = Client(server.port, mesh="raw")
    cut = Client(server.port, mesh="raw")
    shown, errors = Shown(moments), []
    begun = time.monotonic()
    for number, moment in enumerate(moments):
        at_s = number / KEYFRAMES_PER_S
        time.sleep(max(0.0, begun + at_s - time.monotonic()))
        shown.tell(server, moment)
        if number == len(moments) // 3:
            cut.close()
        if number == len(moments) // 3 + round(OFFLINE_S * KEYFRAMES_PER_S):
            cut.open()
        if number % 2 == 1:
            errors.append((at_s, _error_m(shown, thin), _error_m(shown, quick)))
    spent_s = time.monotonic() - begun
    mesh_mbps = 8e-6 * thin.mesh_bytes / spent_s
    note = f"surface to one page, demo flight of {FILM_S:.0f} s at its pace, budget 1 Mbit/s"
    bench.add("mbps", mesh_mbps, "Mbit/s", note=note)
    note = "all that page is sent, with pictures, objects and poses"
    bench.add("all_mbps", 8e-6 * thin.bytes / spent_s, "Mbit/s", note=note)
    bench.add("raw_mbps", 8e-6 * quick.mesh_bytes / spent_s, "Mbit/s", note="raw, no limit")
    _catch_up(bench, shown, thin, cut)
    for name, column in (("thin", 1), ("unlimited", 2)):
        values = [row[column] for row in errors]
        note = f"of {SAMPLES} vertices to the page's nearest, {FURTHEST_M:.0f} m at most"
        bench.add(f"error_{name}_m", values, "m", note=note)
    _plot(errors)
    for client in (thin, quick, cut):
        client.close()
    server.stop()


def _catch_up(bench: Benchmark, shown: Shown, thin: Client, cut: Client) -> None:
    begun = time.monotonic()
    wanted = {b.index: b for b in decode(encode(list(shown.blocks.values()), VOXEL))}
    settled_s = float("nan")
    while time.monotonic() - begun < 60.0:
        if _same(thin, wanted) and _same(cut, shown.blocks):
            settled_s = time.monotonic() - begun
            break
        time.sleep(0.1)
    note = f"1: blocks of a page that was away for {OFFLINE_S:.0f} s are the server's, bit for bit"
    bench.add("catch_up_identical", float(_same(cut, shown.blocks)), "", note=note)
    note = "the same of the page on 1 Mbit/s, after the code's rounding"
    bench.add("thin_identical", float(_same(thin, wanted)), "", note=note)
    bench.add("settled_s", settled_s, "s", note="from the last change until both are whole")


def _same(client: Client, wanted: dict[BlockIndex, MeshBlock]) -> bool:
    with client.lock:
        held = dict(client.surface.blocks)
    return held.keys() == wanted.keys() and all(
        np.array_equal(getattr(held[index], part), getattr(block, part))
        for index, block in wanted.items()
        for part in ("vertices", "colours", "faces")
    )


def _error_m(shown: Shown, client: Client) -> float:
    with client.lock:
        held = join_blocks(list(client.surface.blocks.values())).vertices
    there = join_blocks(list(shown.blocks.values())).vertices
    if not len(held) or not len(there):
        return FURTHEST_M if len(there) else 0.0
    sample = there[:: max(1, len(there) // SAMPLES)]
    distance, _ = cKDTree(held).query(sample, distance_upper_bound=FURTHEST_M)
    return float(np.minimum(distance, FURTHEST_M).mean())


def _plot(errors: list[tuple[float, float, float]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    at_s, thin, quick = np.array(errors).T
    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    axes.semilogy(at_s, np.maximum(100 * thin, 1e-2), label="1 Mbit/s")
    axes.semilogy(at_s, np.maximum(100 * quick, 1e-2), label="no limit")
    axes.set(xlabel="time of flight [s]", ylabel="error of the page's surface [cm]")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    PICTURE.parent.mkdir(exist_ok=True)
    if not QUICK:
        figure.savefig(PICTURE, dpi=130)


@dataclass(frozen=True)
class Load:
    """One run: keyframes a second, and how busy who was [s of a processor each second]."""

    rate_hz: float
    server: float
    crowd: float
    mbytes_per_s: float


def _load(bench: Benchmark, moments: list[Moment]) -> None:
    """Mapping at full rate into the server, with nobody watching and with twenty pages."""
    _mapped(moments, 0)  # the first is slower
    alone, watched = [], []
    for _ in range(PAIRS):
        alone.append(_mapped(moments, 0))
        watched.append(_mapped(moments, VIEWERS))
    note = "keyframes a second mapped and handed over with 20 pages on loopback, over without; "
    note += f"{os.cpu_count()} cores, pages in one process of lowest priority that looks at nothing"
    pairs = [b.rate_hz / a.rate_hz for a, b in zip(alone, watched, strict=True)]
    bench.add("pipeline_fps_with_20", pairs, "x", note=note)
    bench.add("pipeline_fps", [run.rate_hz for run in alone], "1/s", note="without viewers")
    note = "of a processor each second for each of the 20 pages: finding, encoding and sending"
    each = [1e3 * run.server / VIEWERS for run in watched]
    bench.add("server_ms_per_page_s", each, "ms/s", note=note)
    each = [1e3 * run.crowd / VIEWERS for run in watched]
    bench.add("crowd_ms_per_page_s", each, "ms/s", note="the same of the 20 pages' own process")
    each = [8 * run.mbytes_per_s / VIEWERS for run in watched]
    bench.add("raw_mbps_of_20", each, "Mbit/s", note="what each of the 20 pages was sent, raw")


def _mapped(moments: list[Moment], viewers: int) -> Load:
    server, mesher = PageServer(ViewerConfig(web_port=0)), Mesher(MeshConfig(voxel=VOXEL))
    server.start()
    crowd = _crowd(server.port, viewers) if viewers else None
    shown, busy, begun = Shown(moments), _busy_s(), time.monotonic()
    for moment in moments:
        mesher.integrate(moment.keyframe)
        shown.tell(server, replace(moment, delta=mesher.extract(moment.keyframe.stamp_ns)))
    spent_s = time.monotonic() - begun
    server_s, crowd_s, taken = _busy_s() - busy, 0.0, 0.0
    if crowd is not None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken = float(crowd.communicate(b"\n")[0])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        crowd_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    server.stop()
    mesher.close()
    return Load(
        len(moments) / spent_s, server_s / spent_s, crowd_s / spent_s, taken / 1e6 / spent_s
    )


def _live(bench: Benchmark, _: list[Moment]) -> None:
    """The demo at its own pace, with nobody watching and with twenty pages."""
    pairs = viewer_live.flights(VIEWERS)
    note = f"the demo of {viewer_live.DURATION_S} s, all stages on, {os.cpu_count()} cores: "
    note += "with 20 pages on loopback, over without; p95 is told in steps of a fifth"
    for figure, unit in (("fps", "x"), ("glass_to_map_p95_ms", "x"), ("mesh_fscore", "x")):
        ratios = [watched[f"demo.{figure}"] / alone[f"demo.{figure}"] for alone, watched in pairs]
        bench.add(f"live_{figure.removesuffix('_ms')}_with_20", ratios, unit, note=note)


def _crowd(port: int, viewers: int) -> subprocess.Popen[bytes]:
    """Pages are on other machines: here they shall take only what is left."""
    command = [sys.executable, str(Path(__file__).parent / "viewer_crowd.py"), str(port)]
    crowd = subprocess.Popen(
        ["nice", "-n", "19", *command, str(viewers)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert crowd.stdout is not None
    crowd.stdout.readline()
    return crowd


def _busy_s() -> float:
    """Processor time of the server's threads so far [s]."""
    clocks = [
        time.pthread_getcpuclockid(thread.ident)
        for thread in threading.enumerate()
        if thread.name in ("page_server", "picture") and thread.ident is not None
    ]
    return sum(time.clock_gettime(clock) for clock in clocks)


def _browser(bench: Benchmark, moments: list[Moment]) -> None:
    if viewer_in_browser.chromium() is None:
        return
    server, shown = PageServer(ViewerConfig(web_port=0)), Shown(moments)
    server.start()
    for moment in moments:
        shown.tell(server, moment)
    faces = sum(len(block.faces) for block in shown.blocks.values())
    with viewer_in_browser.opened(server.port) as page:
        viewer_in_browser.until(page, f"worldsystem.triangles === {faces}")
        viewer_in_browser.until(page, "worldsystem.mesh.dirty.size === 0")
        viewer_in_browser.until(page, "worldsystem.mesh.warm")
        fps = viewer_in_browser.orbit_fps(page, 4.0)
        note = f"orbit, {faces / 1e6:.2f} M triangles, 1280 × 720, SwiftShader (no GPU)"
        bench.add("software_fps", fps, "1/s", note=note)
    server.stop()
    _delta(bench, list(shown.blocks.values()))


def _delta(bench: Benchmark, blocks: list[MeshBlock]) -> None:
    """One message of the surface, in a page that shows nothing else and was open before."""
    server, code = PageServer(ViewerConfig(web_port=0)), viewer_in_browser.delta_of(blocks, VOXEL)
    server.start()
    with viewer_in_browser.opened(server.port) as page:
        viewer_in_browser.until(page, "worldsystem.mesh.warm")
        every = viewer_in_browser.delta_ms(page, code)
    server.stop()
    runs = every[viewer_in_browser.COLD_RUNS :]
    note = f"20,000 triangles, {len(code) / 1e3:.0f} kB, in Chromium"
    text = f"{note}; from the message to its blocks, through a worker"
    bench.add("delta_decode_ms", runs[:, 0].tolist(), "ms", note=text)
    bench.add("delta_build_ms", runs[:, 1].tolist(), "ms", note=f"{note}; 6 ms a picture")
    bench.add("delta_upload_ms", runs[:, 2].tolist(), "ms", note=f"{note}; SwiftShader")
    page = runs[:, 1:].sum(axis=1).tolist()
    bench.add("delta_page_ms", page, "ms", note=f"{note}; build and upload: the page's own thread")
    total = runs.sum(axis=1).tolist()
    bench.add("delta_ms", total, "ms", note=f"{note}; decode, build and upload")
    note = f"{note}; the same of a page's very first, and of the four after it"
    cold = every[: viewer_in_browser.COLD_RUNS].sum(axis=1).tolist()
    bench.add("delta_first_ms", cold[:1], "ms", note=note)
    bench.add("delta_early_ms", cold[1:], "ms", note=note)


def _soak(bench: Benchmark, moments: list[Moment]) -> None:
    """The flight again and again, with a page open and a past that is held within 32 MiB."""
    if viewer_in_browser.chromium() is None:
        return
    server, shown = PageServer(ViewerConfig(web_port=0, history_mb=32.0)), Shown(moments)
    server.start()
    stopping = threading.Event()

    def loop() -> None:
        while not stopping.is_set():
            for moment in moments:
                shown.tell(server, moment)
                if stopping.wait(0.25):
                    return

    feeding = threading.Thread(target=loop)
    feeding.start()
    try:
        settle_s = max(2 * 0.25 * len(moments), 6 * SOAK_MIN)
        held = viewer_soak.watch(server.port, settle_s, SOAK_MIN)
    finally:
        stopping.set()
        feeding.join()
        server.stop()
    note = f"{SOAK_MIN:g} min of looped flight once all is there; {{:.0f}} MB held at the end"
    for name, what in (
        ("heap", "page's heap after collection"),
        ("page", "the page's process"),
        ("server", "the server's process, film and all"),
    ):
        values = held.mb[name]
        text = f"{what}, {note}".format(values[-1])
        bench.add(f"{name}_slope_mb_per_min", held.slope(name), "MB/min", note=text)
        percent = 6_000 * held.slope(name) / values[-1]
        bench.add(f"{name}_slope_percent_h", percent, "%/h", note="of what is held at the end")
        extremes = [float(values.min()), float(values.max())]
        bench.add(f"{name}_mb", [*extremes, float(values[-1])], "MB", note=f"{what}, as sampled")


PARTS = {"line": _line, "load": _load, "live": _live, "browser": _browser, "soak": _soak}


if __name__ == "__main__":
    main()
