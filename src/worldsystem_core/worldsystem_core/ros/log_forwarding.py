# SPDX-License-Identifier: Apache-2.0
"""Python's `logging` into ROS's log, so that libraries need not know rclpy."""

from __future__ import annotations

import logging

from rclpy.logging import get_logger

from worldsystem_core.json_log import json_handler, logs_json

_PACKAGES = "worldsystem"


class _ToRos(logging.Handler):
    """Passes records to the ROS logger of the same name."""

    def emit(self, record: logging.LogRecord) -> None:
        logger, text = get_logger(record.name), self.format(record)
        if record.levelno >= logging.ERROR:
            logger.error(text)
        elif record.levelno >= logging.WARNING:
            logger.warning(text)
        elif record.levelno >= logging.INFO:
            logger.info(text)
        else:
            logger.debug(text)


def forward_logging(level: int = logging.INFO) -> None:
    """Forward the log of every `worldsystem…` module, and of nothing else, from `level` on.

    It takes the place of the handlers that were there, so that nothing is said twice. Where JSON is
    chosen (`json_log`), that goes to stderr, and ROS's own text to `/rosout` alone.
    """
    handlers = [_ToRos(), json_handler()] if logs_json() else [_ToRos()]
    for handler in handlers:
        handler.addFilter(lambda record: record.name.startswith(_PACKAGES))
    root = logging.getLogger()
    root.handlers = handlers
    root.setLevel(level)


def logging_arguments(arguments: list[str]) -> list[str]:
    """`arguments` for `rclpy.init`, with ROS's text kept from the terminal where JSON is chosen."""
    quiet = ["--ros-args", "--disable-stdout-logs", "--"]
    return [*arguments, *quiet] if logs_json() else arguments
