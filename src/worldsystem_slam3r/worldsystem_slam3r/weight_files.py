# SPDX-License-Identifier: Apache-2.0
"""Where the networks' weights lie on this machine, and under what licence."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from worldsystem_core.errors import BackendError, WeightsMissing

ENVIRONMENT = "WORLDSYSTEM_WEIGHTS"
PUBLISHED_LICENCE = "CC BY-NC-SA 4.0 (non-commercial use only)"
PUBLISHED_PX = 224
TINY_FOLDER = Path(__file__).parent / "weights" / "slam3r_tiny"
_LAYOUTS = (
    "{net}.safetensors",
    "slam3r_{net}.safetensors",
    "slam3r_{net}/model.safetensors",
    "{net}/model.safetensors",
    "slam3r_{net}.pth",
    "{net}.pth",
)
_CARD = "card.json"


@dataclass(frozen=True)
class WeightFiles:
    """Both networks' files; `picture_px` is the size of picture that they were trained on.

    `settings` are the values of `Slam3rConfig` that suit these weights, where nothing else is
    asked for: each training gives confidence a scale of its own.
    """

    i2p: Path
    l2w: Path
    licence: str
    picture_px: int
    settings: dict[str, float] = field(default_factory=dict)

    @property
    def bytes_on_disk(self) -> int:
        """Size of both files [bytes]."""
        return self.i2p.stat().st_size + self.l2w.stat().st_size


def weights_folder(given: str = "") -> Path:
    """The folder that is looked in: the one given, WORLDSYSTEM_WEIGHTS, or the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "worldsystem" / "weights"
    return Path(given or os.environ.get(ENVIRONMENT, "") or cache).expanduser()


def find_weights(name: str, given: str = "") -> WeightFiles:
    """The weights of back-end `name` (`slam3r` or `slam3r_tiny`).

    They lie in `weights_folder(given)` itself or in its subfolder `name`; those of `slam3r_tiny`
    are of one's own, and not in the cache itself, where the published ones are. A file that is not
    there is `WeightsMissing`, or a `BackendError` for the small ones.
    """
    folder = weights_folder(given)
    places = [folder / name, folder]
    if name == "slam3r_tiny" and not (given or os.environ.get(ENVIRONMENT)):
        places = [folder / name, TINY_FOLDER]
    for place in places:
        found = [_file(place, net) for net in ("i2p", "l2w")]
        if found[0] is not None and found[1] is not None:
            card = _card(place)
            return WeightFiles(
                found[0],
                found[1],
                licence=str(card.get("licence", PUBLISHED_LICENCE)),
                picture_px=_picture_px(card, place),
                settings=_settings(card, place),
            )
    if name == "slam3r_tiny":
        raise BackendError(
            f"weights 'slam3r_tiny' not found at {places[0]} or {places[1]}; train them (see "
            "training/README.md) and name their folder as slam3r.weights or WORLDSYSTEM_WEIGHTS"
        )
    raise WeightsMissing(name, places[-1])


def _file(folder: Path, net: str) -> Path | None:
    candidates = (folder / layout.format(net=net) for layout in _LAYOUTS)
    return next((path for path in candidates if path.is_file()), None)


def _card(folder: Path) -> dict[str, object]:
    """What was written about the weights when they were trained; published ones have none."""
    path = folder / _CARD
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise BackendError(f"{path} is not JSON ({error}); remove or repair it") from error
    return content if isinstance(content, dict) else {}


def _picture_px(card: dict[str, object], folder: Path) -> int:
    plan = card.get("plan")
    value = plan.get("size_px", PUBLISHED_PX) if isinstance(plan, dict) else PUBLISHED_PX
    if not isinstance(value, int) or value < 32 or value % 16:
        raise BackendError(
            f"{folder / _CARD} tells a picture size of {value!r}; it must be a multiple of 16 px"
        )
    return value


def _settings(card: dict[str, object], folder: Path) -> dict[str, float]:
    settings = card.get("settings", {})
    if not isinstance(settings, dict):
        raise BackendError(f"{folder / _CARD}: 'settings' must be an object of names and numbers")
    return settings
