# SPDX-License-Identifier: Apache-2.0
"""The network code of the package `depth-anything-3`, without what the package asks for.

Its wheel wants numpy < 2, xformers, open3d, gradio and more, which would break this workspace, so
it is installed with `pip install --no-deps`. Its network needs torch and einops. Libraries
that are imported and not used on our way get stand-ins while it is imported: `omegaconf` (its
configurations are read here, as plain YAML), `addict` (a dictionary with attributes), `evo` and
`e3nn` (which rotates bands of colour that are not used).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from worldsystem_core.errors import MissingDependency

PACKAGE = "depth_anything_3"
INSTALL = "pip install --no-deps -r tools/requirements-bare.txt"


class _AttributeDict(dict[str, Any]):
    """What `addict.Dict` is to the network: a dictionary whose items are attributes."""

    def __getattr__(self, name: str) -> Any:  # whatever the network put there
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]


class _NoConfigurations:
    """`OmegaConf`, of which only the registration of a resolver is called."""

    @staticmethod
    def register_new_resolver(*_: object, **__: object) -> None:
        """Nothing is resolved."""


def package_problem() -> str:
    """Why the network code cannot be imported; empty when it can."""
    for name in ("torch", "einops", PACKAGE):
        if importlib.util.find_spec(name) is None:
            return f"'{name.replace('_', '-')}' is not installed; run `{INSTALL}`"
    return ""


def module(name: str) -> ModuleType:
    """`depth_anything_3.<name>`; raises `MissingDependency` where the package is not there."""
    problem = package_problem()
    if problem:
        missing = problem.split("'")[1]
        raise MissingDependency(missing, "back-end 'da3'", INSTALL)
    with _stand_ins():
        found = importlib.import_module(f"{PACKAGE}.{name}")
        if name == "model.gs_adapter":
            # only the zeroth band of colours is used, which no rotation changes
            found.__dict__["rotate_sh"] = lambda harmonics, _: harmonics
        if name == "model.da3":
            # the nested network has its branches made without looking whether they are
            found.__dict__["create_object"] = lambda made: made
    return found


def build(configuration: str) -> Any:  # a torch module of the package
    """The network that `configuration` (such as `da3-small`) describes, with random weights."""
    module("model.gs_adapter")
    module("model.da3")
    return _made(described(configuration))


def described(configuration: str) -> dict[str, Any]:
    """A configuration of the package with those that it refers to."""
    root = Path(str(module("cfg").__file__)).parent
    return _described(root / "configs" / f"{configuration}.yaml")


def _described(path: Path) -> dict[str, Any]:
    """A configuration with those that it refers to."""
    content = yaml.safe_load(path.read_text())
    return {key: _inherited(value, path.parent) for key, value in content.items()}


def _inherited(value: Any, folder: Path) -> Any:  # YAML
    if isinstance(value, str):
        return _number_or_text(value)
    if not isinstance(value, dict):
        return value
    parent = value.pop("__inherit__", None)
    if parent is None:
        return {key: _inherited(item, folder) for key, item in value.items()}
    name = str(parent).rsplit(".", 1)[-1] if "/" not in str(parent) else Path(str(parent)).stem
    return _described(folder / f"{name}.yaml") | value


def _number_or_text(value: str) -> float | str:
    """PyYAML takes `1e-5`, which has no point, for a text; the package's own reader does not."""
    try:
        return float(value)
    except ValueError:
        return value


def _made(described: dict[str, Any]) -> Any:  # what the description names
    """The object of a description, its arguments made first."""
    rest = dict(described)
    what = rest.pop("__object__")
    arguments = {
        key: _made(value) if isinstance(value, dict) and "__object__" in value else value
        for key, value in rest.items()
    }
    maker = getattr(module(what["path"].removeprefix(f"{PACKAGE}.")), what["name"])
    return maker(**arguments)


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Stand-ins for what is not installed, and for no longer than an import takes."""
    contents = _replacements()
    roots = {name.split(".")[0] for name in contents}
    missing = {r for r in roots if r not in sys.modules and not importlib.util.find_spec(r)}
    added = {name: item for name, item in contents.items() if name.split(".")[0] in missing}
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _replacements() -> dict[str, ModuleType]:
    nothing = type("Unused", (), {})
    contents: dict[str, dict[str, object]] = {
        "omegaconf": {
            "OmegaConf": _NoConfigurations,
            "DictConfig": nothing,
            "ListConfig": nothing,
        },
        "addict": {"Dict": _AttributeDict},
        "evo": {},
        "evo.core": {},
        "evo.core.trajectory": {"PosePath3D": nothing},
        "e3nn": {},
        "e3nn.o3": {"matrix_to_angles": None, "wigner_D": None},
    }
    found = {}
    for name, items in contents.items():
        found[name] = ModuleType(name)
        found[name].__dict__.update(items)
    return found
