# SPDX-License-Identifier: Apache-2.0
"""What Foxglove may ask of the system: parameters, services, and its log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from worldsystem_core.errors import WorldSystemError
from worldsystem_core.shown_url import without_secrets

log = logging.getLogger(__name__)
_OURS = "worldsystem"
_LEVELS = ((logging.ERROR, "Error"), (logging.WARNING, "Warning"), (logging.INFO, "Info"))
_DEBUG = "Debug"


@dataclass(frozen=True)
class ServiceText:
    """One service: its type and the `ros2msg` texts of its request and answer."""

    type_name: str
    request: str
    answer: str


class Remote(Protocol):
    """The system, as far as viewers may touch it."""

    def call(self, name: str, request_cdr: bytes) -> bytes: ...
    def parameters(self) -> dict[str, Any]: ...
    def set_parameter(self, full_name: str, value: Any) -> None: ...


class Listener:
    """Foxglove's callbacks, from the server's own threads; setting only where `may_set`."""

    def __init__(
        self,
        foxglove: Any,
        remote: Remote | None,
        *,
        may_set: bool,
        on_subscribe: Callable[[str], None],
    ) -> None:
        self._websocket = foxglove.websocket
        self._remote = remote
        self._may_set = may_set
        self._on_subscribe = on_subscribe

    def on_subscribe(self, _client: Any, channel: Any) -> None:
        self._on_subscribe(channel.topic)

    def on_get_parameters(
        self, _client: Any, names: list[str], _request_id: str | None = None
    ) -> list[Any]:
        """The values of `names`, or of all when none is named."""
        values = self._remote.parameters() if self._remote else {}
        wanted = names or list(values)
        return [self._told(name, values[name]) for name in wanted if name in values]

    def on_set_parameters(
        self, client: Any, parameters: list[Any], _request_id: str | None = None
    ) -> list[Any]:
        """Set what may be set, and tell the values that hold afterwards."""
        for parameter in parameters:
            if not self._may_set or self._remote is None:
                log.warning(
                    "%s stays as it is: viewers only look; `viewer.control` lets them set",
                    parameter.name,
                )
                continue
            try:
                self._remote.set_parameter(parameter.name, parameter.get_value())
            except (WorldSystemError, TypeError, ValueError) as error:
                log.warning("%s", error)
        return self.on_get_parameters(client, [parameter.name for parameter in parameters])

    def _told(self, name: str, value: Any) -> Any:
        """As it may be shown: whoever reaches the port may ask for it."""
        plain = value if isinstance(value, bool | int | float) else without_secrets(str(value))
        return self._websocket.Parameter(name, value=plain)


def listener(foxglove: Any, listening: Listener) -> Any:
    """`listening`, with Foxglove's own answers for what it does not care about."""
    kind = type("FoxgloveListener", (Listener, foxglove.websocket.ServerListener), {})
    made: Any = object.__new__(kind)
    made.__dict__.update(listening.__dict__)
    return made


def services(foxglove: Any, remote: Remote, texts: dict[str, ServiceText]) -> list[Any]:
    """Foxglove's services that call ours with the same CDR bytes."""
    websocket = foxglove.websocket

    def schema(name: str, text: str) -> Any:
        made = foxglove.Schema(name=name, encoding="ros2msg", data=text.encode())
        return websocket.MessageSchema(encoding="cdr", schema=made)

    def handler(request: Any) -> bytes:
        return remote.call(request.service_name, request.payload)

    return [
        websocket.Service(
            name=name,
            schema=websocket.ServiceSchema(
                name=text.type_name,
                request=schema(f"{text.type_name}_Request", text.request),
                response=schema(f"{text.type_name}_Response", text.answer),
            ),
            handler=handler,
        )
        for name, text in texts.items()
    ]


class LogHandler(logging.Handler):
    """Sends what our modules log to a Foxglove log channel."""

    def __init__(self, messages: Any, channel: Any) -> None:
        super().__init__(logging.INFO)
        self._messages = messages
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(_OURS):
            return
        level = next((name for at, name in _LEVELS if record.levelno >= at), _DEBUG)
        stamp_ns = int(record.created * 1e9)
        message = self._messages.Log(
            timestamp=self._messages.Timestamp(*divmod(stamp_ns, 10**9)),
            level=getattr(self._messages.LogLevel, level),
            message=record.getMessage(),
            name=record.name,
            file=record.filename,
            line=record.lineno,
        )
        self._channel.log(message, log_time=stamp_ns)
