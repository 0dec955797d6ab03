// SPDX-License-Identifier: Apache-2.0
// The video's way to the server: WHIP (RFC 9725), and again with back-off when it breaks.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;
const GATHER_MS = 1500;
const CONNECT_MS = 10000;
const LOST_MS = 4000; // "disconnected" often heals by itself
const CHECK_MS = 2000;
const ANSWER_MS = 3000;
const BITS_PER_PIXEL = 5; // the most that is sent: 4.6 Mbit/s at 720p, 10.4 at 1080p
const REPLACED = "another sender took the stream";

export class Link {
  // `onState(state, problem)`: state is "connecting", "waiting", "sending" or "stopped"; a problem
  // is { what, todo, token } and tells why. A link that stopped by itself is not tried again.
  constructor({ stream, token, onState }) {
    this.stream = stream;
    this.token = token;
    this.onState = onState;
    this.waitMs = FIRST_WAIT_MS;
    this.media = null;
    this.connection = null;
    this.session = "";
    this.attempt = 0;
  }

  // Begin to send `media`, or go on with another one, such as the other camera's.
  async start(media) {
    const [track] = media.getVideoTracks();
    this.media = media;
    const sender = this.connection?.getSenders()[0];
    if (sender && this.connection.connectionState === "connected") {
      await sender.replaceTrack(track);
      await tune(sender, track);
    } else {
      this.connect();
    }
  }

  stop() {
    this.attempt += 1;
    clearTimeout(this.timer);
    this.media = null;
    this.hangUp();
  }

  // Figures of the last second; null while nothing is sent.
  async figures() {
    const reports = await this.connection?.getStats();
    if (!reports || !this.media) return null;
    let sent, codec, pair;
    for (const report of reports.values()) {
      if (report.type === "outbound-rtp" && report.kind === "video") sent = report;
      if (report.type === "candidate-pair" && report.nominated) pair = report;
    }
    if (!sent) return null;
    if (sent.codecId) codec = reports.get(sent.codecId)?.mimeType.replace("video/", "");
    const before = this.before;
    this.before = sent;
    const seconds = before ? (sent.timestamp - before.timestamp) / 1000 : 0;
    return {
      mbps: seconds > 0 ? ((sent.bytesSent - before.bytesSent) * 8e-6) / seconds : 0,
      fps: sent.framesPerSecond ?? 0,
      width: sent.frameWidth ?? 0,
      height: sent.frameHeight ?? 0,
      codec: codec ?? "",
      rttMs: pair?.currentRoundTripTime === undefined ? null : pair.currentRoundTripTime * 1000,
      limited: sent.qualityLimitationReason ?? "none",
    };
  }

  async connect() {
    this.hangUp();
    const attempt = ++this.attempt;
    this.onState("connecting");
    const connection = new RTCPeerConnection({ iceServers: [] });
    this.connection = connection;
    this.before = undefined;
    connection.onconnectionstatechange = () => this.changed(attempt, connection);
    try {
      await this.offer(connection, attempt);
    } catch (error) {
      if (attempt === this.attempt) this.failed(error);
    }
  }

  async offer(connection, attempt) {
    const [track] = this.media.getVideoTracks();
    const transceiver = connection.addTransceiver(track, { direction: "sendonly", streams: [this.media] });
    preferH264(transceiver);
    await connection.setLocalDescription(await connection.createOffer());
    await gathered(connection);
    const path = this.stream ? `/whip/${encodeURIComponent(this.stream)}` : "/whip";
    const response = await fetch(path, {
      method: "POST",
      headers: { ...this.authorization(), "Content-Type": "application/sdp" },
      body: connection.localDescription.sdp,
      signal: within(CONNECT_MS),
    });
    const text = await response.text();
    const session = response.status === 201 ? response.headers.get("Location").split("/").pop() : "";
    if (attempt !== this.attempt) {
      if (session) this.release(session);
      return;
    }
    if (!session) throw new Refused(response.status, text.trim());
    this.session = session;
    // before the answer is taken: it may be connected while the rest is still awaited
    this.timer = setTimeout(() => this.lost(attempt), CONNECT_MS);
    await connection.setRemoteDescription({ type: "answer", sdp: text });
    await tune(transceiver.sender, track);
  }

  changed(attempt, connection) {
    if (attempt !== this.attempt) return;
    const state = connection.connectionState;
    if (state === "new" || state === "connecting") return; // the time for it goes on
    clearTimeout(this.timer);
    if (state === "connected") {
      this.waitMs = FIRST_WAIT_MS;
      this.onState("sending");
      if (this.checked !== attempt) this.check(attempt); // else it does so already
      this.checked = attempt;
    } else if (state === "disconnected") {
      this.timer = setTimeout(() => this.lost(attempt), LOST_MS);
    } else if (state === "failed" || state === "closed") {
      this.lost(attempt);
    }
  }

  // Ask the server now and then: some browsers take long to notice that it ended the session.
  async check(attempt, failures = 0) {
    const reason = await this.reason();
    if (attempt !== this.attempt) return;
    const unanswered = reason === null ? failures + 1 : 0;
    if (reason || unanswered > 1) this.ended(reason);
    else this.checkTimer = setTimeout(() => this.check(attempt, unanswered), CHECK_MS);
  }

  async lost(attempt) {
    if (attempt !== this.attempt) return;
    const reason = await this.reason();
    if (attempt === this.attempt) this.ended(reason);
  }

  ended(reason) {
    if (reason === REPLACED) {
      this.giveUp({ what: "Another device sends to this stream now", todo: "Press Start to take it over, or give this phone a stream of its own in the settings." });
    } else {
      this.retry({ what: "The connection was lost", todo: reason || "It is tried again by itself; keep the phone within reach of the network." });
    }
  }

  failed(error) {
    if (!(error instanceof Refused)) {
      this.retry({ what: "The server cannot be reached", todo: "It is tried again by itself; is the phone still in the server's network, and does WorldSystem run?" });
    } else if (error.status === 401) {
      this.giveUp({ what: "The server asks for a token", todo: "Whoever runs the server knows it (its parameter token_file).", token: true });
    } else if (error.status === 503 || error.status === 408 || error.status === 504) {
      this.retry({ what: "The server is busy", todo: error.message });
    } else {
      this.giveUp({ what: `The server refused the video (${error.status})`, todo: error.message });
    }
  }

  retry(problem) {
    this.hangUp();
    this.attempt += 1;
    this.onState("waiting", problem);
    const waitMs = this.waitMs * (0.75 + 0.5 * Math.random());
    this.waitMs = Math.min(2 * this.waitMs, LONGEST_WAIT_MS);
    this.timer = setTimeout(() => this.media && this.connect(), waitMs);
  }

  giveUp(problem) {
    this.stop();
    this.onState("stopped", problem);
  }

  hangUp() {
    clearTimeout(this.timer);
    clearTimeout(this.checkTimer);
    if (this.connection) this.connection.onconnectionstatechange = null;
    this.connection?.close();
    this.connection = null;
    if (this.session) this.release(this.session);
    this.session = "";
  }

  release(session) {
    const path = `/whip/session/${session}`;
    fetch(path, { method: "DELETE", headers: this.authorization(), keepalive: true }).catch(() => {});
  }

  // Why the server ended the session; empty while it has not, null when it does not answer.
  async reason() {
    try {
      const response = await fetch(`/camera/session/${this.session}`, {
        headers: this.authorization(),
        signal: within(ANSWER_MS),
      });
      return response.ok ? (await response.json()).reason : "the server does not know this session any more";
    } catch {
      return null;
    }
  }

  authorization() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }
}

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// A signal that ends a request after a time; browsers before 2022 know none and wait.
function within(ms) {
  return AbortSignal.timeout?.(ms);
}

function preferH264(transceiver) {
  const codecs = RTCRtpSender.getCapabilities?.("video")?.codecs;
  if (!codecs || !transceiver.setCodecPreferences) return;
  const isH264 = ({ mimeType }) => mimeType.toLowerCase() === "video/h264";
  transceiver.setCodecPreferences([...codecs.filter(isH264), ...codecs.filter((c) => !isH264(c))]);
}

// A map needs the same camera in every picture: under pressure the rate falls, not the size.
async function tune(sender, track) {
  const { width = 1280, height = 720 } = track.getSettings();
  try {
    const parameters = sender.getParameters();
    parameters.degradationPreference = "maintain-resolution";
    for (const encoding of parameters.encodings) encoding.maxBitrate = width * height * BITS_PER_PIXEL;
    await sender.setParameters(parameters);
  } catch {
    // not every browser lets one choose
  }
}

function gathered(connection) {
  return new Promise((resolve) => {
    setTimeout(resolve, GATHER_MS);
    connection.addEventListener("icegatheringstatechange", () => connection.iceGatheringState === "complete" && resolve());
    if (connection.iceGatheringState === "complete") resolve();
  });
}
