# SPDX-License-Identifier: Apache-2.0
"""One page: what it asks for, and what it is sent, at its own pace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.line_share import LineShare
from worldsystem_viewer.page_files import asked_from
from worldsystem_viewer.page_line import PageLine, framed
from worldsystem_viewer.page_mesh import (
    CodeFeed,
    MeshFeed,
    RawFeed,
    mesh_budget_mbps,
    mesh_form,
)
from worldsystem_viewer.page_rewind import Rewind
from worldsystem_viewer.page_steps import METERED, follow
from worldsystem_viewer.protocol import Hello, Message, TimelineUpdate, encode
from worldsystem_viewer.world import Cursor

if TYPE_CHECKING:
    from worldsystem_viewer.page_client import Shown

log = logging.getLogger(__name__)
_FIRST_WISH_TIMEOUT_S = 5.0
_MOST_ANSWERS = 16
_LONGEST_TEXT = 200
_TIMELINE_PERIOD_S = 1.0
_OF_THE_PAST = ("pose", "objects", "tracks", "image")
_LAYERS = frozenset({"points", "image"})


class PageTalk:
    """The conversation with one page; ends when the page goes, or takes nothing for 30 s."""

    def __init__(
        self,
        config: ViewerConfig,
        shown: Shown,
        socket: web.WebSocketResponse,
        cursor: Cursor,
        request: web.Request,
    ) -> None:
        self._config = config
        self._shown = shown
        self._socket = socket
        self._cursor = cursor
        self._request = request
        self._line = PageLine(socket, request)
        self._visible = asyncio.Event()
        self._visible.set()
        self._layers = frozenset({"image"})
        self._answers: deque[Message] = deque(maxlen=_MOST_ANSWERS)
        self._seek_ns: int | None = None
        self._rewind: Rewind | None = None
        self._timeline_due_s = 0.0
        self._points_wait = False  # pictures had the last turn of the share

    @property
    def shows_pictures(self) -> bool:
        """Whether the page is looked at and the live picture is on."""
        return self._visible.is_set() and "image" in self._layers and self._rewind is None

    async def run(self) -> None:
        """Greet, then listen and send until the page goes."""
        wish = await self._first_wish()
        self._line.write(encode(self._greet(wish)))
        sending = asyncio.create_task(self._send())
        try:
            await self._listen()
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError, TimeoutError):
                await sending

    def _greet(self, wish: dict[str, Any]) -> Hello:
        form = mesh_form(self._config, wish, asked_from(self._request))
        self._coded = form == "code"
        self._mbps = mesh_budget_mbps(self._config, wish)
        self._rest = LineShare(self._config.rest_mbps if self._coded else 0.0)
        world, session = self._shown.world, f"{self._shown.session}-{form}"
        change = wish.get("change", 0)
        can_resume = world.can_resume_code if self._coded else world.can_resume
        # at 0 a page may hold some blocks, but knows not of which time
        held = isinstance(change, int) and change > 0 and can_resume(change)
        resumed = wish.get("session") == session and held
        self._feed = self._new_feed(change if resumed else 0)
        self._take(wish)
        return Hello(session=session, resumed=resumed, mesh=form)

    async def _send(self) -> None:
        try:
            while not self._socket.closed:
                await self._visible.wait()
                await self._turn()
                pause_s = self._shown.steps.pause_s(time.monotonic(), len(self._shown.pages))
                await asyncio.sleep(pause_s)
        except (ConnectionError, TimeoutError):
            log.info("a viewer takes no more data; it is disconnected")
            if self._request.transport is not None:
                self._request.transport.abort()

    async def _turn(self) -> None:
        """Everything that is due, once."""
        self._look_where_asked()
        while self._answers:
            self._line.write(encode(self._answers.popleft()))
        if self._rewind is not None:
            await self._send_past(self._rewind)
        else:
            await self._send_present()
        if (timeline := self._timeline()) is not None:
            self._line.write(encode(timeline))
        await self._line.room()

    async def _send_present(self) -> None:
        self._write_states()
        await self._line.room()
        for data in await self._feed.next(len(self._shown.pages)):
            await self._line.send(data)
        self._write_cloud()

    def _write_cloud(self) -> None:
        """Points of one keyframe, which lie where it is now, also for who looks back."""
        if "points" in self._layers and self._rest.ready(time.monotonic()):
            self._points_wait = False
            cloud = self._shown.world.next_cloud(self._cursor)
            if cloud is not None:
                self._write_metered(encode(cloud))

    def _write_states(self) -> None:
        """One message of each kind that has news, but for the surface, which has its feed."""
        step = self._shown.steps.newest(time.monotonic())
        if self._cursor.step == step.number - 1 and not self._coded:
            image = "image" in self._layers
            if frames := step.frames(image=image):
                self._line.write_frames(frames)
            follow(self._cursor, step, image=image)
        elif self._cursor.step != step.number:
            self._line.write_frames(framed(self._newer_states()))
        self._cursor.step = step.number

    def _newer_states(self) -> list[bytes]:
        """The same for this page alone."""
        world, found = self._shown.world, []
        left_out = set() if "image" in self._layers else {"image"}
        if (keyframes := world.newer_keyframes(self._cursor)) is not None:
            found.append(encode(keyframes))
        found += [s.encoded() for s in world.newer_slots(self._cursor, {*METERED, *left_out})]
        if (path := world.newer_path(self._cursor)) is not None:
            found.append(encode(path))
        if self._rest.ready(time.monotonic()) and not self._points_wait:
            slots = world.newer_slots(self._cursor, left_out)
            for slot in slots:
                self._rest.charge(len(slot.encoded()))
                found.append(slot.encoded())
            self._points_wait = bool(slots) and "points" in self._layers  # they take turns
        return found

    async def _send_past(self, rewind: Rewind) -> None:
        world = self._shown.world
        if self._rest.ready(time.monotonic()):
            states = rewind.states(image="image" in self._layers)
            # with each look, as the path in it: both are as corrected since
            if states and (keyframes := world.newer_keyframes(self._cursor)) is not None:
                self._line.write(encode(keyframes))
            for message in states:
                data = encode(message)
                self._rest.charge(len(data))
                self._line.write(data)
        for slot in world.newer_slots(self._cursor, _OF_THE_PAST):
            self._line.write(slot.encoded())
        await self._line.room()
        for data in await rewind.surface():
            await self._line.send(data)
        self._write_cloud()

    def _look_where_asked(self) -> None:
        if self._seek_ns is None:
            if (rewind := self._rewind) is not None:
                self._return_to_the_present()  # first: what goes from now on its feed tells
                self._line.write(rewind.leave())
            return
        if self._rewind is None:
            self._rewind = Rewind(
                self._shown.world, self._shown.history, coded=self._coded, mbps=self._mbps
            )
        if self._rewind.at_ns != self._seek_ns:
            self._rewind.at_ns = self._seek_ns
            self._timeline_due_s = 0.0

    def _return_to_the_present(self) -> None:
        self._rewind = None
        self._timeline_due_s = 0.0
        self._cursor.slots.clear()
        self._cursor.path_epoch = self._cursor.step = -1
        # blocks that it is shown of the past may be gone before a link looks for the first time
        self._feed = self._new_feed(-1 if self._coded else 0)

    def _timeline(self) -> TimelineUpdate | None:
        if time.monotonic() < self._timeline_due_s:
            return None
        self._timeline_due_s = time.monotonic() + _TIMELINE_PERIOD_S
        first_ns, last_ns = self._shown.history.span_ns
        at_ns = -1 if self._seek_ns is None else self._seek_ns
        return TimelineUpdate(first_ns=first_ns, last_ns=last_ns, at_ns=at_ns)

    def _new_feed(self, change: int) -> MeshFeed:
        if self._coded:
            return CodeFeed(self._shown.world, self._mbps, change)
        self._cursor.mesh_change = change
        return RawFeed(self._shown.world, self._cursor, self._shown.rounds)

    def _write_metered(self, data: bytes) -> None:
        self._rest.charge(len(data))
        self._line.write(data)

    async def _first_wish(self) -> dict[str, Any]:
        message = await asyncio.wait_for(self._socket.receive(), _FIRST_WISH_TIMEOUT_S)
        return _parsed(message.data) if message.type is WSMsgType.TEXT else {}

    async def _listen(self) -> None:
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                self._take(_parsed(message.data))

    def _take(self, wish: dict[str, Any]) -> None:
        """What the page asks for; what is of a wrong type is ignored."""
        if wish.get("visible") is False:
            self._visible.clear()
        elif wish.get("visible") is True:
            self._visible.set()
            self._cursor.step = -1  # what it slept through it is told by itself
        if isinstance(layers := wish.get("layers"), list):
            self._layers = _LAYERS.intersection(x for x in layers if isinstance(x, str))
            self._points_wait = False
            self._cursor.step = -1
        if isinstance(text := wish.get("find"), str):
            self._answers.append(self._shown.album.found(_whole(text[:_LONGEST_TEXT])))
        object_id = wish.get("object")
        if isinstance(object_id, int) and not isinstance(object_id, bool):
            self._answers.append(self._shown.album.detail(object_id % 2**31))
        if "seek" in wish:
            seek = wish["seek"]
            first_ns, last_ns = self._shown.history.span_ns
            if seek is None or last_ns <= first_ns:
                self._seek_ns = None
            elif isinstance(seek, int | float) and not isinstance(seek, bool) and seek == seek:
                self._seek_ns = int(min(max(seek, first_ns), last_ns))


def _whole(text: str) -> str:
    """`text` as it can be sent back: JSON may hold halves of characters, which UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _parsed(text: str) -> dict[str, Any]:
    try:
        wish = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return wish if isinstance(wish, dict) else {}
