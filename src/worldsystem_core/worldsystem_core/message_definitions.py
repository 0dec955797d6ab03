# SPDX-License-Identifier: Apache-2.0
"""Message definitions and type hashes from installed interface packages, without ROS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from worldsystem_core.errors import InterfaceMissing

SEPARATOR = "=" * 80
_FIELD = re.compile(r"^\s*([A-Za-z][\w/]*)(?:<=\d+)?(?:\[[^\]]*\])?\s+[A-Za-z]\w*")
_PRIMITIVE = re.compile(r"bool|byte|char|float(32|64)|u?int(8|16|32|64)|w?string")


def message_definition(type_name: str, search_paths: Sequence[Path]) -> str:
    """The `ros2msg` text of `pkg/msg/Type`: its definition, then that of each type within it.

    `search_paths` are `share` folders (`<prefix>/share`); the first that holds
    `<pkg>/msg/<Type>.msg` wins. Raises `InterfaceMissing` when a type is in none of them.
    """
    wanted = [_split_name(type_name)]
    parts: list[str] = []
    for package, name in wanted:
        text = _find(package, f"{name}.msg", search_paths).read_text(encoding="utf-8")
        parts.append(f"{SEPARATOR}\nMSG: {package}/{name}\n{text}" if parts else text)
        inner = dict.fromkeys(_inner_types(text, package))
        wanted += [found for found in inner if found not in wanted]
    return "\n".join(part.rstrip("\n") for part in parts) + "\n"


def service_definitions(type_name: str, search_paths: Sequence[Path]) -> tuple[str, str]:
    """The `ros2msg` texts of the request and of the answer of `pkg/srv/Type`.

    Raises `InterfaceMissing` when it, or a type within it, is in none of the `share` folders.
    """
    package, _, name = type_name.split("/")
    path = next(
        (p for s in search_paths if (p := s / package / "srv" / f"{name}.srv").is_file()), None
    )
    if path is None:
        raise InterfaceMissing(f"{type_name} not found; install {package} or source its workspace")
    request, _, answer = path.read_text(encoding="utf-8").partition("---")
    return _with_inner(request, package, search_paths), _with_inner(answer, package, search_paths)


def _with_inner(text: str, package: str, search_paths: Sequence[Path]) -> str:
    parts = [text.strip("\n")]
    for inner_package, name in dict.fromkeys(_inner_types(text, package)):
        inner = message_definition(f"{inner_package}/msg/{name}", search_paths)
        parts.append(f"{SEPARATOR}\nMSG: {inner_package}/{name}\n{inner}".rstrip("\n"))
    return "\n".join(parts) + "\n"


def type_hash(type_name: str, search_paths: Sequence[Path]) -> str:
    """The `RIHS01_…` hash of `pkg/msg/Type` from the JSON that rosidl installs beside it."""
    package, name = _split_name(type_name)
    path = _find(package, f"{name}.json", search_paths)
    try:
        hashes = json.loads(path.read_text(encoding="utf-8"))["type_hashes"]
        return next(str(h["hash_string"]) for h in hashes if h["type_name"] == type_name)
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise InterfaceMissing(
            f"{path} has no type hash of {type_name}; rebuild {package}"
        ) from error


def _split_name(type_name: str) -> tuple[str, str]:
    parts = type_name.split("/")
    if len(parts) == 3 and parts[1] == "msg":
        parts.pop(1)
    if len(parts) != 2 or not all(re.fullmatch(r"\w+", part) for part in parts):
        raise InterfaceMissing(f"'{type_name}' is no message type; write it as 'package/msg/Type'")
    return parts[0], parts[1]


def _find(package: str, file: str, search_paths: Sequence[Path]) -> Path:
    for share in search_paths:
        path = Path(share) / package / "msg" / file
        if path.is_file():
            return path
    searched = ", ".join(map(str, search_paths)) or "no folder"
    raise InterfaceMissing(
        f"{package}/msg/{file} not found in {searched}; install {package} or source its workspace"
    )


def _inner_types(text: str, package: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        match = _FIELD.match(line)
        if match and not _PRIMITIVE.fullmatch(match[1]):
            yield _split_name(match[1] if "/" in match[1] else f"{package}/{match[1]}")
