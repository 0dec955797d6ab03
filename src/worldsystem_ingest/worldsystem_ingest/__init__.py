# SPDX-License-Identifier: Apache-2.0
"""Video and telemetry in: sources, the WebSocket server, the decoder and the relay."""
