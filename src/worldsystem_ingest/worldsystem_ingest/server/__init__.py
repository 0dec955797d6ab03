# SPDX-License-Identifier: Apache-2.0
"""The server that drones and phones send to, and that consumers get the video from."""

from worldsystem_ingest.server.serving import ServingSource
from worldsystem_ingest.server.source import ServerSource

__all__ = ["ServerSource", "ServingSource"]
