# SPDX-License-Identifier: Apache-2.0
"""Settings as words on a command line: `node.name=value`."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from pkgutil import resolve_name

from worldsystem.graph import SIMULATOR, STAGES
from worldsystem_core.config import Config
from worldsystem_core.errors import ConfigError


def parse_settings(words: Iterable[str]) -> dict[str, dict[str, object]]:
    """`["mesher.voxel=0.1"]` → `{"mesher": {"voxel": 0.1}}`; raises `ConfigError`."""
    found: dict[str, dict[str, object]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        node, dot, setting = name.partition(".")
        if not (equals and dot and node and setting):
            raise ConfigError(f"'{word}' is not of the form node.name=value, as mesher.voxel=0.1")
        is_text = setting in _texts_of(node)
        found.setdefault(node, {})[setting] = written_out(text) if is_text else value_of(text)
    return found


def config_words(config_type: type[Config], words: Iterable[str]) -> dict[str, object]:
    """`["seed=2"]` → `{"seed": 2}`, text where `config_type` wants text; raises `ConfigError`."""
    texts = _texts(config_type)
    found: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"'{word}' is not of the form name=value, as seed=2")
        found[name] = written_out(text) if name in texts else value_of(text)
    return found


def value_of(text: str) -> object:
    """A number, true or false where `text` is one, else `text` itself."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, int | float | bool) else text


def word_of(name: str, value: object) -> str:
    """The word that `config_words` reads as this value of this setting."""
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"


@functools.cache
def _texts_of(node: str) -> frozenset[str]:
    """The settings of a node that are text, whatever they look like; none where there is no such
    node."""
    kinds = [stage.settings for stage in (*STAGES, SIMULATOR) if stage.name == node]
    return _texts(resolve_name(kinds[0])) if kinds else frozenset()


def _texts(config_type: type[Config]) -> frozenset[str]:
    return frozenset(item.name for item in fields(config_type) if isinstance(item.default, str))


def written_out(text: str) -> str:
    """Behind an equals sign no shell writes out a home."""
    return os.path.expanduser(text) if text.startswith("~/") else text


def written_path(text: str) -> Path:
    """The path that an option names."""
    return Path(written_out(text))
