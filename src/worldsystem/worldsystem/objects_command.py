# SPDX-License-Identifier: Apache-2.0
"""`worldsystem objects …`: ask which objects there are, what they are, and what to look for."""

from __future__ import annotations

import argparse

import numpy as np

from worldsystem.namespace_option import add_namespace
from worldsystem.settings_text import written_path
from worldsystem_segment.query import Answer

_NOTHING = 1
_MOST = 2**32 - 1  # what the services' fields hold


def add_objects(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its actions."""
    command = commands.add_parser("objects", help="ask a map for its objects")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    find = actions.add_parser(
        "find",
        help="which objects are like a text, best first",
        description="TEXT is a phrase (`red box`), an order (`nearest`, `farthest`, `largest`, "
        "`smallest`, `newest`), or both (`nearest chair`); without it all objects are listed.",
    )
    find.add_argument("text", nargs="*", metavar="TEXT")
    find.add_argument("--near", type=float, nargs=3, metavar=("X", "Y", "Z"), help="from here")
    find.add_argument("--limit", type=_amount, default=0, help="at most so many")
    find.add_argument(
        "--map", type=written_path, help="a saved map instead of the system that runs"
    )
    find.set_defaults(command=_find)
    prompt = actions.add_parser("prompt", help="report only what these phrases ask for")
    prompt.add_argument("text", nargs="*", metavar="TEXT", help="as 'red box @0.6. ball'")
    prompt.set_defaults(command=_prompt)
    identify = actions.add_parser("identify", help="ask the configured service what one is")
    identify.add_argument("id", type=_amount)
    identify.add_argument("--again", action="store_true", help="even where an answer is kept")
    identify.set_defaults(command=_identify)
    for action in (find, prompt, identify):
        add_namespace(action)


def _amount(text: str) -> int:
    number = int(text)
    if not 0 <= number <= _MOST:
        raise argparse.ArgumentTypeError(f"{number} is no number from 0 to {_MOST}")
    return number


def _find(options: argparse.Namespace) -> int:
    text = " ".join(options.text)
    near = None if options.near is None else np.array(options.near)
    if options.map is not None:
        from worldsystem_segment.segmenter import Segmenter

        segmenter = Segmenter()
        segmenter.load(options.map)
        answer = segmenter.query(text, near, options.limit)
    else:
        from worldsystem.app import ask_for_objects

        answer = ask_for_objects(text, near, options.limit, options.namespace)
    _print(answer)
    return 0 if answer.found else _NOTHING


def _print(answer: Answer) -> None:
    if answer.message:
        print(answer.message)
    if answer.found:
        print(f"{'id':>6}  {'score':>5}  {'away':>8}  {'size':>20}  {'centre':>26}  label")
    for found in answer.found:
        thing = found.thing
        size = " x ".join(f"{edge:.2f}" for edge in thing.size)
        centre = ", ".join(f"{x:.2f}" for x in thing.world_from_box[:3, 3])
        away = f"{found.distance:.2f}" if np.isfinite(found.distance) else "-"
        said = f" ({thing.identity})" if thing.identity else ""
        print(
            f"{thing.id:6d}  {found.score:5.2f}  {away:>8}  {size:>20}  {centre:>26}  "
            f"{thing.label}{said}"
        )


def _prompt(options: argparse.Namespace) -> int:
    from worldsystem.app import set_prompt

    success, message = set_prompt(" ".join(options.text), options.namespace)
    print(message)
    return 0 if success else _NOTHING


def _identify(options: argparse.Namespace) -> int:
    from worldsystem.app import ask_to_identify

    success, message = ask_to_identify(options.id, options.again, options.namespace)
    print(message)
    return 0 if success else _NOTHING
