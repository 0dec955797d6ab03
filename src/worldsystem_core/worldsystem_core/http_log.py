# SPDX-License-Identifier: Apache-2.0
"""The log of an aiohttp server without what strangers make it say."""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import HttpProcessingError


def http_log(name: str) -> logging.Logger:
    """A logger for `AppRunner(logger=…)`: errors of ours come through, those of requests do not.

    aiohttp reports as errors, with their whole text, what strangers send; anybody could fill the
    log with it.
    """
    log = logging.getLogger(f"{name}.http")
    if _is_ours not in log.filters:
        log.addFilter(_is_ours)
    return log


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | ConnectionError)
