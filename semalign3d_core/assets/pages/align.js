const canvas = $("picture"), context = canvas.getContext("2d");
const picture = new Image();
const shown = { keypoint: 0, ghost: null };
const zoom = Math.max(1, Math.min(3, 620 / Math.max(DATA.width, DATA.height)));
canvas.width = Math.round(DATA.width * zoom);
canvas.height = Math.round(DATA.height * zoom);
const place = (p) => [(p[0] + 0.5) * zoom, (p[1] + 0.5) * zoom];

function dot(p, radius, fill, stroke) {
  context.beginPath();
  context.arc(...place(p), radius, 0, 2 * Math.PI);
  if (fill) { context.fillStyle = fill; context.fill(); }
  if (stroke) { context.strokeStyle = stroke; context.lineWidth = 2; context.stroke(); }
}

function paintMap(brush, k, factor) {
  const { cells, side, offset } = DATA.grid, values = bytesOf(DATA.maps[k]);
  const layer = document.createElement("canvas");
  layer.width = layer.height = cells;
  const pixels = layer.getContext("2d").createImageData(cells, cells);
  values.forEach((v, i) => pixels.data.set([255, 60 + v / 2, 0, v * 0.75], 4 * i));
  layer.getContext("2d").putImageData(pixels, 0, 0);
  brush.imageSmoothingEnabled = true;
  brush.drawImage(layer, -offset[0] * factor, -offset[1] * factor, side * factor, side * factor);
}

function draw() {
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (DATA.picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  else { context.fillStyle = "#777"; context.fillRect(0, 0, canvas.width, canvas.height); }
  if ($("showMap").checked && DATA.maps[shown.keypoint]) paintMap(context, shown.keypoint, zoom);
  if ($("showCloud").checked) DATA.cloud.forEach(([x, y, front]) => dot([x, y], 1.6, `hsl(205 90% ${25 + 55 * front}% / 0.8)`));
  if (shown.ghost) shown.ghost.forEach((p, k) => dot(p, 5, null, keypointColour(DATA.ghostIndex[k])));
  if ($("showKeypoints").checked) DATA.keypoints.forEach((point, k) => {
    if (!point.pixel) return;
    dot(point.pixel, k === shown.keypoint ? 7 : 5, point.visible ? keypointColour(k) : null, point.visible ? "#000" : keypointColour(k));
    if (!$("showNames").checked) return;
    context.font = "12px sans-serif";
    context.lineWidth = 3;
    context.fillStyle = "#fff";
    nameBeside(context, point.name, place(point.pixel), 8, "#000");
  });
}

function named(k) {
  return element("span", {}, element("span", { class: "swatch", style: `background:${keypointColour(k)}` }), DATA.keypoints[k].name);
}

facts($("facts"), [["image", DATA.image], ["category", DATA.category], ["found", DATA.found ? "yes" : "no"], ["confidence", fixed(DATA.confidence)],
  ["energy", fixed(DATA.energy, 3)], ["focal length", `${fixed(DATA.focal, 0)} px`], ["scale", DATA.scaleKind]]);
if (!DATA.found) $("messages").append(element("p", { class: "banner" }, `${DATA.category} was not found in this image; what follows is the best guess`));
if (DATA.undetermined) $("messages").append(element("p", { class: "warn" }, `The pose about the axis (${DATA.undetermined.map((v) => fixed(v)).join(", ")}) is not determined.`));
const rows = DATA.keypoints.map((p, k) => [named(k), fixed(p.pixel && p.pixel[0], 1), fixed(p.pixel && p.pixel[1], 1), p.visible ? "yes" : "no", fixed(p.confidence)]);
const keypointTable = table($("keypoints"), ["name", "x", "y", "visible", "confidence"], rows, (k) => { shown.keypoint = k; draw(); });
keypointTable.choose(0);
table($("terms"), ["term", "value"], Object.entries(DATA.terms).map(([name, value]) => [name, fixed(value, 4)]));
const meanings = {
  pose: "probability that the pose is right", keypoints: "that at least 80 % of the keypoints are", present: "that the object is there",
  found: "that it is there and its pose is right (the confidence)",
  energy: "energy less the bonus of the depth order", margin: "margin to the best other pose", fit: "similarity below its points against the expected one",
  contrast: "how far it stands out from elsewhere in the mask", depth: "agreement with the order in depth", evidence: "mean likelihood of the keypoints",
  deformation: "deformation, in standard deviations", cover: "share of the mask that is covered", inside: "share of the cloud inside the mask",
  masked: "with a mask (1) or without", with_depth: "with a depth map (1) or without", lead: "lead of the best start over the best other pose",
};
table($("probabilities"), ["", "value"], Object.entries(DATA.probabilities).map(([name, value]) => [meanings[name] || name, fixed(value, 3)]));
const phases = DATA.phases.map(([first, starts], n) => ({
  name: `${starts} ${starts === 1 ? "start" : "starts"}`, colour: ["#8a94a6", "#3b86c4", "#0b2f57"][Math.min(n, 2)],
  points: DATA.trace.map((v, i) => [i, v]).slice(first, n + 1 < DATA.phases.length ? DATA.phases[n + 1][0] : DATA.trace.length),
}));
lineChart($("trace"), phases, { x: "step", y: "energy of the best start", wholeX: true });
for (const phase of phases) $("phases").append(element("span", { class: "swatch", style: `background:${phase.colour}` }), `${phase.name}   `);

function ghostTable(target, items, head) {
  if (!items.length) { $(target).append("not recorded"); return; }
  table($(target), head, items.map((item, i) => [String(i + 1), fixed(item.score, 3)]), (i) => { shown.ghost = items[i].points; draw(); });
}
ghostTable("startTable", DATA.starts, ["start", "score (higher is better)"]);
ghostTable("candidateTable", DATA.candidates, ["solution", "score (lower is better)"]);

// Small pictures: paint(context, scale) draws over the dimmed picture; pick() is called when one is clicked.
const thumbSide = 168, thumbZoom = thumbSide / Math.max(DATA.width, DATA.height);
function thumbnail(target, caption, paint, pick) {
  const small = element("canvas", { width: Math.round(DATA.width * thumbZoom), height: Math.round(DATA.height * thumbZoom) });
  $(target).append(element("figure", { class: "thumb", onclick: pick }, small, element("figcaption", {}, caption)));
  return () => {
    const brush = small.getContext("2d");
    brush.fillStyle = "#fff";
    brush.fillRect(0, 0, small.width, small.height);
    brush.globalAlpha = 0.55;
    if (DATA.picture) brush.drawImage(picture, 0, 0, small.width, small.height);
    brush.globalAlpha = 1;
    paint(brush);
  };
}
function dots(points) {
  return (brush) => points.forEach((p, k) => {
    if (!p || p[0] === null) return;
    brush.beginPath();
    brush.arc((p[0] + 0.5) * thumbZoom, (p[1] + 0.5) * thumbZoom, 3.2, 0, 2 * Math.PI);
    brush.fillStyle = keypointColour(DATA.ghostIndex[k]);
    brush.fill();
    brush.strokeStyle = "#000";
    brush.stroke();
  });
}
const thumbnails = [
  ...DATA.starts.slice(0, 6).map((s, i) => thumbnail("starts", `start ${i + 1}: ${fixed(s.score, 3)}`, dots(s.points), () => { shown.ghost = s.points; draw(); })),
  ...DATA.candidates.slice(0, 6).map((s, i) => thumbnail("candidates", `solution ${i + 1}: ${fixed(s.score, 3)}`, dots(s.points), () => { shown.ghost = s.points; draw(); })),
  ...DATA.maps.map((map, k) => map && thumbnail("maps", DATA.keypoints[k].name, (brush) => {
    paintMap(brush, k, thumbZoom);
    const p = DATA.keypoints[k].pixel;
    if (p) { brush.beginPath(); brush.arc((p[0] + 0.5) * thumbZoom, (p[1] + 0.5) * thumbZoom, 4, 0, 2 * Math.PI); brush.strokeStyle = "#000"; brush.lineWidth = 2; brush.stroke(); }
  }, () => keypointTable.choose(k))).filter((t) => t),
];
for (const id of ["showKeypoints", "showNames", "showCloud", "showMap"]) $(id).addEventListener("change", draw);

// The object in 3D: camera frame (x right, y down, z forward), turned about its middle.
const solid = $("solid"), solidPen = solid.getContext("2d"), solidPoints = [...DATA.solid.points, ...DATA.solid.keypoints];
const middle = [0, 1, 2].map((i) => (Math.max(...solidPoints.map((p) => p[i])) + Math.min(...solidPoints.map((p) => p[i]))) / 2);
const reach = Math.max(1e-9, ...solidPoints.map((p) => Math.hypot(...p.map((v, i) => v - middle[i]))));
const turn = { yaw: 0, pitch: 0, zoom: 1 };
function inView(p) {
  const [x, y, z] = p.map((v, i) => (v - middle[i]) / reach);
  const [a, b, c, d] = [Math.cos(turn.yaw), Math.sin(turn.yaw), Math.cos(turn.pitch), Math.sin(turn.pitch)];
  const [u, w] = [a * x + b * z, a * z - b * x];
  const scale = 0.44 * solid.height * turn.zoom * 4 / (4 + c * w - d * y);
  return [solid.width / 2 + scale * u, solid.height / 2 + scale * (c * y + d * w), c * w - d * y];
}
function drawSolid() {
  solidPen.clearRect(0, 0, solid.width, solid.height);
  const items = DATA.solid.points.map((p, j) => ({ q: inView(p), fill: `rgb(${DATA.solid.colours[j]})`, radius: 3.5 }));
  DATA.solid.keypoints.forEach((p, n) => items.push({ q: inView(p), k: DATA.solid.index[n], radius: 6 }));
  items.sort((s, t) => t.q[2] - s.q[2]);
  for (const { q, k, fill, radius } of items) {
    const hidden = k !== undefined && !DATA.keypoints[k].visible;
    solidPen.beginPath();
    solidPen.arc(q[0], q[1], radius, 0, 2 * Math.PI);
    solidPen.fillStyle = k === undefined ? fill : keypointColour(k);
    solidPen.strokeStyle = hidden ? keypointColour(k) : "#000";
    if (!hidden) solidPen.fill();
    if (k !== undefined) { solidPen.lineWidth = 1.5; solidPen.stroke(); }
  }
  solidPen.font = "12px sans-serif";
  solidPen.fillStyle = "#1d2430";
  for (const { q, k } of items) if (k !== undefined) nameBeside(solidPen, DATA.keypoints[k].name, q, 9);
}
let grip = null;
solid.addEventListener("pointerdown", (e) => { grip = [e.clientX, e.clientY]; solid.setPointerCapture(e.pointerId); });
solid.addEventListener("pointerup", () => { grip = null; });
solid.addEventListener("pointermove", (e) => {
  if (!grip) return;
  turn.yaw += (e.clientX - grip[0]) / 150;
  turn.pitch += (e.clientY - grip[1]) / 150;
  grip = [e.clientX, e.clientY];
  drawSolid();
});
solid.addEventListener("wheel", (e) => { e.preventDefault(); turn.zoom *= Math.exp(-e.deltaY / 800); drawSolid(); }, { passive: false });

function drawAll() {
  draw();
  drawSolid();
  thumbnails.forEach((paint) => paint());
  document.body.dataset.ready = "yes";
}
picture.onload = drawAll;
if (DATA.picture) picture.src = DATA.picture;
else drawAll();
