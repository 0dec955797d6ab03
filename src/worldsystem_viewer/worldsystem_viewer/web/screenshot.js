// SPDX-License-Identifier: Apache-2.0
// The view as a picture, with its background and the names in it.

export async function screenshot(stage) {
  stage.draw();
  const source = stage.renderer.domElement;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [source.width, source.height];
  const ratio = source.width / stage.element.clientWidth;
  const pen = canvas.getContext("2d");
  const sky = pen.createLinearGradient(0, 0, 0, canvas.height);
  for (const [at, name] of [[0, "--sky-top"], [0.46, "--sky-middle"], [1, "--sky-bottom"]]) sky.addColorStop(at, resolved(name));
  pen.fillStyle = sky;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(source, 0, 0);
  for (const label of stage.element.querySelectorAll(".label:not([hidden])")) drawLabel(pen, label, ratio);
  const blob = await new Promise((done) => { canvas.toBlob(done, "image/png"); });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `worldsystem-${new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-")}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function resolved(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

function drawLabel(pen, label, ratio) {
  const { left, top, width, height } = label.getBoundingClientRect();
  const style = getComputedStyle(label);
  pen.fillStyle = style.backgroundColor;
  pen.beginPath();
  pen.roundRect(left * ratio, top * ratio, width * ratio, height * ratio, 0.5 * height * ratio);
  pen.fill();
  pen.fillStyle = style.color;
  pen.font = `600 ${12 * ratio}px system-ui, "DejaVu Sans", sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillText(label.textContent, (left + 0.5 * width) * ratio, (top + 0.5 * height) * ratio);
}
