# SPDX-License-Identifier: Apache-2.0
"""What a run leaves for a person to read: one page, its pictures, and a summary for programs."""

from worldsystem.report.page import write_report
from worldsystem.report.record import GLASS_TO_MAP, RunRecord, RunSample, Targets
from worldsystem.report.summary import RunSummary, Verdict, summarise

__all__ = [
    "GLASS_TO_MAP",
    "RunRecord",
    "RunSample",
    "RunSummary",
    "Targets",
    "Verdict",
    "summarise",
    "write_report",
]
