# SPDX-License-Identifier: Apache-2.0
"""Keyframes in; tracks and the map's objects out; prompts, queries and files by service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from std_srvs.srv import Trigger
from worldsystem_msgs.srv import Identify, LoadMap, QueryObjects, SaveMap, SetPrompt

from worldsystem_core.errors import MapError, PromptError
from worldsystem_core.handoff import Handoff
from worldsystem_core.keyframe_inbox import (
    Correction,
    Told,
    ToldAgain,
    joined,
)
from worldsystem_core.objects import ObjectIdentity, ShownTracks
from worldsystem_core.priority import paced
from worldsystem_core.reconstruction import (
    Keyframe,
    NewKeyframe,
    RemovedKeyframes,
    ScaleState,
    Successor,
)
from worldsystem_core.returning_keyframes import ReturningKeyframes
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.objects import object_message
from worldsystem_core.ros.container import run_node
from worldsystem_core.ros.patient_call import PatientCall, log_trigger
from worldsystem_core.ros.stage_node import StageNode
from worldsystem_core.sparing import Sparing
from worldsystem_core.told_keyframes import ToldKeyframes
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.identify.asking import Asking
from worldsystem_segment.objects.object_file import NAME
from worldsystem_segment.objects.saver import ObjectSaver
from worldsystem_segment.segmenter import Segmenter

_IDENTITIES_WAITING = 64
_IDENTITY_PERIOD_S = 0.2
_ASK_PERIOD_S = 1.0
_IDS_UNSAVED = 256
"""So many new objects the process before may have told of after it saved the last time."""
_SAVING_SHARE = 0.1
"""To save the objects of a large map takes seconds: live, this share of a processor at most."""
OBJECTS_PERIOD_S, OBJECTS_AT_LEAST_S = 0.5, 4.0
OBJECTS_SHARE = 0.04
"""Live, the objects of the map are told so often that to list them takes this share of a processor:
of many objects it costs several times what a keyframe does, and other stages wait meanwhile."""


class SegmenterNode(StageNode):
    """Segments each keyframe and keeps the objects of the map."""

    niceness = 10

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("segmenter", SegmentConfig, **kwargs)
        self._segmenter = Segmenter(self.config)
        self._identities: Handoff[ObjectIdentity] = Handoff(_IDENTITIES_WAITING)
        self._asking = Asking(self.config, self._segmenter, self._identities.put)
        self._tracks_out = self.advertise(topics.TRACKS)
        self._labels_out = self.advertise(topics.LABELS)
        self._overlay_out = self.advertise(topics.OVERLAY)
        self._crops_out = self.advertise(topics.CROPS)
        self._objects_out = self.advertise(topics.OBJECTS)
        self._markers_out = self.advertise(topics.MARKERS)
        self._identities_out = self.advertise(topics.IDENTITIES)
        self._newest_ns: int | None = None
        self._world = ScaleState.SCENE
        self._loaded_ns: int | None = None  # when what was told of maps that were loaded was seen
        self._told = ToldKeyframes()
        self._keyframes_before = PatientCall(self, Trigger, "slam3r/tell_again", log_trigger)
        self._lacks_a_correction = self.config.restore
        self._telling = Sparing(
            OBJECTS_SHARE,
            least_s=OBJECTS_PERIOD_S,
            most_s=OBJECTS_AT_LEAST_S,
            spent=time.thread_time,
        )
        self._saving = Sparing(_SAVING_SHARE, spent=time.thread_time)
        self._saver = ObjectSaver(Path(self.config.map))
        self._go_on_in_map()
        self._returning = ReturningKeyframes(self._told.ids if self.config.restore else ())
        self._inbox = self.listen_to_keyframes(self._on_keyframe, self._told, self._on_missed)
        if self.config.backend != "geometric" and self.config.every_picture:
            self.listen(topics.IMAGE, self._segmenter.look)
        self.create_service(SetPrompt, "segment/set_prompt", self._on_prompt)
        self.create_service(QueryObjects, "segment/query", self._on_query)
        self.create_service(Identify, "segment/identify", self._on_identify)
        self.create_service(SaveMap, "segment/save_objects", self._on_save)
        self.create_service(LoadMap, "segment/load_objects", self._on_load)
        self.create_timer(_IDENTITY_PERIOD_S, self._tell_identities)
        self.create_timer(_ASK_PERIOD_S, self._ask_for_missed)
        self.create_timer(OBJECTS_PERIOD_S, self._tell_due_objects)
        if self.config.map and self.config.map_every_s:
            self.create_timer(self.config.map_every_s, self._keep_due_map)

    def _go_on_in_map(self) -> None:
        if self.config.map and (Path(self.config.map) / NAME).exists():
            count = self._segmenter.load(Path(self.config.map), self._told)
            if self.config.restore:
                self._segmenter.skip_ids(_IDS_UNSAVED)
            self.get_logger().info(f"{count} objects from {self.config.map}")
            self._tell_objects()

    def _on_missed(self, event: Told) -> None:
        """From the publisher's thread: a keyframe that is told again is no news, whatever became of
        it."""
        if isinstance(event, NewKeyframe):
            self._told.note(event)
        else:
            self._lacks_a_correction = True

    def _on_keyframe(self, event: Told) -> None:
        no_news: Told | None = event
        if isinstance(event, NewKeyframe) and self._inbox.is_news(event):
            self._segment(event.keyframe)
            self._told.note(event)
            self._returning.told_again((event.keyframe.id,))
            no_news = None
        self.between_steps()
        self._let_go_late()
        self._correct(self._inbox.take_corrections(no_news))
        self._saving.wanted = self._telling.wanted = True
        self.between_steps()
        self._tell_due_objects()

    def _correct(self, corrections: Sequence[Correction]) -> None:
        """Follow corrections at once: each one by one would wait for its turn, and is told anew."""
        was_reset = False
        for event in joined(corrections):
            self.between_steps()
            self._returning.heard(event)
            if isinstance(event, RemovedKeyframes):
                self._segmenter.remove(event.ids, event.successors)
                was_reset = self._segmenter.is_empty
            elif isinstance(event, ToldAgain):
                self._lacks_a_correction |= self._told.lacks(event.world_from_cam)
                self._returning.told_again(event.world_from_cam)
                self._segmenter.told_again(event.world_from_cam)
                self._segmenter.move(self._told.moved(event.world_from_cam))
            else:
                self._segmenter.move(event.world_from_cam, event.point_scale, event.scale)
            self._told.note(event)
        if was_reset:  # at once: who follows a killed one would go on in the map of before
            self._asking.forget()
            self._saving.wanted = True
            self._keep_map()

    def _let_go_late(self) -> None:
        """Live video goes on: old keyframes make way for new ones; corrections, and what is told
        again and so costs nothing, never do."""
        if paced():
            return
        for event in self._inbox.take_late(self.config.max_wait_s, self._inbox.is_news):
            self.ledger.drop_untaken("superseded")
            self._told.note(event)

    def _segment(self, keyframe: Keyframe) -> None:
        self.ledger.take(keyframe.frame_id)
        tracks = self._segmenter.feed(keyframe)
        self.between_steps()
        self._asking.follow(self._segmenter.id_changes)
        self._newest_ns = keyframe.stamp_ns
        self._tracks_out.publish(tracks)
        self._labels_out.publish(tracks)
        self._overlay_out.publish(ShownTracks(rgb=keyframe.rgb, tracks=tracks))
        for crop in self._segmenter.crops:
            self._crops_out.publish(crop)
        self.measure_latency(keyframe.stamp_ns)
        self.ledger.use(keyframe.frame_id)

    def _tell_due_objects(self) -> None:
        if self._telling.is_due or (self._telling.wanted and paced()):
            self._tell_objects()

    def _tell_objects(self) -> None:
        with self._telling.work():
            self._publish_objects()

    def _publish_objects(self) -> None:
        objects = self._segmenter.objects(self._newest_ns or 0)
        if self._newest_ns is None:  # of a map that was loaded
            seen_ns = [thing.last_seen_ns for thing in objects.objects]
            if not seen_ns and self._loaded_ns is None:
                return
            self._loaded_ns = max(seen_ns, default=self._loaded_ns or 0)
            objects = replace(objects, stamp_ns=self._loaded_ns)
        self._world = objects.scale
        self._objects_out.publish(objects)
        self._markers_out.publish(objects)
        self._asking.look_at(objects)

    def _ask_for_missed(self) -> None:
        if self._lacks_a_correction:
            self._lacks_a_correction = False
            self._keyframes_before.ask(Trigger.Request())
        if not len(self._inbox):
            self._let_others_stand_in(self._returning.take_replaced())
            self._settle()

    def _settle(self) -> None:
        """Where no keyframe follows a correction, as after the last one."""
        if not paced() and self._segmenter.settle():
            self._asking.follow(self._segmenter.id_changes)
            self._saving.wanted = self._telling.wanted = True

    def _let_others_stand_in(self, ids: tuple[int, ...]) -> None:
        """Keyframes of before that were not told again were replaced while this stage was away:
        what was seen in them goes along with the nearest one."""
        heirs = self._told.nearest(ids)
        if not heirs:
            return
        poses = self._told.poses(heirs.values())
        successors = {key: Successor(heir, poses[heir]) for key, heir in heirs.items()}
        self._segmenter.remove(tuple(heirs), successors)
        self._told.note(RemovedKeyframes(tuple(heirs)))
        self._saving.wanted = self._telling.wanted = True

    def _tell_identities(self, *, of_before: bool = False) -> None:
        """What was said; that of objects `of_before` a load is told and names none of now."""
        while (said := self._identities.get(timeout_s=0.0)) is not None:
            if said.answer and not of_before:
                self._segmenter.identify(said.id, said.answer)
                self._telling.wanted = True
            self._identities_out.publish(replace(said, scale=self._world))

    def facts(self) -> dict[str, object]:
        return {**self._segmenter.counters(), "prompt": self._segmenter.prompt}

    def problem(self) -> str:
        if self._segmenter.problem:
            return self._segmenter.problem
        failure = self._saver.failure
        return f"objects were not saved: {failure}" if failure else ""

    def _on_prompt(
        self, request: SetPrompt.Request, response: SetPrompt.Response
    ) -> SetPrompt.Response:
        try:
            result = self._segmenter.set_prompt(request.text, list(request.thresholds))
        except PromptError as error:
            response.message = str(error)
            return response
        response.understood = list(result.understood)
        response.refused = list(result.refused)
        response.message = result.message
        response.success = not result.refused
        response.thresholds = [phrase.threshold for phrase in result.phrases]
        return response

    def _on_query(
        self, request: QueryObjects.Request, response: QueryObjects.Response
    ) -> QueryObjects.Response:
        near = np.array([request.near.x, request.near.y, request.near.z])
        place = near if request.use_near else None
        answer = self._segmenter.query(request.text, place, request.limit)
        response.success = bool(answer.found)
        response.message = answer.message
        response.objects = [object_message(found.thing) for found in answer.found]
        response.scores = [found.score for found in answer.found]
        distances = [found.distance for found in answer.found]
        response.distances = [] if np.isnan(distances).any() else distances
        response.scale_state = self._segmenter.objects(0).scale.value
        return response

    def _on_identify(
        self, request: Identify.Request, response: Identify.Response
    ) -> Identify.Response:
        response.answer = "" if request.again else self._asking.kept(request.id)
        response.success, response.message = self._asking.ask(request.id, again=request.again)
        return response

    def _on_save(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        def save(folder: Path) -> int:
            self._let_write(folder)
            return self._segmenter.save(folder, self._told)

        return self._answered(response, save, "saved", request.path)

    def _on_load(self, request: LoadMap.Request, response: LoadMap.Response) -> LoadMap.Response:
        def load(folder: Path) -> int:
            self._let_write(folder)
            count = self._segmenter.load(folder, self._told)
            self._asking.forget()
            self._tell_identities(of_before=True)  # came while it was loaded
            self._saving.wanted = True
            return count

        self._tell_identities()  # of the objects until now
        answer = self._answered(response, load, "loaded", request.path)
        self._tell_objects()
        return answer

    def _answered(self, response: Any, act: Any, done: str, path: str) -> Any:
        folder = path or self.config.map_folder or self.config.map
        try:
            if not folder:
                raise MapError("no folder is named, and segmenter.map_folder is empty")
            response.message = f"{done} {act(Path(folder))} objects ({folder})"
            response.success = True
        except MapError as error:
            response.message, response.success = str(error), False
        return response

    def _let_write(self, folder: Path) -> None:
        """What is on its way into `folder` is there first; for others nobody waits."""
        if folder.resolve() == Path(self.config.map).resolve() and not self._saver.settle():
            raise MapError("the objects are still being saved: is the disk full, or broken?")

    def _keep_due_map(self) -> None:
        self._saving.wanted |= bool(self._saver.failure)
        if self._saving.is_due:
            self._save_soon()

    def _keep_map(self) -> None:
        """Also where it is not due, and written by now."""
        self._saving.wanted |= bool(self._saver.failure)
        if self.config.map and self._saving.wanted:
            self._save_soon()
        self._saver.settle()

    def _save_soon(self) -> None:
        with self._saving.work():
            packed = self._segmenter.packed(self._told)
        self._saver.save(packed)

    def input_ended(self) -> None:
        if self._segmenter.settle() or self._telling.wanted:
            self._tell_objects()

    def close(self) -> None:
        self._keep_map()
        self._saver.close()
        self._asking.close()
        self._segmenter.close()
        super().close()


def main() -> None:
    run_node(SegmenterNode)
