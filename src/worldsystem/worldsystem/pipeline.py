# SPDX-License-Identifier: Apache-2.0
"""The whole system as a plain Python loop: no ROS, no threads of its own, no viewers.

Tests, benchmarks and examples use it; `worldsystem run --no-ros` is its command line.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from worldsystem.foreseen import check, check_truth
from worldsystem.graph import Choice, Parameters
from worldsystem.observer import Observer
from worldsystem.outputs import read_truth, write_outputs
from worldsystem.run_folder import in_its_folder
from worldsystem.sent import frames_sent
from worldsystem.simulator_process import SimulatorProcess
from worldsystem_core.config import Config, config_from
from worldsystem_core.ending_signals import ended_by_signals
from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.latency import LatencyHistogram, live_latency_s
from worldsystem_core.ledger import StageLedger, StageReport
from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_core.reconstruction import (
    Event,
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
)
from worldsystem_core.surface import MeshDelta
from worldsystem_core.telemetry import GpsFix, OdometrySample, PressureSample, Telemetry
from worldsystem_core.trajectory import Trajectory
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.source import Source, open_source
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.segmenter import Segmenter
from worldsystem_slam3r.backend import open_backend, refusal_of
from worldsystem_slam3r.config import Slam3rConfig

log = logging.getLogger(__name__)

C = TypeVar("C", bound=Config)

_LINK_GRACE_S = 1.0
_MOST_MEASURED = 6000
"""A minute of a hundred measurements a second; of more the newest count."""


@dataclass(frozen=True)
class Step:
    """What one frame caused."""

    events: list[Event]
    delta: MeshDelta | None
    tracks: TrackFrame | None
    objects: MapObjects | None


class Pipeline:
    """Reconstruction, mesh and segmentation, one frame at a time."""

    def __init__(
        self,
        reconstruction: Slam3rConfig | None = None,
        mesh: MeshConfig | None = None,
        segment: SegmentConfig | None = None,
    ) -> None:
        config = self.config = reconstruction or Slam3rConfig(synchronous=True)
        self.trajectory = Trajectory()
        self.mesher = Mesher(mesh or MeshConfig())
        self.segmenter = Segmenter(segment or SegmentConfig())
        self.observer = Observer()
        self.ledgers = {
            name: StageLedger(name) for name in ("ingest", "slam3r", "mesher", "segmenter")
        }
        self._latencies = {name: LatencyHistogram() for name in self.ledgers}
        self._begun_s = time.monotonic()
        opened = open_backend(config.backend, config)
        self._backend = opened.backend
        self.backend_name, self.backend_note = opened.name, opened.note
        self._ticked_s = 0.0
        self._frame_step = config.frame_step
        self._frames_seen = 0

    def feed(self, frame: Frame) -> Step:
        """Work one frame through all stages; with `frame_step` every so many."""
        self.segmenter.look(frame)  # networks follow objects through every picture
        self._frames_seen += 1
        if (self._frames_seen - 1) % self._frame_step:
            self.ledgers["slam3r"].drop_untaken("skipped")
            return Step([], None, None, None)
        self.ledgers["slam3r"].take(frame.id)
        step = self._work(self._backend.feed(frame))
        self.ledgers["slam3r"].use(frame.id)
        self._tick()
        return step

    def observe(self, sample: Telemetry) -> None:
        """Take a measurement from beside the video: GPS and others give the map its metres."""
        observe = getattr(self._backend, "observe", None)
        if observe is not None:
            observe(sample)

    def finish(self) -> Step:
        """The video has ended: work off what the back-end held back."""
        step = self._work(self._backend.finish(), is_last=True)
        for ledger in self.ledgers.values():
            ledger.drop_in_flight("shutdown")
        self.observer.path(self.trajectory.poses())
        self._report()
        return step

    def _work(self, events: list[Event], *, is_last: bool = False) -> Step:
        tracks = objects = None
        for event in events:
            self.trajectory.add(event)
            if isinstance(event, Pose):
                self._measure("slam3r", event.stamp_ns)
            elif isinstance(event, NewKeyframe):
                tracks = self._take_keyframe(event.keyframe)
            elif isinstance(event, MovedKeyframes):
                self.mesher.move(event.world_from_cam, event.point_scale, event.scale)
                self.segmenter.move(event.world_from_cam, event.point_scale, event.scale)
            elif isinstance(event, RemovedKeyframes):
                self.mesher.remove(event.ids, event.heirs)
                self.segmenter.remove(event.ids, event.successors)
        if is_last:
            self.segmenter.settle()
        extract = self.mesher.settle if is_last else self.mesher.extract
        delta = extract(time.time_ns())
        if delta is not None:
            self.observer.mesh(delta)
            self._measure("mesher", delta.capture_ns)
            objects = self.segmenter.objects(delta.capture_ns)
        return Step(events, delta, tracks, objects)

    def _take_keyframe(self, keyframe: Keyframe) -> TrackFrame:
        for name in ("mesher", "segmenter"):
            self.ledgers[name].take(keyframe.frame_id)
        self.observer.keyframe(keyframe.id)
        if self.mesher.integrate(keyframe):
            self.ledgers["mesher"].use(keyframe.frame_id)
        else:
            self.ledgers["mesher"].drop(keyframe.frame_id, "no_usable_points")
        tracks = self.segmenter.feed(keyframe)
        self.ledgers["segmenter"].use(keyframe.frame_id)
        return tracks

    def _measure(self, stage: str, capture_ns: int) -> None:
        age_s = live_latency_s(capture_ns, self._begun_s)
        if age_s is not None:
            self._latencies[stage].add(age_s)

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked_s >= 1.0:
            self._ticked_s = now
            self._report()
            self.observer.tick()

    def _report(self) -> None:
        for name, ledger in self.ledgers.items():
            self.observer.stage(
                StageReport(
                    stamp_ns=time.time_ns(),
                    ledger=ledger.state(),
                    violations=ledger.violations,
                    latency_counts=tuple(self._latencies[name].counts()),
                )
            )


class _PipelineSink:
    """Feeds a pipeline from the first stream of a source, in the thread that decodes it.

    Pictures of further streams, which a server may carry, end as `other_stream`. Measurements wait
    for the next picture: a server's network thread must not wait until one is worked through.
    """

    def __init__(self, pipeline: Pipeline, stream: str) -> None:
        self._pipeline = pipeline
        self._stream = stream
        self._ledger = pipeline.ledgers["ingest"]
        self._last: tuple[int, int] | None = None
        self._said: set[str] = set()
        self._waiting: deque[Telemetry] = deque(maxlen=_MOST_MEASURED)

    def frame(self, frame: Frame) -> None:
        if frame.stream != self._stream:
            self._ledger.drop_untaken("other_stream")
            words = f"pictures of further streams are let go: --no-ros takes '{self._stream}' alone"
            self._say_once("other_stream", words)
            return
        self.observe_waiting()
        self._ledger.take(frame.id)
        refusal = refusal_of(frame, self._last, self._pipeline.config)
        if refusal is None:
            self._last = (frame.id, frame.stamp_ns)
            self._pipeline.feed(frame)
        else:  # it costs itself alone, as in the node
            self._pipeline.ledgers["slam3r"].drop_untaken(refusal.reason)
            self._say_once(refusal.reason, refusal.words)
        self._ledger.use(frame.id)

    def _say_once(self, what: str, words: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning("%s", words)

    def observe_waiting(self) -> None:
        """Let the pipeline have what was measured since the last picture."""
        while self._waiting:
            self._pipeline.observe(self._waiting.popleft())

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        self._ledger.drop_untaken(reason if stream == self._stream else "other_stream")

    def encoded(self, unit: EncodedFrame) -> None:
        """Not kept: this loop does not record."""

    def camera(self, camera: Camera, stream: str) -> None:
        """Not needed: each frame carries its camera."""

    def measured(self, sample: Telemetry, stream: str) -> None:
        if stream == self._stream and isinstance(sample, GpsFix | PressureSample | OdometrySample):
            self._waiting.append(sample)


def run_pipeline(choice: Choice, *, truth: str = "") -> Path:
    """Run `choice` without ROS and leave the same files, but no bag; return the run's folder.

    Ctrl-C and SIGTERM end the source; what was received is worked off and written. Raises
    `WorldSystemError` and leaves no folder where there is nothing to run.
    """
    check(choice)
    check_truth(choice, truth)
    reconstruction = {"backend": choice.backend, "synchronous": choice.offline}
    pipeline = Pipeline(
        _config(Slam3rConfig, reconstruction, choice.extra.get("slam3r")),
        _config(MeshConfig, {"device": choice.device}, choice.extra.get("mesher")),
        _config(SegmentConfig, {}, choice.extra.get("segmenter")),
    )
    choice, made_folder = in_its_folder(choice)
    try:
        _run(choice, pipeline, truth)
    except BaseException:
        if made_folder:
            with suppress(OSError):  # what was written stays
                choice.out.rmdir()
        raise
    return choice.out


def _run(choice: Choice, pipeline: Pipeline, truth: str) -> None:
    source = "server:" if choice.simulated else choice.source
    ingest = {"source": source, "realtime": choice.realtime}
    config = _config(IngestConfig, ingest, choice.extra.get("ingest"))
    stop = threading.Event()
    simulator: SimulatorProcess | None = None
    with ended_by_signals(stop.set):
        opened = open_source(config.source, config)
        if choice.simulated:
            simulator = SimulatorProcess(choice)
        sink = _PipelineSink(pipeline, config.stream)
        broken = _run_source(choice, opened, simulator, sink, stop)
        sink.observe_waiting()
        pipeline.finish()
        _write(choice, pipeline, truth, broken)
    if simulator is not None:  # what it sent before it failed is kept
        simulator.raise_failure()


def _write(choice: Choice, pipeline: Pipeline, truth: str, broken: str | None) -> None:
    place = truth or str(choice.truth_folder or "")
    known, problem = read_truth(place)
    run = pipeline.observer.record(
        choice.out,
        source=choice.source,
        backend=pipeline.backend_name,
        truth=known,
        frames_sent=frames_sent(place, choice.source),
        notes=tuple(note for note in (pipeline.backend_note, broken, problem) if note),
    )
    write_outputs(run)


def _run_source(
    choice: Choice,
    source: Source,
    simulator: SimulatorProcess | None,
    sink: _PipelineSink,
    stop: threading.Event,
) -> str | None:
    """Run the source to its end, the choice's time or `stop`; return where it broke off, if so."""
    limit_s = min(choice.duration_s, threading.TIMEOUT_MAX)
    timer = threading.Timer(limit_s, stop.set)
    timer.daemon = True
    if simulator is None:
        timer.start()
    else:
        threading.Thread(target=_stop_after, args=(simulator, stop), daemon=True).start()
    try:
        broken = source.run(sink, stop).broken
    finally:
        timer.cancel()
        if simulator is not None:
            simulator.stop()
    return broken


def _stop_after(simulator: SimulatorProcess, stop: threading.Event) -> None:
    while not simulator.ended:
        time.sleep(0.2)
    time.sleep(_LINK_GRACE_S)
    stop.set()


def _config(config_type: type[C], given: Parameters, extra: Parameters | None) -> C:
    return config_from(config_type, given | (extra or {}))
