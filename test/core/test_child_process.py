# SPDX-License-Identifier: Apache-2.0
"""A child ends with its parent, also where a shell had both ignore interrupts."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import signal, subprocess, sys, time
from worldsystem_core import child_process
if {ignores}:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script's shell does behind `&`
child = subprocess.Popen(["sleep", "60"], preexec_fn=child_process.{how})
print(child.pid, flush=True)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("ignores", [False, True])
@pytest.mark.parametrize("how", ["end_with_parent", "die_with_parent"])
def test_a_child_ends_when_its_parent_is_killed(how, ignores):
    code = PARENT.format(how=how, ignores=ignores)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    deadline = time.monotonic() + 10.0
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)
