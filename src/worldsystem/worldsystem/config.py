# SPDX-License-Identifier: Apache-2.0
"""Settings of the reporter and the monitor."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.config import Config, param
from worldsystem_slam3r.config import Slam3rConfig


@dataclass(frozen=True, kw_only=True)
class ReporterConfig(Config):
    """What a run leaves behind when it ends."""

    folder: str = param("", "folder of the run; empty = runs/<date_time>")
    source: str = param("", "the source as the user gave it, for the report")
    backend: str = param(Slam3rConfig.backend, "the reconstruction back-end, for the report")
    truth: str = param("", "folder or file with ground truth; empty = none")
    report: bool = param(True, "write report.html with its pictures")


@dataclass(frozen=True, kw_only=True)
class MonitorConfig(Config):
    """The whole system's `/metrics` and `/health`."""

    host: str = param("127.0.0.1", "address to listen on; 0.0.0.0 = every network")
    port: int = param(8007, "port of /metrics and /health; 0 = any free one", low=0, high=65535)
    token_file: str = param(
        "", "JSON file with a token under any name; empty: everybody who reaches the port may look"
    )
    tls_certificate: str = param("", "certificate chain (PEM) for https; empty: no TLS")
    tls_key: str = param("", "private key (PEM) of the certificate")
