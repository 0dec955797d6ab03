# SPDX-License-Identifier: Apache-2.0
"""Settings of the reporter."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.config import Config, param


@dataclass(frozen=True, kw_only=True)
class ReporterConfig(Config):
    """What a run leaves behind when it ends."""

    folder: str = param("", "folder of the run; empty = runs/<date_time>")
    source: str = param("", "the source as the user gave it, for the report")
    backend: str = param("geometric", "the reconstruction back-end, for the report")
    truth: str = param("", "folder or file with ground truth; empty = none")
    report: bool = param(True, "write report.html with its pictures")
