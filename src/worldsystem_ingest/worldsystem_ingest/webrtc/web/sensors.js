// SPDX-License-Identifier: Apache-2.0
// What the phone measures beside the video, sent to /ws/phone.
//
// Body frame: x where the camera looks, y left and z up in the picture (REP-103), whichever way the
// phone is held. Device frame (W3C): x right and y up on the screen in its natural orientation, z
// out of it. Earth frame: x east, y north, z up.

const DEG = Math.PI / 180;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;
const MOST_WAITING_BYTES = 65536;
const BATTERY_EVERY_MS = 30000;
const CLOCK_SLACK_MS = 3;

// The axes of the body in device coordinates; `angleDeg` is screen.orientation.angle.
export function bodyAxes(angleDeg, facesUser) {
  const c = Math.cos(angleDeg * DEG);
  const s = Math.sin(angleDeg * DEG);
  const right = [c, -s, 0];
  const up = [s, c, 0];
  return facesUser
    ? { forward: [0, 0, 1], left: right, up }
    : { forward: [0, 0, -1], left: right.map((v) => -v), up };
}

export function toBody(axes, v) {
  return [dot(axes.forward, v), dot(axes.left, v), dot(axes.up, v)];
}

// Rows of the rotation from device to earth coordinates, from a DeviceOrientationEvent's angles.
export function earthFromDevice(alphaDeg, betaDeg, gammaDeg) {
  const [a, b, g] = [alphaDeg * DEG, betaDeg * DEG, gammaDeg * DEG];
  const [ca, sa, cb, sb, cg, sg] = [Math.cos(a), Math.sin(a), Math.cos(b), Math.sin(b), Math.cos(g), Math.sin(g)];
  return [
    [ca * cg - sa * sb * sg, -sa * cb, ca * sg + sa * sb * cg],
    [sa * cg + ca * sb * sg, ca * cb, sa * sg - ca * sb * cg],
    [-cb * sg, sb, cb * cg],
  ];
}

// Unit quaternion [x, y, z, w] of the rotation from body to earth coordinates.
export function earthFromBody(earth, axes) {
  const columns = [axes.forward, axes.left, axes.up].map((axis) => earth.map((row) => dot(row, axis)));
  const m = (row, column) => columns[column][row];
  const trace = m(0, 0) + m(1, 1) + m(2, 2);
  if (trace > 0) {
    const w = Math.sqrt(1 + trace) / 2;
    return [(m(2, 1) - m(1, 2)) / (4 * w), (m(0, 2) - m(2, 0)) / (4 * w), (m(1, 0) - m(0, 1)) / (4 * w), w];
  }
  const i = [0, 1, 2].reduce((best, n) => (m(n, n) > m(best, best) ? n : best), 0);
  const [j, k] = [(i + 1) % 3, (i + 2) % 3];
  const q = [0, 0, 0, 0];
  q[i] = Math.sqrt(1 + m(i, i) - m(j, j) - m(k, k)) / 2;
  q[j] = (m(j, i) + m(i, j)) / (4 * q[i]);
  q[k] = (m(k, i) + m(i, k)) / (4 * q[i]);
  q[3] = (m(k, j) - m(j, k)) / (4 * q[i]);
  return q;
}

// A message's JSON; the stamp's nanoseconds do not fit a JavaScript number.
export function stamped(message, epochMs) {
  return `${JSON.stringify(message).slice(0, -1)},"timestamp_ns":${Math.round(epochMs * 1000)}000}`;
}

export class Sensors {
  // `onChange(kinds)` gets the names of what is being sent, as often as that changes.
  constructor({ stream, token, facesUser, onChange }) {
    this.stream = stream;
    this.token = token;
    this.facesUser = facesUser;
    this.onChange = onChange;
    this.kinds = new Set();
    this.newest = new Map(); // of what is measured rarely
    this.gravityVotes = 0;
    this.waitMs = FIRST_WAIT_MS;
    this.offsetMs = Date.now() - performance.now();
    this.listening = new AbortController();
  }

  // To be called from a press of a button: some phones ask for leave only then.
  async start({ motion, position }) {
    this.open();
    if (position) this.followPosition();
    this.followBattery();
    if (motion && (await motionAllowed())) this.followMotion();
  }

  stop() {
    this.listening.abort();
    clearTimeout(this.timer);
    clearInterval(this.batteryTimer);
    if (this.watch !== undefined) navigator.geolocation.clearWatch(this.watch);
    this.socket?.close();
  }

  open() {
    const url = new URL("/ws/phone", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    if (this.stream) url.searchParams.set("stream", this.stream);
    if (this.token) url.searchParams.set("token", this.token);
    this.socket = new WebSocket(url);
    this.socket.onopen = () => {
      this.waitMs = FIRST_WAIT_MS;
      for (const [message, epochMs] of this.newest.values()) this.send(message, epochMs);
    };
    this.socket.onclose = () => this.reopen();
  }

  reopen() {
    if (this.listening.signal.aborted) return;
    this.timer = setTimeout(() => this.open(), this.waitMs);
    this.waitMs = Math.min(2 * this.waitMs, LONGEST_WAIT_MS);
  }

  send(message, epochMs) {
    const socket = this.socket;
    if (socket.readyState !== WebSocket.OPEN || socket.bufferedAmount > MOST_WAITING_BYTES) return;
    socket.send(stamped(message, epochMs));
    if (this.kinds.has(message.type)) return;
    this.kinds.add(message.type);
    this.onChange([...this.kinds]);
  }

  // Like send, but not lost while the socket is not open.
  sendRare(message, epochMs) {
    this.newest.set(message.type, [message, epochMs]);
    this.send(message, epochMs);
  }

  // When an event happened, by the clock of the day; steady between that clock's corrections.
  epochMs(event) {
    const offsetMs = Date.now() - performance.now();
    if (Math.abs(offsetMs - this.offsetMs) > CLOCK_SLACK_MS) this.offsetMs = offsetMs;
    return this.offsetMs + event.timeStamp;
  }

  axes() {
    return bodyAxes(screen.orientation?.angle ?? window.orientation ?? 0, this.facesUser);
  }

  followMotion() {
    const { signal } = this.listening;
    window.addEventListener("devicemotion", (event) => this.moved(event), { signal });
    const absolute = "ondeviceorientationabsolute" in window;
    const name = absolute ? "deviceorientationabsolute" : "deviceorientation";
    window.addEventListener(name, (event) => this.turned(event), { signal });
  }

  moved(event) {
    const force = event.accelerationIncludingGravity;
    const rate = event.rotationRate;
    if (force?.x == null || rate?.alpha == null) return;
    const sign = this.gravitySign([force.x, force.y, force.z]);
    const axes = this.axes();
    const acceleration = toBody(axes, [sign * force.x, sign * force.y, sign * force.z]);
    // browsers give the rates about x, y and z under the names of the angles
    const angular_velocity = toBody(axes, [rate.alpha * DEG, rate.beta * DEG, rate.gamma * DEG]);
    this.send({ type: "imu", acceleration, angular_velocity }, this.epochMs(event));
  }

  turned(event) {
    if (event.beta == null || event.gamma == null) return;
    const compass = event.webkitCompassHeading;
    const knowsNorth = event.absolute || compass !== undefined;
    const alpha = compass === undefined ? event.alpha : 360 - compass;
    const earth = earthFromDevice(alpha ?? 0, event.beta, event.gamma);
    this.up = earth[2];
    if (!knowsNorth || alpha == null) return;
    const quaternion = earthFromBody(earth, this.axes());
    this.send({ type: "attitude", quaternion }, this.epochMs(event));
  }

  // A phone at rest measures a force upwards; some systems report it downwards.
  gravitySign(force) {
    if (this.up) this.gravityVotes = 0.99 * this.gravityVotes + dot(force, this.up);
    return this.gravityVotes < 0 ? -1 : 1;
  }

  followPosition() {
    this.watch = navigator.geolocation?.watchPosition(
      ({ coords, timestamp }) => {
        const fix = { type: "gps", latitude: coords.latitude, longitude: coords.longitude, horizontal_error_m: coords.accuracy };
        if (coords.altitude !== null) fix.altitude = coords.altitude;
        if (coords.altitudeAccuracy !== null) fix.vertical_error_m = coords.altitudeAccuracy;
        this.sendRare(fix, timestamp);
      },
      () => {}, // not allowed, or no fix: the video goes on without
      { enableHighAccuracy: true, maximumAge: 1000 },
    );
  }

  async followBattery() {
    const battery = await navigator.getBattery?.();
    if (!battery || this.listening.signal.aborted) return;
    const tell = () => this.sendRare({ type: "battery", charge: battery.level, charging: battery.charging }, Date.now());
    this.batteryTimer = setInterval(tell, BATTERY_EVERY_MS);
    tell();
  }
}

async function motionAllowed() {
  try {
    const ask = window.DeviceMotionEvent?.requestPermission;
    return !ask || (await ask.call(window.DeviceMotionEvent)) === "granted";
  } catch {
    return false;
  }
}

function dot(a, b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}
