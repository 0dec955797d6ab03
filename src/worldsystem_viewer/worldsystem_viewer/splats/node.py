# SPDX-License-Identifier: Apache-2.0
"""Keyframes in; chunks of splats out, and the world of splats as a file by service."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from std_srvs.srv import Trigger
from worldsystem_msgs.srv import SaveMap

from worldsystem_core.keyframe_inbox import (
    Correction,
    Told,
    ToldAgain,
    is_correction,
    joined,
)
from worldsystem_core.priority import paced
from worldsystem_core.reconstruction import (
    Keyframe,
    NewKeyframe,
    RemovedKeyframes,
    ScaleState,
    Successor,
)
from worldsystem_core.returning_keyframes import QUIET_S, ReturningKeyframes
from worldsystem_core.ros import topics
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.patient_call import PatientCall, log_trigger
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_core.splats.files import save_splats
from worldsystem_core.splats.world import SplatWorld
from worldsystem_core.splats.world_archive import WorldArchive
from worldsystem_core.told_keyframes import ToldKeyframes
from worldsystem_viewer.splats.config import SplatsConfig
from worldsystem_viewer.splats.frame_server import FrameServer
from worldsystem_viewer.splats.stream import SplatStream

log = logging.getLogger(__name__)

_PERIOD_S = 0.2
_MOVED_AT_ONCE = 32
"""Keyframes of a correction: where other stages are busy too, those of a whole map take seconds."""


class SplatsNode(StageNode):
    """Keeps the world of splats and streams what changes in it."""

    niceness = 10

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("splats", SplatsConfig, **kwargs)
        config = self.config
        self._world = self._empty_world()
        self._stream = SplatStream(self._world, mbps=config.mbps, renew_s=config.renew_s)
        self._frames = FrameServer(config) if config.frames else None
        self._scale = ScaleState.SCENE
        self._sizes: dict[int, float] = {}  # of keyframes since they were told
        self._told, self._returning = ToldKeyframes(), ReturningKeyframes()
        self._archive = self._opened_archive()
        self._lacks_a_correction = False
        self._begun_ns, self._missed_old_s = time.time_ns(), math.inf
        self._deltas_out = self.advertise(topics.SPLATS)
        if self._frames is not None:
            self._frames.start()
        if config.enabled:
            self._inbox = self.listen_to_keyframes(self._on_keyframe, self._told, self._on_missed)
        self._keyframes_before = PatientCall(self, Trigger, "slam3r/tell_again", log_trigger)
        if config.restore:
            self._keyframes_before.ask(Trigger.Request())
        self.create_service(SaveMap, "splats/save", self._on_save)
        self.create_service(Trigger, "splats/tell_again", self._on_tell_again)
        self.create_timer(_PERIOD_S, self._on_timer)

    def _empty_world(self) -> SplatWorld:
        config = self.config
        return SplatWorld(
            voxel=config.voxel, begun_voxel=config.begun_voxel, most_splats=config.most_splats
        )

    def _opened_archive(self) -> WorldArchive | None:
        """With the world of the process before, if it is to go on with it."""
        config = self.config
        if not config.archive_dir:
            return None
        archive = WorldArchive(Path(config.archive_dir), restore=config.restore)
        if not config.restore:
            return archive
        try:
            self._scale = archive.restore(self._world, self._told)
        except Exception:  # the edge: what was saved must not keep the stage from beginning anew
            log.exception("the splats of before cannot be used: they are made anew")
            archive.clear()
            self._world = self._empty_world()
            self._stream = SplatStream(self._world, mbps=config.mbps, renew_s=config.renew_s)
            self._told = ToldKeyframes()
        self._returning = ReturningKeyframes(self._told.ids)
        return archive

    def _on_missed(self, event: Told) -> None:
        """A keyframe for which there was no room adds nothing: later ones show the same, but not
        what those of before this process did, as of a loaded map. The stamps of a file are all of
        before."""
        self._lacks_a_correction |= is_correction(event)
        if paced() and not self.config.restore:
            return
        if isinstance(event, NewKeyframe) and event.keyframe.stamp_ns < self._begun_ns:
            self._missed_old_s = time.monotonic()

    def _on_keyframe(self, event: Told) -> None:
        if isinstance(event, NewKeyframe) and self._inbox.is_news(event):
            self._add(event.keyframe)
            self._told.note(event)
            self.between_steps()
            self._correct(self._inbox.take_corrections())
        else:
            self._correct(self._inbox.take_corrections(event))
        self.between_steps()
        self._publish()

    def _correct(self, corrections: Sequence[Correction]) -> None:
        for event in joined(corrections):
            self.between_steps()
            self._returning.heard(event)
            if isinstance(event, RemovedKeyframes):
                self._world.hang_on(event.successors)
                self._world.remove(event.wrong)
                for gone in event.ids:
                    self._sizes.pop(gone, None)
            elif isinstance(event, ToldAgain):
                self._lacks_a_correction |= self._told.lacks(event.world_from_cam)
                self._world.tell_again(self._told.poses(event.world_from_cam))
                self._move(self._told.moved(event.world_from_cam))
                self._note_told(event.world_from_cam)
            else:
                known = {
                    key: self._sizes[key] for key in event.world_from_cam if key in self._sizes
                }
                sizes = known | self._returning.sizes(event, self._scale)
                changes_unit = event.scale not in (None, self._scale)
                self._scale = event.scale or self._scale
                self._sizes |= sizes
                if changes_unit:  # parts of it would be far off in voxels of the other unit
                    self._world.move(event.world_from_cam, sizes)
                else:
                    self._move(event.world_from_cam, sizes)
            self._told.note(event)

    def _move(
        self,
        world_from_cam: Mapping[int, Float64[np.ndarray, "4 4"]],
        sizes: Mapping[int, float] | None = None,
    ) -> None:
        moved = iter(world_from_cam.items())
        while some := dict(islice(moved, _MOVED_AT_ONCE)):
            self._world.move(some, sizes)
            self.between_steps()

    def _note_told(self, ids: Iterable[int]) -> None:
        """Sizes of these keyframes count from now on."""
        self._returning.told_again(ids)
        for number in ids:
            self._sizes[number] = 1.0

    def _add(self, keyframe: Keyframe) -> None:
        self.ledger.take(keyframe.frame_id)
        self._scale = keyframe.scale
        if self._frames is not None:
            self._frames.put(keyframe)
        self._note_told((keyframe.id,))
        self._world.add(keyframe)
        self.measure_latency(keyframe.stamp_ns)
        self.ledger.use(keyframe.frame_id)

    def _on_timer(self) -> None:
        if self._lacks_a_correction or time.monotonic() - self._missed_old_s > QUIET_S:
            self._lacks_a_correction, self._missed_old_s = False, math.inf
            self._keyframes_before.ask(Trigger.Request())
        if self.config.enabled and not len(self._inbox):
            self._let_others_stand_in(self._returning.take_replaced())
        self._publish()
        if self._archive is not None:
            self._archive.save(self._world, self._told, self._scale, time.monotonic())

    def _let_others_stand_in(self, ids: tuple[int, ...]) -> None:
        """Keyframes of before that were not told again were replaced while this stage was away:
        what they gave goes along with the nearest one."""
        heirs = self._told.nearest(ids)
        poses = self._told.poses(heirs.values())
        successors = {
            key: Successor(heir, poses[heir], self._sizes.get(heir, 1.0))
            for key, heir in heirs.items()
        }
        if successors:
            self._correct([RemovedKeyframes(tuple(successors), successors)])

    def _publish(self, everything: bool = False) -> None:
        deltas = self._stream.take(
            time.monotonic(), time.time_ns(), self._scale, everything=everything
        )
        for delta in deltas:
            self._deltas_out.publish(delta)

    def _on_save(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        saved = save_splats(self._world.gaussians(), Path(request.path))
        response.success, response.message = saved
        return response

    def _on_tell_again(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._stream.tell_again()
        response.success = True
        response.message = f"{self._stream.waiting} chunks of splats are told again"
        return response

    def facts(self) -> dict[str, object]:
        world, stream = self._world, self._stream
        found: dict[str, object] = {
            "voxel": world.voxel,
            "begun_voxel": world.begun_voxel,
            "splats": len(world),
            "chunks": len(world.chunks),
            "memory_bytes": world.memory_bytes,
            "duplicates": world.duplicates,
            "contradicted": world.contradicted,
            "replaced": world.replaced,
            "thinned": world.thinned,
            "waiting_chunks": stream.waiting,
            "sent_bytes": stream.sent_bytes,
        }
        if self._frames is not None:
            found |= {"clients": self._frames.client_count, "skipped": self._frames.skipped}
        return found

    def input_ended(self) -> None:
        self._publish(everything=True)
        if self._frames is not None:
            self._frames.stop()


def main() -> None:
    run_node(SplatsNode)
