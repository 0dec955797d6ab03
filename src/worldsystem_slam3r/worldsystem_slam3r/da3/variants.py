# SPDX-License-Identifier: Apache-2.0
"""The published networks of Depth Anything 3: what each can do, weighs, and may be used for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from worldsystem_core.errors import BackendError, WeightsMissing
from worldsystem_slam3r.weight_files import weights_folder

APACHE = "Apache-2.0"
NON_COMMERCIAL = "CC BY-NC 4.0 (non-commercial use only)"
_FILE_NAMES = ("model.safetensors",)


@dataclass(frozen=True)
class Variant:
    """One network; `memory_gb` is what a window of eight pictures at 504 × 378 takes on a GPU.

    Only those with `gaussians` predict splats; of the others the pointmap is made into discs.
    """

    name: str
    published: str
    millions: int
    memory_gb: float
    licence: str
    gaussians: bool = False
    metric: bool = False

    @property
    def configuration(self) -> str:
        """The package's description of the network."""
        return "da3nested-giant-large" if self.metric else f"da3-{self.name}"


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("small", "DA3-SMALL", 34, 2.0, APACHE),
        Variant("base", "DA3-BASE", 135, 3.0, APACHE),
        Variant("large", "DA3-LARGE-1.1", 355, 5.0, NON_COMMERCIAL),
        Variant("giant", "DA3-GIANT-1.1", 1150, 12.0, NON_COMMERCIAL, gaussians=True),
        Variant(
            "nested",
            "DA3NESTED-GIANT-LARGE-1.1",
            1400,
            15.0,
            NON_COMMERCIAL,
            gaussians=True,
            metric=True,
        ),
    )
}
FALLBACK = ("nested", "giant", "large", "base", "small")
"""From the largest to the smallest: what is tried where one is too large or not there."""


@dataclass(frozen=True)
class Da3Weights:
    """A variant whose file lies on this machine."""

    variant: Variant
    path: Path


def find_da3(given: str = "") -> list[Da3Weights]:
    """The variants that are there, the largest first.

    They lie as published, in `<weights folder>/da3/<name or published name>/model.safetensors`, or
    as `da3/<name>.safetensors`.
    """
    folder = weights_folder(given)
    found = []
    for name in FALLBACK:
        path = _file(folder, VARIANTS[name])
        if path is not None:
            found.append(Da3Weights(VARIANTS[name], path))
    return found


def da3_missing(name: str, folder: Path) -> WeightsMissing:
    """The error that says how to get a network that is not there."""
    return WeightsMissing(f"da3/{name}", folder, f'make weights ARGS="--da3 {name}"')


def choose(
    wanted: str, there: list[Da3Weights], free_bytes: int | None, folder: Path
) -> tuple[Da3Weights, str]:
    """The weights to load and, where they are not those of `wanted`, why, in words.

    `auto` is the largest that fits. One that is missing is `WeightsMissing`; one too large for
    `free_bytes` (None: not known) makes room for the next smaller one, and where none fits that is
    a `BackendError`.
    """
    if wanted != "auto" and wanted not in VARIANTS:
        known = ", ".join(["auto", *VARIANTS])
        raise BackendError(f"da3 variant '{wanted}' is not known; known: {known}")
    if not there or (wanted != "auto" and wanted not in [item.variant.name for item in there]):
        raise da3_missing("base" if wanted == "auto" else wanted, folder)
    first = 0 if wanted == "auto" else FALLBACK.index(wanted)
    candidates = [item for item in there if FALLBACK.index(item.variant.name) >= first]
    for item in candidates:
        if free_bytes is None or 1e9 * item.variant.memory_gb <= free_bytes:
            return item, _note(candidates[0], item, free_bytes)
    least = candidates[-1].variant
    raise BackendError(
        f"da3 '{least.name}' needs {least.memory_gb:.0f} GB of memory, "
        f"{(free_bytes or 0) / 1e9:.1f} GB are free; end other programs, or fetch a smaller variant"
    )


def _note(wanted: Da3Weights, taken: Da3Weights, free_bytes: int | None) -> str:
    if taken is wanted:
        return ""
    note = (
        f"da3 '{wanted.variant.name}' needs {wanted.variant.memory_gb:.0f} GB of memory, "
        f"{(free_bytes or 0) / 1e9:.1f} GB are free: '{taken.variant.name}' runs instead"
    )
    if wanted.variant.gaussians and not taken.variant.gaussians:
        note += "; it predicts no Gaussians, so splats are made of its pointmaps"
    return note


def _file(folder: Path, variant: Variant) -> Path | None:
    places = [
        folder / "da3" / f"{variant.name}.safetensors",
        folder / f"da3_{variant.name}.safetensors",
    ]
    for base in (folder / "da3", folder):
        for name in (variant.name, variant.published, variant.published.removesuffix("-1.1")):
            places += [base / name / file for file in _FILE_NAMES]
    return next((path for path in places if path.is_file()), None)
