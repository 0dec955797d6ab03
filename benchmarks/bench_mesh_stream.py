# SPDX-License-Identifier: Apache-2.0
"""The surface over a line of 1 Mbit/s: what it takes, how far behind it is, how soon it is whole.

A client on a simulated clock gets what `MeshLink` allows every 0.1 s while a camera films a room
(10 keyframes a second, depth as wrong as a network's) or the simulator's demo flight (2 a second),
and then stands still. It decodes everything; in the end its blocks must be the server's.
The naive way beside it sends every delta raw, as `mesh/delta` does; Draco codes the same blocks.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from harness import QUICK, Benchmark
from mesh_room import film, furnished, keyframe, learned_noise

from worldsystem_core.frames import Camera
from worldsystem_core.mesh_code.code import decode, encode
from worldsystem_core.mesh_code.draco import encode_draco
from worldsystem_core.mesh_stream.catalogue import SurfaceCatalogue
from worldsystem_core.mesh_stream.link import COARSE, PARCELS_AT_ONCE, MeshLink, Parcel
from worldsystem_core.mesh_stream.streamed import MeshEncoding, StreamedDelta
from worldsystem_core.reconstruction import Keyframe
from worldsystem_core.surface import BlockIndex, MeshBlock, MeshDelta
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher
from worldsystem_mesh.precompile import precompile
from worldsystem_sim.config import SimConfig
from worldsystem_sim.flight import flight
from worldsystem_sim.render import Renderer
from worldsystem_sim.scene import build_scene
from worldsystem_viewer.page_files import WEB

MBPS = 1.0
TICK_S = 0.1
ROOM_KEYFRAMES = 50 if QUICK else 150
DEMO_S = 12.0 if QUICK else 60.0
DEMO_KEYFRAMES_PER_S = 2.0
STILL_LIMIT_S = 60.0
MESSAGE_BYTES = 60
STEPS_A_VOXEL = 64
"""Our code has 6 bits for where a vertex lies on its edge."""


@dataclass
class Run:
    """What a client saw."""

    bytes_by_tick: list[int] = field(default_factory=list)
    raw_bytes: int = 0
    encode_ms: list[float] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)
    parcel_bytes: list[int] = field(default_factory=list)
    parcel_blocks: list[int] = field(default_factory=list)
    seen_when_stopped: float = 0.0
    fine_when_stopped: float = 0.0
    settled_s: float = 0.0
    codes: list[bytes] = field(default_factory=list)

    def mbps(self) -> float:
        return 8e-6 * sum(self.bytes_by_tick) / (TICK_S * len(self.bytes_by_tick))

    def peak_mbps(self) -> float:
        """Of the busiest ten seconds."""
        ticks = min(round(10.0 / TICK_S), len(self.bytes_by_tick))
        sums = np.convolve(self.bytes_by_tick, np.ones(ticks), "valid")
        return float(8e-6 * sums.max() / (TICK_S * ticks))


class Client:
    """The far end of the line."""

    def __init__(self, catalogue: SurfaceCatalogue, run: Run) -> None:
        self.catalogue = catalogue
        self.link = MeshLink(1e6 * MBPS)
        self.blocks: dict[BlockIndex, MeshBlock] = {}
        self.run = run
        self.now_s = 0.0

    def tick(self, eye: np.ndarray) -> None:
        self.now_s += TICK_S
        sizes = [0]
        for _ in range(PARCELS_AT_ONCE):
            parcel = self.link.next(self.catalogue, self.now_s, eye.astype(np.float32))
            if parcel is None:
                break
            sizes.append(self.take(parcel))
        self.run.bytes_by_tick.append(sum(sizes))

    def take(self, parcel: Parcel) -> int:
        """Encode, account for, decode and keep; return the size."""
        begun = time.perf_counter()
        code = parcel.code()
        coded = time.perf_counter()
        size = len(code) + 12 * len(parcel.removed) + MESSAGE_BYTES
        self.link.account(parcel, size)
        for index in parcel.removed:
            self.blocks.pop(index, None)
        decoded = decode(code) if code else []
        if parcel.level == 0 and code:
            self.run.encode_ms.append(1e3 * (coded - begun))
            self.run.decode_ms.append(1e3 * (time.perf_counter() - coded))
            self.run.parcel_bytes.append(size)
            self.run.parcel_blocks.append(len(decoded))
            self.run.codes.append(code)
        self.blocks |= {block.index: block for block in decoded}
        return size


def stream(keyframes: Iterable[Keyframe], per_s: float, config: MeshConfig) -> tuple[Run, Mesher]:
    """Map and send, then stand still until the client has everything."""
    mesher, catalogue, run = Mesher(config), SurfaceCatalogue(), Run()
    client, due_s, eye = Client(catalogue, run), 0.0, np.zeros(3)
    for number, frame in enumerate(keyframes):
        mesher.integrate(frame)
        _take(mesher.extract(number), catalogue, run)
        eye, due_s = frame.world_from_cam[:3, 3], due_s + 1.0 / per_s
        while client.now_s < due_s - 1e-9:
            client.tick(eye)
    held = [client.blocks[i].level for i in _places(catalogue) if i in client.blocks]
    total = max(len(_places(catalogue)), 1)
    run.seen_when_stopped = len(held) / total
    run.fine_when_stopped = held.count(0) / total
    stopped_s = client.now_s
    while client.now_s - stopped_s < STILL_LIMIT_S:
        _take(mesher.go_on(0), catalogue, run)
        if mesher.is_settled and not client.link.missing(catalogue):
            break
        client.tick(eye)
    run.settled_s = client.now_s - stopped_s
    _assert_same(mesher, client)
    return run, mesher


def _take(delta: MeshDelta | None, catalogue: SurfaceCatalogue, run: Run) -> None:
    if delta is not None:
        catalogue.apply(delta)
        raw = StreamedDelta(delta=delta, part=0, encoding=MeshEncoding.RAW)
        run.raw_bytes += raw.bytes


def _places(catalogue: SurfaceCatalogue) -> list[BlockIndex]:
    return [(x, y, z) for x, y, z in catalogue.index[catalogue.vertices > 0].tolist()]


def _assert_same(mesher: Mesher, client: Client) -> None:
    """The client's surface is the server's at full level, as the code rounds it."""
    blocks, voxel = mesher.all_blocks(0, 0).blocks, mesher.stats()["voxel"]
    wanted = {block.index: block for block in blocks}
    assert client.blocks.keys() == wanted.keys()
    for index, block in client.blocks.items():
        assert block.level == 0
        assert np.array_equal(block.faces, wanted[index].faces)
        ours, theirs = block.shares, wanted[index].shares
        assert ours is not None
        assert theirs is not None
        assert np.array_equal(ours >> 10, theirs >> 10)
        assert np.abs(block.vertices - wanted[index].vertices).max() <= voxel / 127


def demo_keyframes() -> Iterable[Keyframe]:
    """The simulator's demo flight, with the depth errors of a network."""
    config = SimConfig()
    scene = build_scene(config.seed)
    camera = Camera.from_horizontal_fov(320, 180, np.radians(config.fov_deg))
    renderer = Renderer(scene, camera)
    way = flight(config.flight, config.seed, DEMO_S, scene)
    times_s = np.arange(0.0, DEMO_S, 1.0 / DEMO_KEYFRAMES_PER_S)
    for number, pose in enumerate(way.poses(times_s)):
        view = renderer.render(pose)
        depth = np.where(np.isfinite(view.depth_m), view.depth_m, np.float32(np.nan))
        yield keyframe(number, pose, learned_noise(depth, number), view.rgb, camera)


@dataclass(frozen=True)
class Sizes:
    """Bytes of each way to code one surface, a welded vertex: in messages as they are sent, in one
    piece, and coarse in one piece; Draco's block by block and in one piece."""

    sent: float
    whole: float
    coarse: float
    draco_blocks: float
    draco_fine_blocks: float
    draco_whole: float


def bytes_a_vertex(mesher: Mesher, blocks_a_message: int) -> Sizes:
    """Ours beside Draco as exact as ours (64 steps a voxel), and as fine as it is sent."""
    blocks = list(mesher.all_blocks(0, 0).blocks)
    blocks.sort(key=lambda block: block.index[::-1])
    voxel, mesh = mesher.stats()["voxel"], mesher.mesh()
    cube = 8 * voxel
    bits = int(np.log2(8 * STEPS_A_VOXEL))
    low = mesh.vertices.min(axis=0)
    extent = float((mesh.vertices - low).max())
    joined = MeshBlock(
        index=(0, 0, 0), version=1, vertices=mesh.vertices - low, colours=mesh.colours,
        faces=mesh.faces,
    )  # fmt: skip
    fine_enough = int(np.ceil(np.log2(STEPS_A_VOXEL * extent / voxel)))
    starts = range(0, len(blocks), blocks_a_message)
    sizes = (
        sum(len(encode(blocks[i : i + blocks_a_message], voxel)) for i in starts),
        len(encode(blocks, voxel)),
        len(encode(blocks, voxel, COARSE)),
        sum(len(encode_draco(block, cube, bits)) for block in blocks),
        sum(len(encode_draco(block, cube)) for block in blocks),
        len(encode_draco(joined, extent, fine_enough)),
    )
    return Sizes(*(size / len(mesh.vertices) for size in sizes))


_NODE_SCRIPT = """
import { readFileSync } from "node:fs";
import { decodeMeshCode } from "./mesh_code.js";
const codes = process.argv.slice(2).map((name) => new Uint8Array(readFileSync(name)));
for (const code of codes) await decodeMeshCode(code);
const times = [];
for (const code of codes) {
  const begun = performance.now();
  await decodeMeshCode(code);
  times.push(performance.now() - begun);
}
console.log(JSON.stringify(times));
"""


def node_ms(codes: list[bytes]) -> list[float]:
    """How long the page's decoder takes for each code; empty without node."""
    node = shutil.which("node")
    if node is None:
        return []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for script in WEB.glob("*.js"):
            shutil.copy(script, folder / script.name)
        (folder / "package.json").write_text('{"type": "module"}')
        (folder / "time.js").write_text(_NODE_SCRIPT)
        names = [str(folder / f"{i}") for i in range(len(codes))]
        for path, code in zip(names, codes, strict=True):
            Path(path).write_bytes(code)
        command = [node, str(folder / "time.js"), *names]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return [float(ms) for ms in json.loads(done.stdout)]


def main() -> None:
    """Run all and write `results/mesh_stream.json`."""
    precompile()
    bench = Benchmark("mesh_stream", id_prefix="mesh")
    demo, mesher = stream(demo_keyframes(), DEMO_KEYFRAMES_PER_S, MeshConfig())
    what = f"demo flight of {DEMO_S:.0f} s, voxel {100 * mesher.stats()['voxel']:.1f} cm"
    mesher.close()
    note = f"{what}; the busiest 10 s: {demo.peak_mbps():.2f}"
    bench.add("stream_mbps", demo.mbps(), "Mbit/s", note=note)
    note = f"whole at full level after the camera stopped; {what}"
    bench.add("stream_settled_demo_s", demo.settled_s, "s", note=note)
    for voxel in (0.05, 0.02):
        _room(bench, voxel)
    bench.write()


def _room(bench: Benchmark, voxel: float) -> None:
    frames = film(furnished(1), ROOM_KEYFRAMES, noisy=True)
    run, mesher = stream(frames, 10.0, MeshConfig(voxel=voxel, depth_noise=0.01))
    name = f"{100 * voxel:.0f}cm"
    what = f"room at {name}, {len(frames)} keyframes in {len(frames) / 10:.0f} s"
    bench.add(f"stream_{name}_mbps", run.mbps(), "Mbit/s", note=what)
    naive = 8e-6 * run.raw_bytes / (len(frames) / 10.0)
    note = f"raw deltas ({naive:.0f} Mbit/s) over the stream, {what}"
    bench.add(f"stream_{name}_vs_raw", run.raw_bytes / sum(run.bytes_by_tick), "x", note=note)
    note = f"whole at full level after the camera stopped; {what}"
    bench.add(f"stream_settled_{name}_s", run.settled_s, "s", note=note)
    note = f"blocks the client has when the camera stops; at full level {run.fine_when_stopped:.0%}"
    bench.add(f"stream_seen_{name}_percent", 100 * run.seen_when_stopped, "%", note=note)
    if voxel == 0.02:
        _codec(bench, run, mesher)
    mesher.close()


def _codec(bench: Benchmark, run: Run, mesher: Mesher) -> None:
    many = max(round(float(np.median(run.parcel_blocks))), 1)
    sizes = bytes_a_vertex(mesher, many)
    note = f"a welded vertex of the room at 2cm, {many} blocks a message; {sizes.whole:.2f} B in "
    note += f"one piece, of which level 2 takes {sizes.coarse / sizes.whole:.0%}"
    bench.add("code_bytes_per_vertex", sizes.sent, "B", note=note)
    ratio = sizes.draco_blocks / sizes.sent
    note = f"Draco cl1, as exact as ours, block by block ({sizes.draco_blocks:.2f} B) over ours; "
    note += f"as it is sent, with 11 bits, {sizes.draco_fine_blocks:.2f} B"
    bench.add("code_vs_draco", ratio, "x", note=note)
    ratio = sizes.draco_whole / sizes.whole
    note = f"the same with the whole mesh in one piece ({sizes.draco_whole:.2f} B) over ours in one"
    bench.add("code_vs_draco_whole", ratio, "x", note=note)
    size = f"a message of {np.median(run.parcel_bytes) / 1e3:.0f} kB"
    bench.add("code_encode_ms", run.encode_ms, "ms", note=f"Python, {size}")
    bench.add("code_decode_ms", run.decode_ms, "ms", note=f"Python, {size}")
    codes = [code for code in run.codes if code][:100]
    if times := node_ms(codes):
        bench.add("code_decode_js_ms", times, "ms", note=f"the page's decoder in node, {size}")


if __name__ == "__main__":
    main()
