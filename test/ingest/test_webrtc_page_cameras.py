# SPDX-License-Identifier: Apache-2.0
"""The camera page without a browser: cameras that open slowly, and what is pressed meanwhile."""

from __future__ import annotations

import pytest
from page_modules import needs_node, run_beside

from worldsystem_ingest.webrtc.page import WEB

pytestmark = needs_node

# The page with a camera that opens when a step says so, and a link that keeps what it is to send.
# Steps: "press" the button, "user" or "environment" chooses a camera, "open" and "refuse" answer
# the oldest request for one.
_PAGE = """
const elements = {};
const element = (id) => (elements[id] ??= {
  id, value: "", checked: false, dataset: {}, hidden: false, srcObject: null,
  classList: { toggle: () => {} },
  heard: {},
  addEventListener(name, act) { this.heard[name] = act; },
});
const define = (name, value) => Object.defineProperty(globalThis, name, { value });
const stored = new Map();
const asked = [];
const opened = [];
define("window", globalThis);
define("location", { search: "" });
define("document", { getElementById: element, addEventListener: () => {}, hidden: false });
define("addEventListener", () => {});
define("setInterval", () => {});
define("localStorage", {
  getItem: (id) => stored.get(id) ?? null,
  setItem: (id, value) => stored.set(id, value),
});
define("navigator", {
  mediaDevices: {
    getUserMedia: ({ video }) => new Promise((give, refuse) => asked.push({ video, give, refuse })),
  },
});
element("camera").value = "environment";
element("resolution").value = "640x480";

await import("./camera.js");

function stream(camera) {
  const track = { live: true, addEventListener: () => {}, stop: () => { track.live = false; } };
  opened.push({ camera, track });
  return { camera, getTracks: () => [track], getVideoTracks: () => [track] };
}

function take(step) {
  if (step === "press") element("start").heard.click();
  else if (step === "open") {
    const { video, give } = asked.shift();
    give(stream(video.facingMode.ideal));
  } else if (step === "refuse") asked.shift().refuse(new Error("no such camera"));
  else {
    element("camera").value = step;
    element("camera").heard.change();
  }
}

for (const step of JSON.parse(process.argv[2])) {
  take(step);
  await new Promise(setImmediate);
}
console.log(JSON.stringify({
  state: window.camera.state,
  problem: window.camera.problem,
  waiting: asked.length,
  live: opened.filter(({ track }) => track.live).map(({ camera }) => camera),
  sent: globalThis.sent?.camera ?? null,
  seen: element("preview").srcObject?.camera ?? null,
}));
"""

_LINK = """
export class Link {
  constructor({ onState }) { this.onState = onState; }
  async start(media) {
    globalThis.sent = media;
    this.onState("sending");
  }
  stop() { globalThis.sent = null; }
}
"""

_SENSORS = "export class Sensors { async start() {} stop() {} }"


@pytest.fixture
def after(tmp_path):
    """How the page is after these steps."""
    (tmp_path / "link.js").write_text(_LINK)
    (tmp_path / "sensors.js").write_text(_SENSORS)

    def run(*steps: str) -> dict:
        return run_beside(WEB, tmp_path, _PAGE, steps)

    return run


SENDS_THE_FRONT = {
    "state": "sending",
    "problem": None,
    "waiting": 0,
    "live": ["user"],
    "sent": "user",
    "seen": "user",
}
STOPPED = {
    "state": "idle",
    "problem": None,
    "waiting": 0,
    "live": [],
    "sent": None,
    "seen": None,
}


def test_the_camera_that_was_chosen_is_sent(after):
    assert after("press", "open", "user", "open") == SENDS_THE_FRONT


def test_of_two_quick_changes_the_second_holds(after):
    steps = ["press", "open", "user", "environment", "user", "open", "open", "open"]
    assert after(*steps) == SENDS_THE_FRONT


def test_a_change_while_the_first_camera_opens_holds(after):
    assert after("press", "user", "open", "open") == SENDS_THE_FRONT


@pytest.mark.parametrize("answer", ["open", "refuse"])
def test_stop_while_another_camera_opens_leaves_nothing_open_and_no_problem(after, answer):
    assert after("press", "open", "user", "press", answer) == STOPPED


def test_start_after_a_stop_while_another_camera_opened_sends(after):
    steps = ["press", "open", "user", "press", "press", "open", "open"]
    assert after(*steps) == SENDS_THE_FRONT


def test_a_camera_that_cannot_be_opened_is_said(after):
    found = after("press", "open", "user", "refuse")
    assert found["state"] == "stopped"
    assert "no such camera" in found["problem"]["todo"]
    assert found["live"] == []
