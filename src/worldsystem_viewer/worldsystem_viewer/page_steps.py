# SPDX-License-Identifier: Apache-2.0
"""Common steps in which pages follow poses, pictures and the like: each is found and framed once.

A page that has what the step before ended with is handed the newest step as it is. One that comes,
comes back or is slow is told what it lacks by itself (`World`), and then is in step again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from worldsystem_viewer.page_line import framed
from worldsystem_viewer.protocol import encode
from worldsystem_viewer.world import COUNTED, Cursor, World

_PERIOD_PER_PAGE_S = 0.005
METERED = ("objects", "tracks", "image")


@dataclass(frozen=True, eq=False)
class Step:
    """What is new since the step before, by name, and where one is who has it."""

    number: int
    messages: tuple[tuple[str, bytes], ...]
    reached: Cursor
    gone_keyframes: tuple[int, ...]
    _frames: dict[bool, bytes] = field(default_factory=dict)

    def frames(self, *, image: bool) -> bytes:
        """The messages as they are written to a page, with the picture or without."""
        if image not in self._frames:
            chosen = [data for name, data in self.messages if image or name != COUNTED]
            self._frames[image] = framed(chosen)
        return self._frames[image]


class StateSteps:
    """Makes a step when the first page asks, `hz` times a second at most, and less often for many
    pages, who are written to one by one; for one thread."""

    def __init__(self, world: World, hz: float) -> None:
        self._world = world
        self._hz = hz
        self._period_s = 1.0 / hz
        self._tick = -1
        self._cursor = Cursor()
        self._step = Step(0, (), self._cursor, ())

    def pause_s(self, now_s: float, pages: int) -> float:
        """Until all of so many pages ask again, together."""
        self._period_s = max(1.0 / self._hz, _PERIOD_PER_PAGE_S * pages)
        return (self._tick_at(now_s) + 1) * self._period_s - now_s

    def newest(self, now_s: float) -> Step:
        """The step of this moment."""
        if self._tick_at(now_s) != self._tick:
            self._tick = self._tick_at(now_s)
            self._step = self._next()
        return self._step

    def _tick_at(self, now_s: float) -> int:
        return int(now_s / self._period_s)

    def _next(self) -> Step:
        world, cursor, found = self._world, self._cursor, []
        cursor.skipped, gone = 0, ()
        if (keyframes := world.newer_keyframes(cursor)) is not None:
            found.append(("keyframes", encode(keyframes)))
            gone = tuple(keyframes.removed.tolist())
        slots = world.newer_named_slots(cursor)
        found += [(name, slot.encoded()) for name, slot in slots if name not in METERED]
        if (path := world.newer_path(cursor)) is not None:
            found.append(("path", encode(path)))
        found += [(name, slot.encoded()) for name, slot in slots if name in METERED]
        return Step(self._step.number + 1, tuple(found), cursor, gone)


def follow(cursor: Cursor, step: Step, *, image: bool) -> None:
    """A page that was where `step` begins now is where it ends; `image`: it got the picture."""
    reached = step.reached
    picture = cursor.slots.get(COUNTED)
    cursor.slots = dict(reached.slots)
    if image:
        cursor.skipped += reached.skipped
    elif picture is not None:
        cursor.slots[COUNTED] = picture
    else:
        cursor.slots.pop(COUNTED, None)
    cursor.path_epoch, cursor.path_length = reached.path_epoch, reached.path_length
    cursor.keyframes.change = reached.keyframes.change
    cursor.keyframes.told = reached.keyframes.told
    for keyframe_id in step.gone_keyframes:
        cursor.keyframes.clouds.pop(keyframe_id, None)
