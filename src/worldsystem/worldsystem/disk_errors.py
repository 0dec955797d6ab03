# SPDX-License-Identifier: Apache-2.0
"""What a command says when the disk refuses something."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import wraps

from worldsystem_core.errors import WorldSystemError

Command = Callable[[argparse.Namespace], int]


def with_disk_errors_told(command: Command) -> Command:
    """`command`, whose `OSError`s are errors of use: one line with the path and the reason."""

    @wraps(command)
    def run(options: argparse.Namespace) -> int:
        try:
            return command(options)
        except BrokenPipeError:
            raise  # of who reads the output
        except OSError as error:
            where = f"{error.filename}: " if error.filename is not None else ""
            raise WorldSystemError(f"{where}{error.strerror or error}") from error

    return run
