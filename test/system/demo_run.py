# SPDX-License-Identifier: Apache-2.0
"""Starts the whole system as a user would and watches it from outside."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass
from pathlib import Path

from dds_domain import own_domain

DURATION_S = 20
_LIMIT_S = 500.0
_LOOKS = 4
_BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_OUTSIDER = """
    import json, sys, time
    import rclpy
    from rclpy.node import Node
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import Image, PointCloud2
    from worldsystem_msgs.msg import MeshDelta

    rclpy.init()
    node, seen = Node("outsider"), {}
    topics = {
        "/camera/image_raw": (Image, 3),
        "/slam/pose": (PoseStamped, 3),
        "/slam/cloud": (PointCloud2, 1),
        "/mesh/delta": (MeshDelta, 3),
    }
    for topic, (kind, _) in topics.items():
        count = lambda message, topic=topic: seen.__setitem__(topic, seen.get(topic, 0) + 1)
        node.create_subscription(kind, topic, count, 10)
    end = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < end and any(
        seen.get(topic, 0) < wanted for topic, (_, wanted) in topics.items()
    ):
        rclpy.spin_once(node, timeout_sec=0.5)
    print(json.dumps(seen))
"""


@dataclass(frozen=True)
class Run:
    """What a run printed and left, and what others saw of it while it went on."""

    folder: Path
    exit_code: int
    output: str
    outside: dict[str, int]
    page_triangles: list[int]

    @property
    def summary(self) -> dict:
        return json.loads((self.folder / "summary.json").read_text())


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def watched_demo(folder: Path) -> Run:
    """Run the demo into `folder`, with a plain rclpy script and a browser looking on."""
    video, web, foxglove, rerun = free_ports(4)
    ports = ["--port", video, "--web-port", web, "--foxglove-port", foxglove, "--rerun-port", rerun]
    command = [
        sys.executable, "-m", "worldsystem.cli", "demo", "--duration", DURATION_S, "--out", folder,
        *ports, "--set", "viewer.rerun_serve=false", f"viewer.rerun_file={folder}/world.rrd",
    ]  # fmt: skip
    environment = os.environ | {"ROS_DOMAIN_ID": str(own_domain(__file__))}
    demo = subprocess.Popen(
        [str(word) for word in command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    outsider = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_OUTSIDER), str(_LIMIT_S)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    triangles: list[int] = []
    polite = polite_browser(folder.parent)
    watcher = threading.Thread(target=watch_page, args=(web, demo, triangles, polite), daemon=True)
    watcher.start()
    try:
        output, _ = demo.communicate(timeout=_LIMIT_S)
        watcher.join(30.0)
        outside = outsider.communicate(timeout=10.0)[0]
    finally:
        demo.kill()
        outsider.kill()
    return Run(folder, demo.returncode, output, json.loads(outside or "{}"), triangles)


def browser_path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def polite_browser(folder: Path) -> Path | None:
    """A browser that yields to everything else: WebGL in software would take a core of two."""
    path = browser_path()
    if path is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    polite = folder / "polite_browser"
    polite.write_text(f'#!/bin/sh\nexec nice -n 19 {path} "$@"\n')
    polite.chmod(0o755)
    return polite


def watch_page(
    port: int, demo: subprocess.Popen, triangles: list[int], browser: Path | None
) -> None:
    """Look at the web page a few times while it grows, then close it."""
    if browser is None:
        return
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=_BROWSER_ARGUMENTS)
        page = chromium.new_page(viewport={"width": 160, "height": 120})
        while demo.poll() is None and len(triangles) < _LOOKS:
            try:
                if not page.url.startswith("http"):
                    page.goto(f"http://127.0.0.1:{port}/")
                shown = page.evaluate("window.worldsystem?.triangles ?? 0")
            except Error:
                shown = 0  # the page's server is not up yet, or not any more
            if shown > max(triangles, default=0):
                triangles.append(shown)
            page.wait_for_timeout(1000)
        chromium.close()
