# SPDX-License-Identifier: Apache-2.0
"""The log as JSON, an object a line, for programs that read logs.

Keys: `stamp` (ISO 8601, UTC), `level`, `node`, `logger`, `message`; `frame` where the line is about
the work on a frame, `error` (a traceback) where there was one.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from worldsystem_core.frames import Frame
from worldsystem_core.reconstruction import NewKeyframe, Pose

VARIABLE = "WORLDSYSTEM_LOG"
"""Environment variable that chooses the form, so that children of a process take it over."""
FORMS = ("text", "json")
_PACKAGES = "worldsystem_"
_frame: ContextVar[int | None] = ContextVar("frame", default=None)
_node: ContextVar[str] = ContextVar("node", default="")


def choose_log(form: str) -> None:
    """Have this process and its children log as `text` or `json`."""
    os.environ[VARIABLE] = form


def logs_json() -> bool:
    """Whether `json` was chosen."""
    return os.environ.get(VARIABLE) == "json"


def is_thread_of(node: str) -> None:
    """Say that the calling thread works for `node` from now on; empty: for none in particular."""
    _node.set(node)


@contextmanager
def working_on(item: object) -> Iterator[None]:
    """What is logged within is about the frame of `item`, if it has one."""
    known = frame_of(item)
    if known is None:
        yield
        return
    token = _frame.set(known)
    try:
        yield
    finally:
        _frame.reset(token)


def frame_of(item: object) -> int | None:
    """The id of the frame that an object of a topic is or came from."""
    if isinstance(item, Frame):
        return item.id
    if isinstance(item, NewKeyframe):
        return item.keyframe.frame_id
    return item.frame_id if isinstance(item, Pose) else None


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "stamp": stamp.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "node": _node.get() or _stage_of(record.name),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (frame := _frame.get()) is not None:
            line["frame"] = frame
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def json_handler() -> logging.Handler:
    """Writes JSON lines to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    return handler


def _stage_of(logger: str) -> str:
    return logger.partition(".")[0].removeprefix(_PACKAGES)
