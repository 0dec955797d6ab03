// SPDX-License-Identifier: Apache-2.0
// The page: camera and settings on one side, the link and the sensors on the other.

import { Link } from "./link.js";
import { Sensors } from "./sensors.js";

const SETTINGS = ["camera", "resolution", "stream", "send-motion", "send-position"];
const element = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);

let link = null;
let sensors = null;
let media = null;
let wakeLock = null;
let turn = Promise.resolve(); // cameras are opened one after the other
let token = asked.get("token") ?? "";

// What tests and the browser's console can see.
const seen = (window.camera = { state: "idle", figures: null, problem: null });

element("start").addEventListener("click", () => (link ? stop() : start()));
element("camera").addEventListener("change", changeCamera);
element("resolution").addEventListener("change", changeCamera);
element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = element("token").value;
  start();
});
window.addEventListener("pagehide", () => link?.stop());
document.addEventListener("visibilitychange", () => !document.hidden && link && keepAwake());
setInterval(showFigures, 1000);
recallSettings();
if (!navigator.mediaDevices?.getUserMedia) show("idle", noCamera());

async function start() {
  stop();
  element("start").disabled = true;
  show("connecting");
  const stream = element("stream").value.trim();
  sensors = new Sensors({ stream, token, facesUser: facesUser(), onChange: showSensors });
  // before any wait: iOS allows motion only within the press of the button
  sensors.start({ motion: element("send-motion").checked, position: element("send-position").checked });
  turn = turn.then(() => begin(stream));
  await turn;
  element("start").disabled = false;
}

async function begin(stream) {
  try {
    media = await openCamera();
    preview();
    link = new Link({ stream, token, onState: linkChanged });
    await link.start(media);
    element("start").dataset.on = "true";
    element("start").textContent = "Stop";
    rememberSettings();
    keepAwake();
  } catch (error) {
    stop();
    show("stopped", problemOf(error));
  }
}

function stop() {
  link?.stop();
  sensors?.stop();
  media?.getTracks().forEach((track) => track.stop());
  wakeLock?.release().catch(() => {});
  link = sensors = media = wakeLock = null;
  element("preview").srcObject = null;
  element("hint").hidden = false;
  element("start").dataset.on = "false";
  element("start").textContent = "Start";
  element("sensors").textContent = "–";
  show("idle");
}

function linkChanged(state, problem) {
  if (state === "stopped") stop();
  show(state, problem);
}

async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("", "NoMediaDevices");
  const [width, height] = element("resolution").value.split("x").map(Number);
  const opened = await navigator.mediaDevices.getUserMedia({
    audio: false,
    video: {
      facingMode: { ideal: element("camera").value },
      width: { ideal: width },
      height: { ideal: height },
      frameRate: { ideal: 30 },
    },
  });
  opened.getVideoTracks()[0].addEventListener("ended", () => {
    if (media !== opened) return;
    stop();
    show("stopped", { what: "The camera was taken away", todo: "Another app may use it; close that and press Start." });
  });
  return opened;
}

function preview() {
  element("preview").srcObject = media;
  element("preview").classList.toggle("mirrored", facesUser());
  element("hint").hidden = true;
}

function changeCamera() {
  rememberSettings();
  turn = turn.then(openOther);
}

async function openOther() {
  if (!link) return;
  const before = media;
  const mine = link; // Stop may be pressed while the camera opens, and Start again
  media = null;
  before?.getTracks().forEach((track) => track.stop()); // many phones open only one camera at a time
  try {
    const opened = await openCamera();
    if (link !== mine) {
      opened.getTracks().forEach((track) => track.stop());
      return;
    }
    media = opened;
    preview();
    sensors.facesUser = facesUser();
    await link.start(media);
  } catch (error) {
    if (link !== mine) return;
    stop();
    show("stopped", problemOf(error));
  }
}

function facesUser() {
  return element("camera").value === "user";
}

async function keepAwake() {
  try {
    wakeLock = await navigator.wakeLock?.request("screen");
  } catch {
    wakeLock = null; // low battery, for instance; the screen may then go dark
  }
}

function show(state, problem = null) {
  Object.assign(seen, { state, problem });
  const words = { idle: "ready", connecting: "connecting", waiting: "trying again", sending: "sending", stopped: "stopped" };
  element("state").dataset.state = state;
  element("state").textContent = words[state];
  element("problem").hidden = !problem;
  element("token-form").hidden = !problem?.token;
  element("problem-what").textContent = problem?.what ?? "";
  element("problem-do").textContent = problem?.todo ?? "";
}

async function showFigures() {
  const figures = (await link?.figures()) ?? null;
  seen.figures = figures;
  if (!figures || seen.state !== "sending") {
    for (const id of ["bitrate", "fps", "size", "codec", "rtt"]) element(id).textContent = "–";
    return;
  }
  element("bitrate").textContent = `${figures.mbps.toFixed(1)} Mbit/s`;
  element("fps").textContent = Math.round(figures.fps);
  element("size").textContent = figures.width ? `${figures.width}×${figures.height}` : "–";
  element("codec").textContent = figures.codec || "–";
  element("rtt").textContent = figures.rttMs === null ? "–" : `${Math.round(figures.rttMs)} ms`;
}

function showSensors(kinds) {
  const words = { imu: "motion", attitude: "compass", gps: "position", battery: "battery" };
  element("sensors").textContent = kinds.map((kind) => words[kind]).join(", ");
  element("sensors").title = element("sensors").textContent;
}

function noCamera() {
  return {
    what: "The browser gives this page no camera",
    todo: "It does so only on https, or on localhost. Give the server a certificate (its parameters tls_certificate and tls_key) and open this page with https.",
  };
}

function problemOf(error) {
  if (error.name === "NoMediaDevices") return noCamera();
  if (error.name === "NotAllowedError") return { what: "The camera is not allowed", todo: "Allow it in the browser's settings for this page (often at the lock beside the address), then press Start." };
  if (error.name === "NotFoundError") return { what: "No camera was found", todo: "Plug one in, or choose another one in the settings." };
  if (error.name === "NotReadableError") return { what: "The camera is in use", todo: "Close the other app or page that uses it, then press Start." };
  if (error.name === "OverconstrainedError") return { what: "The camera cannot do that", todo: "Choose another resolution in the settings." };
  return { what: "The camera could not be started", todo: `${error.name}: ${error.message}` };
}

function recallSettings() {
  for (const id of SETTINGS) {
    const value = asked.get(id) ?? stored().getItem(id);
    if (value === null) continue;
    const field = element(id);
    if (field.type === "checkbox") field.checked = value === "true";
    else field.value = value;
    if (field.tagName === "SELECT" && field.selectedIndex < 0) field.selectedIndex = 0;
  }
}

function rememberSettings() {
  for (const id of SETTINGS) {
    const field = element(id);
    stored().setItem(id, field.type === "checkbox" ? field.checked : field.value);
  }
}

// A browser that keeps nothing for pages refuses even to be asked.
function stored() {
  try {
    return localStorage;
  } catch {
    return { getItem: () => null, setItem: () => {} };
  }
}
