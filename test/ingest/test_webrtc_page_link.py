# SPDX-License-Identifier: Apache-2.0
"""The camera page's link without a browser, on a line that drops out and heals."""

from __future__ import annotations

import pytest
from page_modules import needs_node, run_beside

from worldsystem_ingest.webrtc.page import WEB

pytestmark = needs_node

# What a link needs of a browser, on a clock of its own: `pass` lets time go by, `tuned` is called
# when a bit rate is set.
_BROWSER = """
let now = 0;
let timers = [];
let tuned = () => {};
const connections = [];
Object.assign(globalThis, {
  setTimeout: (act, ms) => {
    const timer = { act, at: now + ms };
    timers.push(timer);
    return timer;
  },
  clearTimeout: (timer) => { timers = timers.filter((each) => each !== timer); },
  RTCRtpSender: {},
  RTCPeerConnection: class {
    constructor() { connections.push(this); }
    iceGatheringState = "complete";
    localDescription = { sdp: "offer" };
    sender = {
      getParameters: () => ({ encodings: [] }),
      setParameters: async () => { tuned(this); },
    };
    addTransceiver() { return { sender: this.sender }; }
    getSenders() { return [this.sender]; }
    addEventListener() {}
    async createOffer() {}
    async setLocalDescription() {}
    async setRemoteDescription() {}
    close() {}
    become(state) {
      this.connectionState = state;
      this.onconnectionstatechange?.();
    }
  },
});
const settled = () => new Promise(setImmediate);
async function pass(ms) {
  const end = now + ms;
  for (;;) {
    await settled();
    const due = timers.filter(({ at }) => at <= end).sort((one, other) => one.at - other.at)[0];
    if (!due) break;
    timers = timers.filter((each) => each !== due);
    now = due.at;
    due.act();
  }
  now = end;
}
const { Link } = await import("./link.js");
const states = [];
const link = new Link({ stream: "", token: "", onState: (state) => states.push(state) });
const media = { getVideoTracks: () => [{ getSettings: () => ({}) }] };
"""

# A connected link that drops out and heals so many times within a second: how often it asks the
# server in the minute after, and in a minute of the connection that follows.
_DROPOUTS = """
let checks = 0;
globalThis.fetch = async (path, { method }) => {
  if (path.startsWith("/camera/session/")) {
    checks += 1;
    return { ok: true, json: async () => ({ reason: "" }) };
  }
  const headers = { get: () => "/whip/session/1" };
  return { status: method === "POST" ? 201 : 200, text: async () => "answer", headers };
};
async function checksInAMinute() {
  checks = 0;
  await pass(60_000);
  return checks;
}

await link.start(media);
await settled();
connections[0].become("connected");
for (let n = 0; n < JSON.parse(process.argv[2]); n += 1) {
  connections[0].become("disconnected");
  await pass(50);
  connections[0].become("connected");
  await pass(50);
}
const first = await checksInAMinute();
connections[0].become("failed");
await pass(1000);
connections[1].become("connected");
const second = await checksInAMinute();
link.stop();
console.log(JSON.stringify({ first, second, stopped: await checksInAMinute(), states }));
"""


@pytest.mark.parametrize("dropouts", [0, 1, 8])
def test_the_server_is_asked_as_often_after_dropouts_that_healed(tmp_path, dropouts):
    told = run_beside(WEB, tmp_path, _BROWSER + _DROPOUTS, dropouts)
    assert told["first"] == pytest.approx(30, abs=1)  # every two seconds
    assert told["second"] == pytest.approx(30, abs=1)
    assert told["stopped"] == 0
    assert told["states"][-1] == "sending"


# "early": connected while its bit rate is still being set. "overtaken": the first offer is answered
# behind the second. "hangs": connecting, and no more.
_ATTEMPTS = """
const how = JSON.parse(process.argv[2]);
let posts = 0;
let answerFirst = () => {};
const deleted = [];
if (how === "early") tuned = (connection) => connection.become("connected");
globalThis.fetch = async (path, { method }) => {
  if (path.startsWith("/camera/session/")) return { ok: true, json: async () => ({ reason: "" }) };
  if (method === "DELETE") {
    deleted.push(path);
    return {};
  }
  const number = ++posts;
  if (how === "overtaken" && number === 1) await new Promise((go) => { answerFirst = go; });
  const headers = { get: () => `/whip/session/${number}` };
  return { status: 201, text: async () => "answer", headers };
};

await link.start(media);
await settled();
if (how === "overtaken") {
  await link.start(media);
  await settled();
  answerFirst();
  await settled();
  connections[1].become("connected");
}
if (how === "hangs") connections[0].become("connecting");
await pass(15_000);
console.log(JSON.stringify({ connections: connections.length, deleted, states }));
"""


def test_a_link_that_is_connected_at_once_is_kept(tmp_path):
    told = run_beside(WEB, tmp_path, _BROWSER + _ATTEMPTS, "early")
    assert told["connections"] == 1
    assert told["states"] == ["connecting", "sending"]


def test_an_offer_that_was_overtaken_harms_the_next_one_nothing_and_its_session_is_ended(tmp_path):
    told = run_beside(WEB, tmp_path, _BROWSER + _ATTEMPTS, "overtaken")
    assert told["connections"] == 2
    assert told["states"][-1] == "sending"
    assert told["deleted"] == ["/whip/session/1"]


def test_a_link_that_hangs_while_connecting_is_tried_again(tmp_path):
    told = run_beside(WEB, tmp_path, _BROWSER + _ATTEMPTS, "hangs")
    assert told["connections"] >= 2
    assert "waiting" in told["states"]
