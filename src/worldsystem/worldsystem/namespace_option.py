# SPDX-License-Identifier: Apache-2.0
"""`--namespace` of every command that talks to a system that runs."""

from __future__ import annotations

import argparse
import re

_NAMESPACE = re.compile(r"/?|/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


def add_namespace(command: argparse.ArgumentParser) -> None:
    """Add the option; a text that names no ROS namespace is refused as wrong use."""
    command.add_argument("--namespace", type=_namespace, default="", help="of the system's nodes")


def _namespace(text: str) -> str:
    if not _NAMESPACE.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no namespace: letters, digits and _, no digit first, parts joined by /"
        )
    return text
