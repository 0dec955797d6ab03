# SPDX-License-Identifier: Apache-2.0
"""An RTSP server for tests, by GStreamer; run by the system's Python, which has its bindings.

    rtsp_server.py serve PORT UNITS [--user NAME:PASSWORD]   serve /live in a loop at 30 Hz
    rtsp_server.py record PORT OUT [--codec h265]            store what is sent to /live

UNITS and OUT hold access units in Annex-B form, each behind its length (u32, little-endian).
Prints `ready` once it listens.
"""

from __future__ import annotations

import argparse
import struct
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

RATE_HZ = 30
LENGTH = struct.Struct("<I")
PATH = "/live"


def read_units(path: str) -> list[bytes]:
    """Every access unit of a file."""
    units, at = [], 0
    with open(path, "rb") as file:
        content = file.read()
    while at < len(content):
        (size,) = LENGTH.unpack_from(content, at)
        units.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return units


class Sender:
    """Pushes units into one media's source, paced by the main loop."""

    def __init__(self, units: list[bytes], source: Gst.Element) -> None:
        self._units = units
        self._source = source
        self._at = 0
        GLib.timeout_add(1000 // RATE_HZ, self._push)

    def _push(self) -> bool:
        buffer = Gst.Buffer.new_wrapped(self._units[self._at % len(self._units)])
        self._at += 1
        return self._source.emit("push-buffer", buffer) == Gst.FlowReturn.OK


def serving(codec: str, units: list[bytes]) -> GstRtspServer.RTSPMediaFactory:
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        "( appsrc name=source is-live=true do-timestamp=true format=time "
        f"caps=video/x-{codec},stream-format=byte-stream,alignment=au "
        f"! rtp{codec}pay name=pay0 pt=96 config-interval=-1 )"
    )
    factory.set_shared(True)

    def configure(_: object, media: GstRtspServer.RTSPMedia) -> None:
        Sender(units, media.get_element().get_by_name("source"))

    factory.connect("media-configure", configure)
    return factory


def recording(codec: str, out: str) -> GstRtspServer.RTSPMediaFactory:
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.set_launch(
        f"( rtp{codec}depay name=depay0 ! video/x-{codec},stream-format=byte-stream,alignment=au "
        "! appsink name=sink emit-signals=true sync=false )"
    )
    file = open(out, "ab", buffering=0)  # noqa: SIM115  (open as long as the server)

    def store(sink: Gst.Element) -> Gst.FlowReturn:
        buffer = sink.emit("pull-sample").get_buffer()
        unit = buffer.extract_dup(0, buffer.get_size())
        file.write(LENGTH.pack(len(unit)) + unit)
        return Gst.FlowReturn.OK

    def configure(_: object, media: GstRtspServer.RTSPMedia) -> None:
        media.get_element().get_by_name("sink").connect("new-sample", store)

    factory.connect("media-configure", configure)
    return factory


def ask_for(user: str, server: GstRtspServer.RTSPServer, factory: GstRtspServer.RTSPMediaFactory):
    """Let only `NAME:PASSWORD` in."""
    name, password = user.split(":")
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(name, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    for right in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role("user", right, True)
    factory.set_permissions(permissions)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("serve", "record"))
    parser.add_argument("port")
    parser.add_argument("file")
    parser.add_argument("--codec", default="h264", choices=("h264", "h265"))
    parser.add_argument("--user", default="")
    given = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(given.port)
    if given.what == "serve":
        factory = serving(given.codec, read_units(given.file))
    else:
        factory = recording(given.codec, given.file)
    if given.user:
        ask_for(given.user, server, factory)
    server.get_mount_points().add_factory(PATH, factory)
    if not server.attach(None):
        return 1
    print("ready", flush=True)
    GLib.MainLoop().run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
