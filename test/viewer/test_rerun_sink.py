# SPDX-License-Identifier: Apache-2.0
"""The Rerun log: a file that Rerun's own tool finds whole, and a server that may go away."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from world_for_viewers import (
    camera_pose,
    delta,
    ground_block,
    growing_ground,
    keyframe,
    map_objects,
    picture,
    pose_event,
    track_frame,
)

from worldsystem_core.errors import MissingDependency
from worldsystem_core.frames import EncodedFrame
from worldsystem_core.objects import MapObjects
from worldsystem_core.reconstruction import MovedKeyframes, RemovedKeyframes
from worldsystem_core.surface import Mesh
from worldsystem_viewer.chunks import ChunkedSurface
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.rerun_entities import RerunEntities
from worldsystem_viewer.rerun_sink import RerunSink
from worldsystem_viewer.rerun_statics import Statics

pytest.importorskip("rerun", reason="rerun-sdk is not installed")


def feed(sink: RerunSink) -> None:
    sink.keyframe(keyframe(1, 0.0))
    for n, step in enumerate(growing_ground()):
        sink.pose(pose_event(n, n / 12, keyframe_id=1))
        sink.mesh(step)
        sink.image(picture(n / 12, 64, 48), n * 10**9)
        time.sleep(0.01)
    sink.objects(map_objects())
    sink.objects(MapObjects(stamp_ns=2, objects=()))
    sink.mesh(delta([], 99, removed=tuple((i, 0, k) for i in range(4) for k in range(4))))
    sink.image(np.zeros((0, 0, 3), np.uint8), 10**12)


def rows_of(path) -> dict[str, int]:
    """Rows by entity, read by Rerun's own data API; what is static ends with `!`."""
    from rerun.chunk import RrdReader

    counts: dict[str, int] = {}
    for chunk in RrdReader(path).stream():
        name = chunk.entity_path + ("!" if chunk.is_static else "")
        counts[name] = counts.get(name, 0) + chunk.num_rows
    return counts


def access_unit(number: int, is_key: bool) -> EncodedFrame:
    return EncodedFrame(
        id=number, stamp_ns=number * 10**9, arrival_ns=0, data=b"\0\0\0\1\x65", is_key=is_key
    )


class FakeTime:
    now_s = spent_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def thread_time(self) -> float:
        return self.spent_s


class Slow:
    """Logging what changed takes `spent_s` of the processor, in however many parts."""

    def __init__(self, clock: FakeTime, spent_s: float) -> None:
        self._clock, self._spent_s = clock, spent_s
        self.at_s: list[float] = []

    def chunk(self, *part: object) -> None:
        if self._clock.now_s not in self.at_s[-1:]:
            self.at_s.append(self._clock.now_s)
            self._clock.spent_s += self._spent_s

    def renew(self, mesh_of: object) -> None: ...


@pytest.mark.parametrize(("spent_s", "every_s"), [(0.001, 1.0), (0.1, 2.5), (1.0, 4.0)])
def test_the_surface_is_logged_less_often_the_more_it_costs(monkeypatch, spent_s, every_s):
    clock = FakeTime()
    monkeypatch.setattr("worldsystem_viewer.rerun_sink.time", clock)
    sink = RerunSink(ViewerConfig(rerun_serve=False))
    sink._entities = slow = Slow(clock, spent_s)
    step = next(iter(growing_ground()))
    for tick in range(400):
        clock.now_s = tick / 20
        sink.mesh(step)
        sink._log_queued(0.0)
    assert len(slow.at_s) >= 5
    assert np.diff(slow.at_s) == pytest.approx(every_s, abs=0.06)


def test_everything_that_was_logged_is_counted_in_the_file(tmp_path):
    path = tmp_path / "world.rrd"
    sink = RerunSink(ViewerConfig(rerun_serve=False, rerun_file=str(path)))
    sink.start()
    sink.keyframe(keyframe(1, 0.0))
    for n in range(10):
        sink.pose(pose_event(n, n / 10, keyframe_id=1))
    for n in range(8):
        sink.video(access_unit(n, is_key=n == 2))  # the first key frame is the third picture
    sink.tracks(track_frame(0.5))
    sink.objects(map_objects())
    for step in growing_ground():
        sink.mesh(step)
    sink.stop()
    rows = rows_of(path)
    assert rows["/world/camera"] == 10
    assert rows["/world/camera/picture"] == 6 + 1 + 1  # access units, shape, end of pictures
    assert rows["/world/camera/picture/tracks"] == rows["/world/objects"] == 1
    assert rows["/world/camera/picture!"] == 1  # the codec
    chunks = {name for name in rows if name.startswith("/world/mesh/")}
    assert len(chunks) == 9
    assert all(name.endswith("!") for name in chunks)  # a viewer keeps the newest alone
    assert sink.dropped == 0


def test_what_a_full_server_would_let_go_of_is_logged_again(tmp_path):
    import rerun

    path, surface = tmp_path / "world.rrd", ChunkedSurface(2**30)
    stream = rerun.RecordingStream("worldsystem")
    stream.set_sinks(rerun.FileSink(path))
    entities = RerunEntities(rerun, stream, 80, server_bytes=200_000)
    entities.pose(pose_event(0, 0.0))
    surface.apply(delta([ground_block(0, 0), ground_block(4, 0)], 1))
    sent, size = 0, 0
    while sent < 2_000_000:
        surface.apply(delta([ground_block(4, 0)], 1))  # the other one stays as it is
        while (part := surface.take_changed()) is not None:
            entities.chunk(*part)
            size = part[1].faces.nbytes + 2 * part[1].vertices.nbytes + part[1].colours.nbytes
            sent += size
        entities.renew(surface.mesh_of)
    stream.disconnect()
    rows = rows_of(path)
    turns = sent / 100_000
    assert turns - 3 < rows["/world/mesh/0_0_0!"] < 1.2 * turns
    assert turns - 3 < rows["/world!"] < 1.2 * turns
    assert rows["/world/mesh/1_0_0!"] >= sent // size - 1


class Recorded:
    """Takes what is logged, and keeps the numbers of video and the newest path."""

    def __init__(self) -> None:
        self.video_ids: list[int] = []
        self.centres = np.zeros((0, 3), np.float32)

    def video(self, frame: EncodedFrame) -> None:
        self.video_ids.append(frame.id)

    def path(self, length: int, positions) -> None:
        self.centres = positions()
        assert len(self.centres) >= length

    def pose(self, pose: object) -> None: ...

    def keyframe(self, given: object) -> None: ...

    def tracks(self, frame: object) -> None: ...

    def renew(self, mesh_of: object) -> None: ...


def behind() -> tuple[RerunSink, Recorded]:
    """A sink whose thread has not come to log anything yet."""
    sink = RerunSink(ViewerConfig(rerun_serve=False))
    sink._entities = recorded = Recorded()
    return sink, recorded


def log_all(sink: RerunSink) -> None:
    while len(sink._inbox):
        sink._log_queued(0.0)


def test_behind_a_gap_no_picture_is_logged_before_the_next_key_frame():
    """What is dropped is the oldest that waits: those that need it come behind it."""
    sink, recorded = behind()
    for n in range(128):
        sink.video(access_unit(n, is_key=n == 0))
    sink.pose(pose_event(1, 0.1))
    log_all(sink)
    assert sink.dropped == 1
    assert recorded.video_ids == [], "the key frame was dropped"
    for n in range(128, 140):
        sink.video(access_unit(n, is_key=n == 130))
    log_all(sink)
    assert recorded.video_ids == list(range(130, 140))


def test_without_a_loss_every_picture_from_the_first_key_frame_on_is_logged():
    sink, recorded = behind()
    for n in range(60):
        sink.video(access_unit(n, is_key=n in (3, 30)))
        sink.pose(pose_event(n, 0.1))
    log_all(sink)
    assert recorded.video_ids == list(range(3, 60))


def test_a_world_that_began_anew_keeps_nothing_of_the_path_before_however_late_the_log_is():
    sink, recorded = behind()
    sink.keyframe(keyframe(4, 0.0))
    for n in range(10):
        sink.pose(pose_event(n, n / 10, keyframe_id=4))
    log_all(sink)
    sink.removed(RemovedKeyframes((4,)))
    for n in range(150):
        sink.pose(pose_event(20 + n, 0.5))
    log_all(sink)
    assert sink.dropped > 0
    np.testing.assert_array_equal(recorded.centres, np.tile(recorded.centres[-1], (150, 1)))


def test_a_correction_moves_the_path_however_late_the_log_is():
    sink, recorded = behind()
    sink.keyframe(keyframe(4, 0.0))
    for n in range(10):
        sink.pose(pose_event(n, n / 10, keyframe_id=4))
    log_all(sink)
    before, moved, shift = recorded.centres, camera_pose(0.0), np.array([10.0, 0.0, 0.0])
    moved[:3, 3] += shift
    sink.moved(MovedKeyframes({4: moved}))
    for _ in range(200):
        sink.tracks(track_frame(0.5))
    log_all(sink)
    sink.pose(pose_event(10, 1.0, keyframe_id=4))
    log_all(sink)
    np.testing.assert_allclose(recorded.centres[:10], before + shift, atol=1e-5)


def test_a_surface_larger_than_the_server_is_told_of_once(caplog):
    statics = Statics(1000)
    for chunk in (0, 1, 2, 1, 2, 1):
        statics.note((chunk, 0, 0), 200)
        assert statics.due() is None
    assert caplog.text.count("rerun_mb") == 1
    statics.gone((2, 0, 0), 10)
    assert statics.due() == (0, 0, 0), "both have room for each other now"


def test_the_shipped_blueprint_is_one_that_rerun_reads():
    from rerun.chunk import RrdReader

    path = Path(__file__).parents[2] / "config" / "rerun.rbl"
    (stored,) = RrdReader(path).blueprints()
    assert stored.application_id == "worldsystem"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_file_is_whole_and_holds_everything(tmp_path):
    path = tmp_path / "world.rrd"
    sink = RerunSink(ViewerConfig(rerun_serve=False, rerun_file=str(path)))
    sink.start()
    feed(sink)
    sink.stop()
    check = [sys.executable, "-m", "rerun", "rrd"]
    subprocess.run([*check, "verify", path], check=True, timeout=60, capture_output=True)
    printed = subprocess.run(
        [*check, "print", path], check=True, timeout=60, capture_output=True, text=True
    ).stdout
    for entity in ("world/mesh/0_0_0", "world/camera/picture", "world/path", "world/objects"):
        assert entity in printed


def test_a_part_of_the_surface_that_changes_again_and_again_is_logged_once_a_second(tmp_path):
    path = tmp_path / "run.rrd"
    sink = RerunSink(ViewerConfig(rerun=True, rerun_serve=False, rerun_file=str(path)))
    sink.start()
    blocks = list(next(iter(growing_ground())).blocks[:1])
    begun_s = time.monotonic()
    for n in range(40):
        sink.pose(pose_event(n, n / 40))
        sink.mesh(delta(blocks, n))
        time.sleep(0.02)
    sink.stop()
    took_s = time.monotonic() - begun_s  # it logs until then
    rows = rows_of(path)
    mesh = [count for entity, count in rows.items() if entity.startswith("/world/mesh/")]
    assert len(mesh) == 1
    assert 1 <= mesh[0] <= 2 + took_s / 1.0, "at once, each second, and at the end"
    assert rows["/world/camera"] == 40, "nothing else waits"


def test_a_server_that_dies_holds_nobody_up():
    config = ViewerConfig(rerun_port=free_port(), rerun_web_port=free_port())
    sink = RerunSink(config)
    sink.start()
    deadline = time.monotonic() + 30
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", config.rerun_web_port)) == 0:
                break
        assert time.monotonic() < deadline, "Rerun's web viewer did not come up"
        time.sleep(0.1)
    feed(sink)
    sink._server.process.kill()
    begun = time.monotonic()
    for n in range(200):
        sink.pose(pose_event(n, n / 200))
    assert time.monotonic() - begun < 1.0
    begun = time.monotonic()
    sink.stop()
    assert time.monotonic() - begun < 20


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingDependency, match="pip install rerun-sdk"):
        RerunSink(ViewerConfig()).start()


class MeshType:
    """Stands for `rerun.Mesh3D`; cleared when it was made of nothing."""

    def __init__(self, **columns: object) -> None:
        self.cleared = not columns

    @classmethod
    def from_fields(cls, *, clear_unset: bool) -> MeshType:
        assert clear_unset
        return cls()


@pytest.mark.parametrize(
    ("corner", "face", "cleared", "said"),
    [
        (0.0, 2, False, ""),
        (np.nan, 2, True, "not finite"),
        (0.0, -1, True, "vertices that it lacks"),
    ],
)
def test_a_chunk_that_is_no_mesh_is_cleared_in_rerun(caplog, corner, face, cleared, said):
    logged = []
    stream = SimpleNamespace(log=lambda path, shown, static: logged.append((path, shown)))
    entities = RerunEntities(SimpleNamespace(Mesh3D=MeshType), stream, 80, server_bytes=2**20)
    vertices = np.array([[corner, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    colours, faces = np.zeros((3, 3), np.uint8), np.array([[0, 1, face]], np.int32)
    entities.chunk((0, 0, 0), Mesh(vertices=vertices, colours=colours, faces=faces))
    ((path, shown),) = logged
    assert path == "world/mesh/0_0_0"
    assert shown.cleared is cleared
    assert said in caplog.text


def test_a_reset_takes_the_path_out_of_the_log_before_the_new_map_is_tracked():
    import rerun

    logged: list = []
    stream = SimpleNamespace(
        log=lambda path, shown, static=False: logged.append((path, type(shown))),
        set_time=lambda *_, **__: None,
        disable_timeline=lambda _: None,
    )
    sink = RerunSink(ViewerConfig(rerun_serve=False))
    sink._entities = RerunEntities(rerun, stream, 80, 2**20)
    sink.keyframe(keyframe(4, 0.0))
    for n in range(3):
        sink.pose(pose_event(n, n / 10, keyframe_id=4))
    log_all(sink)
    assert ("world/path", rerun.LineStrips3D) in logged
    logged.clear()
    sink.removed(RemovedKeyframes((4,)))
    log_all(sink)
    assert logged == [("world/path", rerun.Clear)]
