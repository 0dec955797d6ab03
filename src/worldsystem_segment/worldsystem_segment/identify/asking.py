# SPDX-License-Identifier: Apache-2.0
"""Which objects to ask about: those named by a call, and, if wanted, each new one by itself."""

from __future__ import annotations

import os
from collections.abc import Callable

from worldsystem_core.objects import MapObjects, ObjectIdentity
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.identify.client import Service
from worldsystem_segment.identify.identifier import Identifier, Inquiry
from worldsystem_segment.objects.track_ids import IdChanges
from worldsystem_segment.segmenter import Segmenter

KEY_VARIABLE = "WORLDSYSTEM_IDENTIFY_KEY"
OFF = "identifying is off; set segmenter.identify_url to a vision service of yours"
SIGHTINGS = 5  # before an object is asked about by itself


class Asking:
    """Sends enhanced crops to the configured service; does nothing while none is configured."""

    def __init__(
        self,
        config: SegmentConfig,
        segmenter: Segmenter,
        on_identity: Callable[[ObjectIdentity], None],
    ) -> None:
        self._segmenter = segmenter
        self._by_itself = config.identify_by_itself
        self._again_at: dict[int, int] = {}  # sightings by which to ask again, were there no answer
        self._identifier = None if not config.identify_url else _identifier(config, on_identity)

    def ask(self, object_id: int, question: str = "", *, again: bool = False) -> tuple[bool, str]:
        """Queue a question about one object; whether that worked, and what to expect."""
        if self._identifier is None:
            return False, OFF
        crop = self._segmenter.enhanced(object_id)
        if crop is None:
            return False, f"object {object_id} has no picture: unknown, or never seen well"
        inquiry = Inquiry(object_id, crop.label, crop.data, question)
        known = "" if again else self.kept(object_id)
        problem = self._identifier.submit(inquiry, again=again, known=known)
        return not problem, problem or "the answer comes on segment/identities"

    def kept(self, object_id: int) -> str:
        """The answer kept for an object; empty without one."""
        if self._identifier is None:
            return ""
        return self._identifier.answer_of(object_id) or self._segmenter.identity_of(object_id)

    def look_at(self, objects: MapObjects) -> None:
        """Ask about what has newly been seen often enough, if that is wanted; what finds no room
        waits for a later keyframe, what got no answer until it was seen twice as often."""
        if self._identifier is None or not self._by_itself:
            return
        for thing in objects.objects:
            due = thing.sightings >= self._again_at.get(thing.id, SIGHTINGS)
            if not due or thing.identity or self.kept(thing.id):
                continue
            if self._identifier.refuses(thing.id):
                continue
            if self.ask(thing.id)[0]:
                self._again_at[thing.id] = 2 * thing.sightings

    def follow(self, changes: IdChanges) -> None:
        """Let answers go along with their objects; of two that were one, the kept one's own."""
        for object_id in changes.given_again:
            self._again_at.pop(object_id, None)
        for kept_id, gone_id in changes.joined:
            if gone_id in self._again_at:
                again_at = self._again_at.pop(gone_id)
                self._again_at[kept_id] = max(again_at, self._again_at.get(kept_id, 0))
        if self._identifier is not None:
            self._identifier.follow(changes)
            for kept_id, _ in changes.joined:  # an answer on its way bears the id that is gone
                answer = self._identifier.answer_of(kept_id)
                if answer and not self._segmenter.identity_of(kept_id):
                    self._segmenter.identify(kept_id, answer)

    def forget(self) -> None:
        """The ids are those of other objects from now on."""
        self._again_at.clear()
        if self._identifier is not None:
            self._identifier.forget()

    def close(self) -> None:
        """End the thread that asks."""
        if self._identifier is not None:
            self._identifier.close()


def _identifier(config: SegmentConfig, on_identity: Callable[[ObjectIdentity], None]) -> Identifier:
    service = Service(
        url=config.identify_url,
        style=config.identify_style,
        model=config.identify_model,
        key=os.environ.get(KEY_VARIABLE, ""),
        question=config.identify_question,
        timeout_s=config.identify_timeout_s,
    )
    return Identifier(
        service,
        on_identity,
        per_minute=config.identify_per_minute,
        attempts=config.identify_attempts,
    )
