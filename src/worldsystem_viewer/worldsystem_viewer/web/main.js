// SPDX-License-Identifier: Apache-2.0
// Puts the page together: messages go to the layer that shows them, and layers to their buttons.

import { CameraLayer } from "./camera.js";
import { Card } from "./card.js";
import { Connection, recall, remember } from "./connection.js";
import { TYPED_INTO } from "./fly.js";
import { Grid } from "./grid.js";
import { Labels } from "./labels.js";
import { Measure } from "./measure.js";
import { MeshLayer } from "./mesh.js";
import { ObjectsLayer } from "./objects.js";
import { Picker } from "./picker.js";
import { PointsLayer } from "./points.js";
import { Stage, hasSize } from "./scene.js";
import { screenshot } from "./screenshot.js";
import { Search } from "./search.js";
import { SplatsLayer } from "./splats.js";
import { StatusBar } from "./status.js";
import { Timeline } from "./timeline.js";
import { TrajectoryLayer } from "./trajectory.js";
import { VideoInset } from "./video.js";

const element = (id) => document.getElementById(id);
const WAITING = element("hint-text").textContent;
const ANEW = "The map begins anew: measure again";
let refused = false; // the hint says why, and stays until the page is let in

const stage = openStage();
document.body.dataset.software = stage.software;
const labels = new Labels(stage);
const grid = new Grid(stage);
const mesh = new MeshLayer(stage);
const path = new TrajectoryLayer(stage);
const camera = new CameraLayer(stage);
const points = new PointsLayer(stage);
const splats = new SplatsLayer(stage, () => connection.token);
const objects = new ObjectsLayer(stage, labels);
const status = new StatusBar(element("status"), {
  connection: element("connection"), tracking: element("tracking"), scale: element("scale"),
});
const measure = new Measure(stage, labels, (value) => status.length(value));
const video = new VideoInset({
  figure: element("video"), canvas: element("picture"), caption: element("seen"),
  onPicture: (bitmap) => camera.show(bitmap),
  onPick: (id) => choose(id, { look: true }),
});
const card = new Card({
  length: (value, unit) => status.length(value, unit),
  onClose: () => choose(null),
  onFocus: () => lookAt(objects.chosen),
});
// What can stand for the surface; another layer adds itself here and a button to #surface.
const surfaces = { mesh: mesh.group, points: points.group, splats: splats.group };
const counts = { poses: 0 };
let surface = "mesh";
let worlds = 0; // that the server told of before this one
let framedRadius = 0;
let userMoved = false;
let theme = "auto";

const show = {
  Hello: ({ resumed }) => {
    const chosen = objects.chosen;
    for (const layer of [camera, points, objects, video]) layer.clear();
    objects.chosen = chosen; // until the new list shows whether it is still there
    if (!resumed) {
      for (const layer of [mesh, path, measure]) layer.clear();
      for (const layer of [splats, status, video]) layer.forget();
      framedRadius = 0; // what comes may lie elsewhere
    }
    splats.recover();
    tellLayers();
    timeline.refresh();
    search.refresh();
  },
  MeshUpdate: (message) => mesh.update(message),
  MeshCode: (message) => mesh.decode(message),
  PathUpdate: (message) => path.update(message),
  PoseUpdate: (message) => {
    counts.poses += 1;
    camera.pose(message);
    const metric = status.metric;
    status.pose(message);
    if (status.metric === metric) return; // else the world has grown and turned away from under them
    forgetLengths(status.metric ? "The size is known now: measure again" : ANEW);
  },
  KeyframesUpdate: (message) => {
    camera.frames(message);
    points.frames(message);
    if (message.worlds === worlds) return;
    worlds = message.worlds; // keyframes of this one may have come with the end of the one before
    forgetLengths(ANEW);
  },
  PointsUpdate: (message) => points.update(message),
  ImageUpdate: (message) => video.image(message),
  TracksUpdate: (message) => video.show(message),
  ObjectsUpdate: (message) => {
    objects.update(message);
    search.refresh();
    const chosen = objects.find(objects.chosen);
    if (!chosen) {
      choose(null);
      return;
    }
    card.show(chosen);
    connection.tell({ object: chosen.id });
  },
  ObjectDetail: (message) => card.take(message),
  FoundUpdate: (message) => search.take(message),
  TimelineUpdate: (message) => timeline.take(message),
  StatusUpdate: ({ values }) => {
    status.values = values;
    if (Array.isArray(values.up)) stage.turnUpright(values.up);
  },
};

const search = new Search(element("query"), element("matches"), {
  ask: (text) => connection.tell({ find: text }),
  onFound: (ids) => objects.match(ids),
  onStep: (id) => choose(id, { look: true }),
});
const timeline = new Timeline(
  element("timeline"),
  { slider: element("slider"), clock: element("clock"), live: element("live"), play: element("play") },
  {
    seek: (ns) => connection.tell({ seek: ns }),
    onPast: (past) => {
      status.looksBack(past);
      element("video-name").textContent = past ? "Camera then" : "Live camera";
    },
  },
);
const connection = new Connection({
  onMessage: (message) => show[message.kind]?.(message),
  onState: (state) => {
    status.connection(state);
    if (state === "lost") splats.doubt();
    if (state !== "connected") return;
    refused = false; // it was let in
    element("hint-text").textContent = WAITING;
  },
  onRefused: (reason) => {
    if (reason === "version") hint("The server was renewed: reload this page");
    else if (reason === 503) hint("As many people as the server allows are watching already. Trying again …");
    else if (reason === 403) hint("Anybody could lead this name to this machine: open the page by the machine's address, or set viewer.token_file. Trying again …");
    else if (reason === "line") hint("The server is there, but no line to it opens: a proxy in between must hand on WebSockets and the Host. Trying again …");
    else if (!element("token").open) element("token").showModal();
  },
});
element("token").addEventListener("close", () => connection.useToken(element("token-text").value));

new Picker(stage, {
  mesh, objects, measure,
  onChoose: (id) => choose(id),
  onMeasured: () => toast(measure.points.length % 2 ? "Now the second point" : status.length(measure.distances.at(-1))),
});

const toggles = {
  path: (on) => { path.group.visible = on; },
  keyframes: (on) => {
    camera.showKeyframes = on;
    camera.touch();
  },
  objects: (on) => objects.show(on),
  video: (on) => {
    video.enable(on);
    camera.showPicture(on);
    tellLayers();
  },
  grid: (on) => grid.show(on),
  wire: (on) => { mesh.material.wireframe = on; },
  measure: (on) => {
    measure.on = on;
    if (!on) measure.clear();
    stage.element.dataset.cursor = on ? "cross" : "";
    if (on) toast("Pick two points on the surface");
  },
};

// Without WebGL there is nothing to show; say so instead of leaving an empty page.
function openStage() {
  try {
    return new Stage(element("stage"));
  } catch (error) {
    hint("This browser cannot draw in 3D: WebGL is switched off or missing.");
    throw error;
  }
}

function hint(text) {
  refused = true;
  element("hint").hidden = false;
  element("hint-text").textContent = text;
}

function toast(text) {
  element("toast").textContent = text;
  element("toast").hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { element("toast").hidden = true; }, 2500);
}

function forgetLengths(why) {
  if (!measure.points.length) return;
  measure.clear();
  toast(why);
}

function tellLayers() {
  const wanted = [];
  if (surface === "points") wanted.push("points");
  if (video.enabled) wanted.push("image");
  connection.tell({ layers: wanted });
}

function choose(id, { look = false } = {}) {
  const item = objects.find(id);
  objects.choose(item ? id : null);
  if (!item) {
    card.close();
    return;
  }
  card.show(item);
  connection.tell({ object: id });
  if (look) lookAt(id);
}

function lookAt(id) {
  const item = objects.find(id);
  if (!item) return;
  setMode("orbit");
  userMoved = true;
  const centre = stage.world.localToWorld(objects.centre(item));
  stage.focusClear(centre, 2.2 * item.extent.length(), (eye, way) => mesh.distance(eye, way));
}

const pressed = (button) => button.getAttribute("aria-pressed") === "true";
const toggleOf = (name) => document.querySelector(`[data-toggle="${name}"]`);

function setToggle(name, on) {
  toggleOf(name).setAttribute("aria-pressed", String(on));
  toggles[name](on);
  stage.redraw();
}

function setSurface(name) {
  surface = name;
  for (const [key, group] of Object.entries(surfaces)) group.visible = key === name;
  for (const button of document.querySelectorAll("[data-surface]")) {
    button.setAttribute("aria-pressed", String(button.dataset.surface === name));
  }
  tellLayers();
  stage.redraw();
}

function setMode(name) {
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === name));
  }
  camera.following = name === "follow";
  stage.setMode(name);
  if (name !== "orbit") userMoved = true;
  stage.redraw();
}

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  theme = name;
  remember("localStorage", "theme", name);
  grid.paint();
}

function nextTheme() {
  const order = ["auto", "light", "dark"];
  const name = order[(order.indexOf(theme) + 1) % 3];
  setTheme(name);
  toast({ auto: "Light or dark as the system", light: "Light", dark: "Dark" }[name]);
}

function resetView() {
  setMode("orbit");
  userMoved = false;
  stage.show(whole());
}

function whole() {
  return mesh.core().union(path.box());
}

for (const button of document.querySelectorAll("[data-toggle]")) {
  button.addEventListener("click", () => setToggle(button.dataset.toggle, !pressed(button)));
}
for (const button of document.querySelectorAll("[data-surface]")) {
  button.addEventListener("click", () => setSurface(button.dataset.surface));
}
for (const button of document.querySelectorAll("[data-mode]")) {
  button.addEventListener("click", () => setMode(pressed(button) ? "orbit" : button.dataset.mode));
}
element("reset").addEventListener("click", resetView);
element("screenshot").addEventListener("click", () => screenshot(stage));
element("theme").addEventListener("click", nextTheme);
element("help").addEventListener("click", () => element("keys").showModal());
element("open-layers").addEventListener("click", () => element("layers").classList.toggle("open"));

const keys = {
  r: resetView,
  f: () => setMode(camera.following ? "orbit" : "follow"),
  g: () => setMode(stage.flight.looking ? "orbit" : "fly"),
  m: () => setToggle("measure", !measure.on),
  p: () => screenshot(stage),
  t: nextTheme,
  l: () => timeline.look(null),
  " ": () => timeline.toggle(),
  "?": () => element("keys").showModal(),
  "/": () => element("query").focus(),
  Escape: () => {
    choose(null);
    setToggle("measure", false);
    search.clear();
  },
};
const numbered = [...document.querySelectorAll("#layers button")];
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches(`${TYPED_INTO}, dialog *`)) return;
  if (event.key === " " && event.target.closest("button")) return; // it presses the button
  const act = keys[event.key] ?? (numbered[Number(event.key) - 1] && (() => numbered[Number(event.key) - 1].click()));
  if (!act) return;
  event.preventDefault();
  act();
});
stage.onUserMoves = () => {
  userMoved = true;
  if (camera.following) setMode("orbit");
};
stage.onRestored = () => {
  mesh.rebuildAll();
  splats.pool.restore();
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => grid.paint());
setTheme(recall("localStorage", "theme") ?? "auto");

// Until somebody takes the view in hand, it widens as the world grows.
function keepInView() {
  const box = whole();
  if (!hasSize(box)) return;
  const radius = 0.5 * box.max.distanceTo(box.min);
  camera.scaleTo(2 * radius);
  grid.lieUnder(mesh.core().applyMatrix4(stage.world.matrixWorld));
  stage.reach(box);
  if (userMoved || camera.following || timeline.at !== null || (radius < 1.15 * framedRadius && radius > 0.5 * framedRadius)) return;
  framedRadius = radius;
  stage.show(box);
}

function everySecond() {
  if (document.hidden) return;
  element("hint").hidden = !refused && (mesh.triangles > 0 || path.length > 0);
  mesh.keepNearest();
  keepInView();
  status.show({
    drawn: stage.frames,
    triangles: mesh.triangles,
    objects: objects.count,
    bytes: connection.bytes + splats.bytes,
    keyframes: camera.poses.size,
    grid: grid.square,
    ...counts,
  });
}
setInterval(everySecond, 1000);
everySecond();

// For tests and measurements.
window.worldsystem = {
  stage, mesh, connection, timeline, splats,
  get triangles() { return mesh.triangles; },
  get vertices() { return mesh.vertices; },
  get coarseBlocks() { return mesh.coarse; },
  get frames() { return stage.frames; },
  get connected() { return connection.connected; },
  get pathLength() { return path.length; },
  get objects() { return objects.count; },
  get pictures() { return video.pictures; },
  get drawnObjects() { return mesh.group.children.length; },
  get points() { return points.count; },
  get keyframes() { return camera.poses.size; },
  get matches() { return objects.matches && objects.matches.size; },
  get chosen() { return objects.chosen; },
  get distances() { return measure.distances; },
};
