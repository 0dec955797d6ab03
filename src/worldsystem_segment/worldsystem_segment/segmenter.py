# SPDX-License-Identifier: Apache-2.0
"""The stage without ROS: keyframes in, tracks per keyframe and objects of the map out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from worldsystem_core.errors import PromptError
from worldsystem_core.frames import Frame
from worldsystem_core.objects import MapObjects, ObjectCrop, TrackFrame
from worldsystem_core.reconstruction import Keyframe, ScaleState, Successor
from worldsystem_core.told_keyframes import ToldKeyframes
from worldsystem_segment.backend import create_backend
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.crops.pictures import ObjectPictures
from worldsystem_segment.objects.object_file import load_objects, pack_objects, save_objects
from worldsystem_segment.objects.track_ids import IdChanges
from worldsystem_segment.prompt import Phrase, PromptAnswer
from worldsystem_segment.query import Answer, query

MAX_IDENTITIES = 1000


class Segmenter:
    """Finds and names the objects of keyframes; ids live in the map and survive leaving the view.

    Not thread-safe: one thread feeds, moves, removes and asks.
    """

    def __init__(self, config: SegmentConfig | None = None) -> None:
        """Build the back-end; raises BackendError for an unknown one."""
        self.config = config or SegmentConfig()
        self._backend = create_backend(self.config.backend, self.config)
        self._pictures = ObjectPictures(self.config)
        self._identities: OrderedDict[int, str] = OrderedDict()
        self._id_changes = IdChanges()
        self._newest: tuple[int, Float64[np.ndarray, "3"]] | None = None  # keyframe, and its place
        self._crops: list[ObjectCrop] = []
        self.phrases: tuple[Phrase, ...] = ()
        first = self.set_prompt(self.config.prompt)
        self._refused_at_first = first.message if first.refused else ""

    def feed(self, keyframe: Keyframe) -> TrackFrame:
        """Track the objects of `keyframe`; a keyframe without usable points has no tracks."""
        self._newest = keyframe.id, keyframe.world_from_cam[:3, 3].copy()
        frame = self._backend.feed(keyframe, self.phrases)
        self._follow_ids()
        self._crops = self._pictures.add(keyframe, frame)
        return frame

    def look(self, frame: Frame) -> bool:
        """Follow objects through a picture between keyframes; False where that is not done."""
        follow = getattr(self._backend, "look", None)
        if follow is None or not self.config.every_picture:
            return False
        follow(frame.id, frame.rgb, self.phrases)
        return True

    @property
    def id_changes(self) -> IdChanges:
        """What the last call of `feed` or `settle` changed."""
        return self._id_changes

    @property
    def is_empty(self) -> bool:
        """Whether nothing hangs on any keyframe, as before the first one and after a reset."""
        return not self._backend.map.tracker.knows_any

    @property
    def crops(self) -> list[ObjectCrop]:
        """Of the last keyframe, the crops that are their object's best until now."""
        return self._crops

    def move(
        self,
        world_from_cam: dict[int, Float64[np.ndarray, "4 4"]],
        point_scale: dict[int, float] | None = None,
        scale: ScaleState | None = None,
    ) -> None:
        """Follow corrected poses (`MovedKeyframes`); unknown ids are ignored.

        Each voxel of a track hangs on the keyframe that saw it first, moves rigidly with it and
        grows with its points.
        """
        self._backend.move(world_from_cam, point_scale, scale)
        if self._newest is not None and self._newest[0] in world_from_cam:
            keyframe_id = self._newest[0]
            self._newest = keyframe_id, world_from_cam[keyframe_id][:3, 3].copy()

    def settle(self) -> bool:
        """Join objects that corrections have laid on each other, which the next keyframe would do;
        whether there were any."""
        settled = self._backend.map.tracker.settle()
        self._follow_ids()
        return settled

    def told_again(self, ids: Iterable[int]) -> None:
        """Keyframes that were fed came again, their points as large as they are by now; the sizes
        that `move` is told from now on are relative to these."""
        for keyframe_id in ids:
            self._backend.map.told_again(keyframe_id)

    def remove(self, ids: Sequence[int], successors: Mapping[int, Successor] | None = None) -> None:
        """Forget what hangs on these keyframes (`RemovedKeyframes`), or hang it on their
        successors; empty tracks disappear."""
        self._backend.remove(ids, successors or {})
        if self._newest is not None and self._newest[0] in ids:
            heir = (successors or {}).get(self._newest[0])
            self._newest = None if heir is None else (heir.id, self._newest[1])
        if self.is_empty:
            self._forget_pictures()

    def objects(self, stamp_ns: int) -> MapObjects:
        """Every confirmed object that the prompt selects, with its oriented box [world units]."""
        return self._identified(self._backend.objects(stamp_ns, self.phrases))

    def query(
        self, text: str, near: Float64[np.ndarray, "3"] | None = None, limit: int = 0
    ) -> Answer:
        """The objects of the whole map that `text` asks for, whatever the prompt.

        Distances are from `near`, or from the newest keyframe's camera [world units].
        """
        newest = None if self._newest is None else self._newest[1]
        place = newest if near is None else near
        everything = self._identified(self._backend.objects(0, ()))
        return query(everything.objects, text, place, limit)

    def enhanced(self, object_id: int) -> ObjectCrop | None:
        """All crops of an object fused into one picture of twice the size; None without any."""
        track = self._backend.map.tracker.tracks.get(object_id)
        named = self._backend.name(track, ()) if track else None
        return self._pictures.enhanced(object_id, named.label if named else "")

    def identify(self, object_id: int, identity: str) -> None:
        """Remember what an identify service said of an object; of too many, what was said of those
        that are gone makes way first."""
        self._identities[object_id] = identity
        there = self._backend.map.tracker.tracks
        while len(self._identities) > MAX_IDENTITIES:
            gone = (number for number in self._identities if number not in there)
            del self._identities[next(gone, next(iter(self._identities)))]

    def identity_of(self, object_id: int) -> str:
        """What an identify service said of an object; empty where none did."""
        return self._identities.get(object_id, "")

    def set_prompt(self, text: str, thresholds: Sequence[float] = ()) -> PromptAnswer:
        """Report only what the understood phrases of `text` ask for; an empty text reports all.

        When every phrase is refused the prompt before it stays in force. `thresholds` are the least
        scores of the phrases, instead of those in the text (`red box @0.4`); a `PromptError` when
        there are not as many as phrases, or when one lies outside [0, 1].
        """
        answer = self._backend.understand(text)
        if thresholds:
            answer = _with(answer, thresholds)
        self._refused_at_first = ""
        if answer.phrases or not answer.refused:
            self.phrases = answer.phrases
        return answer

    @property
    def prompt(self) -> str:
        """The prompt in force, as `set_prompt` would take it; empty when all is reported."""
        return ", ".join(f"{phrase.text} @{phrase.threshold:.3f}" for phrase in self.phrases)

    def save(self, folder: Path, told: ToldKeyframes | None = None) -> int:
        """Save the objects beside a map in `folder`, and which keyframes were `told`; returns how
        many objects, raises `MapError`."""
        return save_objects(self._backend.map, folder, told or ToldKeyframes())

    def packed(self, told: ToldKeyframes) -> bytes:
        """What `save` writes."""
        return pack_objects(self._backend.map, told)[0]

    def load(self, folder: Path, told: ToldKeyframes | None = None) -> int:
        """Go on with the objects saved in `folder`, `told` what was told then; returns how many,
        raises `MapError`. Their ids are those of other things than before: what is known by them
        goes."""
        count = load_objects(self._backend.map, folder, told or ToldKeyframes())
        self._backend.ids_changed()
        self._backend.map.tracker.take_joined()
        self._forget_pictures()
        self._identities.clear()
        self._newest = None
        return count

    def skip_ids(self, count: int) -> None:
        """Give none of the next `count` ids to new objects."""
        self._backend.map.tracker.skip_ids(count)

    def counters(self) -> dict[str, int]:
        """What is held, and what was let go since the start, by reason."""
        forgotten = {"crops_forgotten": self._pictures.history.forgotten}
        return self._backend.counters() | forgotten

    @property
    def problem(self) -> str:
        """What cannot be done, in words; empty while all is well.

        That is also what of the prompt in the settings is not understood, until another is set.
        """
        return "; ".join(filter(None, (self._refused_at_first, self._backend.problem)))

    def close(self) -> None:
        """End what runs by itself."""
        self._backend.close()

    def _forget_pictures(self) -> None:
        """They are of other objects than come from now on; what made way before stays counted."""
        forgotten = self._pictures.history.forgotten
        self._pictures, self._crops = ObjectPictures(self.config), []
        self._pictures.history.forgotten = forgotten

    def _follow_ids(self) -> None:
        """Let what is known by an id go along with its thing."""
        tracker = self._backend.map.tracker
        changes = IdChanges(tuple(tracker.take_given_again()), tuple(tracker.take_joined()))
        for object_id in changes.given_again:
            self._identities.pop(object_id, None)
        for kept_id, gone_id in changes.joined:
            if identity := self._identities.pop(gone_id, ""):
                self._identities.setdefault(kept_id, identity)
        self._pictures.follow(changes)
        self._id_changes = changes

    def _identified(self, objects: MapObjects) -> MapObjects:
        if not self._identities:
            return objects
        said = self._identities
        named = (replace(o, identity=said.get(o.id, "")) for o in objects.objects)
        return replace(objects, objects=tuple(named))


def _with(answer: PromptAnswer, thresholds: Sequence[float]) -> PromptAnswer:
    if len(thresholds) != len(answer.phrases):
        raise PromptError(
            f"{len(thresholds)} thresholds for {len(answer.phrases)} understood phrases "
            f"({', '.join(answer.understood)}); give one for each, or none"
        )
    if not all(0.0 <= threshold <= 1.0 for threshold in thresholds):
        raise PromptError(f"thresholds {list(thresholds)} must lie in [0, 1]")
    return answer.with_thresholds(thresholds)
