// SPDX-License-Identifier: Apache-2.0
// The WebSocket to the server: reconnects with back-off and says how far the page had come.

import { decode } from "./protocol.js";

const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 8000;

export class Connection {
  // `onMessage(message)` for each message, `onState("connected" | "connecting" | "lost")`.
  constructor({ onMessage, onState }) {
    this.onMessage = onMessage;
    this.onState = onState;
    this.session = "";
    this.change = 0;
    this.connected = false;
    this.bytes = 0;
    this.waitMs = FIRST_WAIT_MS;
    this.wish = meshWish();
    document.addEventListener("visibilitychange", () => this.tell({ visible: !document.hidden }));
    this.open();
  }

  open() {
    this.onState("connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.tell({ session: this.session, change: this.change, ...this.wish });
      this.tell({ visible: !document.hidden });
    };
    socket.onmessage = ({ data }) => this.take(data);
    socket.onclose = () => this.retry();
  }

  take(data) {
    this.bytes += data.byteLength;
    const message = decode(data);
    if (message.kind === "Hello") {
      this.connected = true;
      this.waitMs = FIRST_WAIT_MS;
      this.session = message.session;
      if (!message.resumed) this.change = 0;
      this.onState("connected");
    } else if (message.kind === "MeshUpdate" || message.kind === "MeshCode") {
      this.change = message.change;
    }
    this.onMessage(message);
  }

  retry() {
    this.connected = false;
    this.onState("lost");
    setTimeout(() => this.open(), this.waitMs * (0.75 + 0.5 * Math.random()));
    this.waitMs = Math.min(2 * this.waitMs, LONGEST_WAIT_MS);
  }

  tell(wish) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(wish));
  }
}

// How the surface is to come: `?mesh=raw` or `?mesh=code`, and `?mbps=0.5` of the line at most.
function meshWish() {
  const given = new URLSearchParams(location.search);
  const wish = {};
  if (given.has("mesh")) wish.mesh = given.get("mesh");
  if (given.has("mbps")) wish.mbps = Number(given.get("mbps"));
  return wish;
}
