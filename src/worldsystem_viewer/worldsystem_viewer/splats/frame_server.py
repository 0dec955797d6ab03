# SPDX-License-Identifier: Apache-2.0
"""Each keyframe's Gaussians alone, as msgpack over WebSocket, for clients that know only that.

A frame replaces the one before it. Keys: `type` ("gaussians"), `timestamp` (ISO 8601, UTC),
`num_gaussians`, `means` (f32 n·3, world), `scales` (f32 n·3), `scales_are` ("log" or "linear"),
`rotations` (f32 n·4, w x y z), `colors` (f32 n·3, zeroth band of spherical harmonics), `opacities`
(f32 n), `sh_degree` (0); arrays are little-endian bytes.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import threading
from datetime import UTC, datetime
from http import HTTPStatus

import msgpack
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.sync.server import Server, ServerConnection, serve

from worldsystem_core.access import can_be_led_here, is_foreign
from worldsystem_core.errors import PortInUse
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Keyframe
from worldsystem_core.splats.discs import discs_from_pointmap
from worldsystem_core.splats.gaussians import SH_BAND_0, Gaussians
from worldsystem_viewer.addresses import cannot_listen
from worldsystem_viewer.splats.config import SplatsConfig

log = logging.getLogger(__name__)
_WAIT_S = 0.5
_MOST_CLIENTS = 20
_PATIENCE = struct.pack("ll", 30, 0)
"""So long [s] a client may take nothing; then its place is somebody else's."""


def frame_message(gaussians: Gaussians, stamp_ns: int, *, log_scales: bool = False) -> bytes:
    """The message of `gaussians` (world)."""
    scales = gaussians.scales
    if log_scales:
        scales = np.log(np.maximum(scales, 1e-12))
    moment = datetime.fromtimestamp(stamp_ns / 1e9, UTC)
    message = {
        "type": "gaussians",
        "timestamp": moment.isoformat(),
        "num_gaussians": len(gaussians),
        "means": _bytes(gaussians.means),
        "scales": _bytes(scales),
        "scales_are": "log" if log_scales else "linear",
        "rotations": _bytes(gaussians.rotations),
        "colors": _bytes((gaussians.rgb - 0.5) / SH_BAND_0),
        "opacities": _bytes(gaussians.opacities),
        "sh_degree": 0,
    }
    return bytes(msgpack.packb(message))


def frame_gaussians(keyframe: Keyframe, most: int) -> Gaussians:
    """A keyframe's Gaussians in the world: its own, or discs of every n-th pixel each way."""
    place = Sim3.from_pose(keyframe.world_from_cam)
    if keyframe.gaussians is not None:
        found = keyframe.gaussians
        step = max(1, -(-len(found) // most))
        return found[np.arange(0, len(found), step)].transformed(place)
    step = max(1, int(np.ceil(np.sqrt(keyframe.confidence.size / most))))
    while keyframe.confidence[::step, ::step].size > most:  # each side is rounded up
        step += 1
    thinned = (slice(None, None, step),) * 2
    discs = discs_from_pointmap(
        np.ascontiguousarray(keyframe.pointmap[thinned]),
        keyframe.rgb[thinned],
        keyframe.confidence[thinned],
    )
    return discs.transformed(place)


class FrameServer:
    """Serves the newest frame to every client; a slow one skips frames, which are counted.

    Frames are encoded once for all, and not at all without a client. `start` raises `PortInUse`, or
    `ConfigError` for a host that is none of this machine.
    """

    def __init__(self, config: SplatsConfig) -> None:
        self._config = config
        self._newest: Keyframe | None = None
        self._number = 0
        self._encoded: tuple[int, bytes] = (0, b"")
        self._changed = threading.Condition()
        self._clients: set[ServerConnection] = set()
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False
        self.skipped = 0

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._server is None:
            return self._config.frames_port
        return int(self._server.socket.getsockname()[1])

    @property
    def client_count(self) -> int:
        """Clients connected now."""
        return len(self._clients)

    def start(self) -> None:
        """Listen, in a thread of its own."""
        port = self._config.frames_port
        try:
            self._server = serve(
                self._attend,
                self._config.host,
                port,
                compression=None,
                process_request=self._refuse_other_sites,
            )
        except (OSError, UnicodeError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                raise PortInUse("splat frames", port, "--set splats.frames_port=…") from error
            host = self._config.host
            raise cannot_listen(host, port, "frames_port", error, stage="splats") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="splat_frames", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and join the thread; does nothing when not started."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join(timeout=5.0)

    def put(self, keyframe: Keyframe) -> None:
        """The newest keyframe; returns at once."""
        with self._changed:
            self._newest = keyframe
            self._number += 1
            self._changed.notify_all()

    def _refuse_other_sites(
        self, connection: ServerConnection, request: Request
    ) -> Response | None:
        """A browser lets every site's page connect to this machine; only pages from here may."""
        origins, hosts = request.headers.get_all("Origin"), request.headers.get_all("Host")
        if not origins:
            return None
        is_one = len(origins) == len(hosts) == 1 and not is_foreign(origins[0], hosts[0])
        if is_one and not can_be_led_here(hosts[0], self._config.host):
            return None
        return connection.respond(HTTPStatus.FORBIDDEN, "pages of other sites may not connect\n")

    def _attend(self, connection: ServerConnection) -> None:
        if len(self._clients) >= _MOST_CLIENTS:
            connection.close(1013, f"{_MOST_CLIENTS} clients are connected, no more are served")
            return
        self._clients.add(connection)
        # `settimeout` would end a client that says nothing, too: most have nothing to say
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)
        try:
            self._send_frames(connection)
        except (ConnectionClosed, TimeoutError, OSError) as error:
            log.info("a client of splat frames went away: %s", error or type(error).__name__)
        finally:
            self._clients.discard(connection)

    def _send_frames(self, connection: ServerConnection) -> None:
        seen = 0
        while not self._stopped:
            number, keyframe = self._newer_than(seen)
            if connection.protocol.state is not State.OPEN:
                return  # where nothing is sent, nothing else tells
            if number == seen or keyframe is None:
                continue
            self.skipped += number - seen - 1 if seen else 0
            seen = number
            connection.send(self._message(number, keyframe))

    def _newer_than(self, seen: int) -> tuple[int, Keyframe | None]:
        """The newest keyframe and its number, after a wait for one where there is none yet."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > seen or self._stopped, _WAIT_S)
            return self._number, self._newest

    def _message(self, number: int, keyframe: Keyframe) -> bytes:
        """Encoded once; clients that ask at the same time may each encode it, which is harmless."""
        if self._encoded[0] != number:
            found = frame_gaussians(keyframe, self._config.frames_splats)
            data = frame_message(
                found, keyframe.stamp_ns, log_scales=self._config.frames_log_scales
            )
            self._encoded = (number, data)
        return self._encoded[1]


def _bytes(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values, dtype="<f4").tobytes()
