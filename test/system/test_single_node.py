# SPDX-License-Identifier: Apache-2.0
"""A process that is started without our environment script keeps to this machine, too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dds_domain import own_domain

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

THIS_MACHINE = ("127.", "239.255.0.1")  # where DDS looks for others on loopback
OURS = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
UP_S = 60.0


def udp_addresses(pid: int) -> set[str]:
    """Where the process's UDP sockets are bound."""
    held = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(os.readlink(link))
        except OSError:  # closed meanwhile
            continue
    lines = Path(f"/proc/{pid}/net/udp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {address_of(row[1]) for row in rows if f"socket:[{row[9]}]" in held}


def address_of(text: str) -> str:
    """An address as /proc writes it: a little-endian number and a port, both hexadecimal."""
    number = int(text.split(":")[0], 16)
    return ".".join(str(number >> shift & 255) for shift in (0, 8, 16, 24))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "words", [["node", "splats"], ["objects", "find", "box"], ["status"]], ids=lambda w: w[0]
)
def test_it_opens_no_port_to_a_network(words):
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    environment["ROS_DOMAIN_ID"] = str(own_domain(__file__))
    command = [sys.executable, "-m", "worldsystem.cli", *words]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)
    try:
        seen: set[str] = set()
        end_s = time.monotonic() + UP_S
        while "239.255.0.1" not in seen and process.poll() is None and time.monotonic() < end_s:
            time.sleep(0.05)
            seen |= udp_addresses(process.pid) if process.poll() is None else set()
    finally:
        process.kill()
        process.wait()
    assert "239.255.0.1" in seen, "it did not join the others of this machine"
    assert {address for address in seen if not address.startswith(THIS_MACHINE)} == set()
