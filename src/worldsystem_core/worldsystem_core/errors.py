# SPDX-License-Identifier: Apache-2.0
"""Errors a person can act on: each message says what happened, with the value, and what to do."""

from __future__ import annotations


class WorldSystemError(Exception):
    """Base of every error that WorldSystem raises on purpose."""


class ConfigError(WorldSystemError):
    """A setting is unknown, has the wrong type, or lies outside its range."""


class SourceError(WorldSystemError):
    """A video source cannot be opened, or holds no video."""


class ProtocolError(WorldSystemError):
    """Bytes from the network do not follow the wire protocol."""


class BackendError(WorldSystemError):
    """A back-end is unknown, or cannot run on this machine."""


class NotAPicture(WorldSystemError, ValueError):
    """An array is not a picture as frames hold them."""


class ShapeChanged(BackendError):
    """A frame has another shape or camera than before; a back-end that began anew takes it."""


class WeightsMissing(WorldSystemError):
    """A network's weights are not on this machine; `cure` says how they get there otherwise than by
    `command`."""

    def __init__(
        self, name: str, path: object, command: str = "make weights", *, cure: str = ""
    ) -> None:
        cure = cure or f"run `{command}` or set WORLDSYSTEM_WEIGHTS"
        super().__init__(f"weights '{name}' not found at {path}; {cure}")


class PortInUse(WorldSystemError):
    """A server's port is taken by another program."""

    def __init__(self, what: str, port: int, option: str) -> None:
        super().__init__(
            f"{what}: port {port} is already in use; stop the program that holds it "
            f"(`ss -ltnp 'sport = :{port}'` names it) or choose another with {option}"
        )


class MissingDependency(WorldSystemError):
    """An optional library is not installed."""

    def __init__(self, library: str, what_for: str, install: str) -> None:
        super().__init__(f"{what_for} needs '{library}', which is not installed; run `{install}`")


class InterfaceMissing(WorldSystemError):
    """A message definition or its hash is not among the installed interface packages."""


class FetchError(WorldSystemError):
    """A file could not be brought here, or is not what it should be."""


class PromptError(WorldSystemError):
    """A prompt or its thresholds cannot be what they are."""


class MapError(WorldSystemError):
    """A map on disk is missing, damaged, of another version, or cannot be used now."""


class StageStuck(WorldSystemError):
    """A stage was still at work when its time to end was over."""


class ServiceError(WorldSystemError):
    """A service of a running system cannot be reached, or does not answer."""
