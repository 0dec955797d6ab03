// SPDX-License-Identifier: Apache-2.0
// Puts the page together: messages go to the layer that shows them.

import { CameraLayer } from "./camera.js";
import { Connection } from "./connection.js";
import { MeshLayer } from "./mesh.js";
import { ObjectsLayer } from "./objects.js";
import { PointsLayer } from "./points.js";
import { Stage } from "./scene.js";
import { StatusBar } from "./status.js";
import { TrajectoryLayer } from "./trajectory.js";
import { VideoInset } from "./video.js";

const element = (id) => document.getElementById(id);

const stage = openStage();
const mesh = new MeshLayer(stage);
const path = new TrajectoryLayer(stage);
const camera = new CameraLayer(stage);
const points = new PointsLayer(stage);
const objects = new ObjectsLayer(stage);
const video = new VideoInset(element("video"), element("picture"), element("seen"));
const status = new StatusBar(element("status"), {
  connection: element("connection"),
  tracking: element("tracking"),
  scale: element("scale"),
});
const counts = { poses: 0, keyframes: 0 };
let framedRadius = 0;
let userMoved = false;

const show = {
  Hello: ({ resumed }) => {
    if (resumed) return;
    for (const layer of [mesh, path, camera, points, objects, video]) layer.clear();
  },
  MeshUpdate: (message) => mesh.update(message),
  MeshCode: (message) => mesh.decode(message),
  PathUpdate: (message) => path.update(message),
  PoseUpdate: (message) => {
    counts.poses += 1;
    camera.pose(message);
    status.pose(message);
  },
  KeyframesUpdate: (message) => {
    counts.keyframes = message.id.length;
    camera.frames(message);
  },
  PointsUpdate: (message) => points.update(message),
  ImageUpdate: (message) => video.image(message),
  TracksUpdate: (message) => video.show(message),
  ObjectsUpdate: (message) => objects.update(message),
  StatusUpdate: ({ values }) => {
    status.values = values;
    if (Array.isArray(values.up)) stage.turnUpright(values.up);
  },
};

const connection = new Connection({
  onMessage: (message) => show[message.kind]?.(message),
  onState: (state) => status.connection(state),
});

const toggles = {
  mesh: (on) => { mesh.group.visible = on; },
  wire: (on) => { mesh.material.wireframe = on; },
  points: (on) => { points.cloud.visible = on; },
  path: (on) => { path.group.visible = on; },
  keyframes: (on) => {
    camera.showKeyframes = on;
    camera.reshape();
  },
  objects: (on) => objects.show(on),
  video: (on) => video.enable(on),
  follow: (on) => { camera.following = on; },
};

// Without WebGL there is nothing to show; say so instead of leaving an empty page.
function openStage() {
  try {
    return new Stage(element("stage"));
  } catch (error) {
    element("hint").textContent = "This browser cannot draw in 3D: WebGL is switched off or missing.";
    throw error;
  }
}

function setToggle(button, on) {
  button.setAttribute("aria-pressed", String(on));
  toggles[button.dataset.toggle](on);
  stage.redraw();
}

function press(button) {
  setToggle(button, button.getAttribute("aria-pressed") !== "true");
}

function resetView() {
  userMoved = false;
  setToggle(document.querySelector('[data-toggle="follow"]'), false);
  stage.show(mesh.box().union(path.box()));
}

const buttons = [...document.querySelectorAll("[data-toggle]")];
for (const button of buttons) button.addEventListener("click", () => press(button));
element("reset").addEventListener("click", resetView);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "r") resetView();
  else if (event.key === "f") press(document.querySelector('[data-toggle="follow"]'));
  else if (buttons[Number(event.key) - 1]) press(buttons[Number(event.key) - 1]);
});
camera.onUserMoves = () => {
  userMoved = true;
  if (camera.following) setToggle(document.querySelector('[data-toggle="follow"]'), false);
};

// Until somebody takes the view in hand, it widens as the world grows.
function keepInView() {
  const box = mesh.box().union(path.box());
  if (box.isEmpty()) return;
  const radius = 0.5 * box.max.distanceTo(box.min);
  camera.scaleTo(2 * radius);
  if (userMoved || camera.following || (radius < 1.2 * framedRadius && radius > 0.5 * framedRadius)) return;
  framedRadius = radius;
  stage.show(box);
}

function everySecond() {
  if (document.hidden) return;
  element("hint").hidden = mesh.triangles > 0 || path.length > 0;
  keepInView();
  status.show({
    drawn: stage.frames,
    triangles: mesh.triangles,
    objects: objects.count,
    bytes: connection.bytes,
    ...counts,
  });
}
setInterval(everySecond, 1000);
everySecond();

window.worldsystem = {
  get triangles() { return mesh.triangles; },
  get vertices() { return mesh.vertices; },
  get coarseBlocks() { return mesh.coarse; },
  get frames() { return stage.frames; },
  get connected() { return connection.connected; },
  get pathLength() { return path.length; },
  get objects() { return objects.count; },
  get pictures() { return video.pictures; },
  get drawnObjects() { return mesh.group.children.length; },
};
