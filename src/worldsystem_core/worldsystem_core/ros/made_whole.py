# SPDX-License-Identifier: Apache-2.0
"""A node comes to be whole or not at all: what its constructor had joined is left when that fails.

A half-made node that stayed among its process's publishers would make every other node there take
its topics for local ones, and hear nobody outside; nobody would read its inboxes.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any


class MadeWhole(type):
    """The type of classes whose `leave` undoes as much of the constructor's work as was done."""

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        made: Any = cls.__new__(cls)
        try:
            made.__init__(*arguments, **keywords)
        except BaseException:
            with suppress(AttributeError):  # the node itself could not be made
                made.leave()
            raise
        return made
