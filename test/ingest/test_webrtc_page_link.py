# SPDX-License-Identifier: Apache-2.0
"""The camera page's link without a browser, on a line that drops out and heals."""

from __future__ import annotations

import pytest
from page_modules import needs_node, run_beside

from worldsystem_ingest.webrtc.page import WEB

pytestmark = needs_node

# A connected link on a clock of its own that drops out and heals so many times within a second: how
# often it asks the server in the minute after, and in a minute of the connection that follows.
_DROPOUTS = """
let now = 0;
let timers = [];
let checks = 0;
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
    sender = { getParameters: () => ({ encodings: [] }), setParameters: async () => {} };
    addTransceiver() { return { sender: this.sender }; }
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
  fetch: async (path, { method }) => {
    if (path.startsWith("/camera/session/")) {
      checks += 1;
      return { ok: true, json: async () => ({ reason: "" }) };
    }
    const headers = { get: () => "/whip/session/1" };
    return { status: method === "POST" ? 201 : 200, text: async () => "answer", headers };
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
async function checksInAMinute() {
  checks = 0;
  await pass(60_000);
  return checks;
}

const { Link } = await import("./link.js");
const states = [];
const link = new Link({ stream: "", token: "", onState: (state) => states.push(state) });
await link.start({ getVideoTracks: () => [{ getSettings: () => ({}) }] });
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
    told = run_beside(WEB, tmp_path, _DROPOUTS, dropouts)
    assert told["first"] == pytest.approx(30, abs=1)  # every two seconds
    assert told["second"] == pytest.approx(30, abs=1)
    assert told["stopped"] == 0
    assert told["states"][-1] == "sending"
