const floats = (text) => new Float32Array(bytesOf(text).buffer);
const K = DATA.names.length, P = DATA.colours.length;
const weights = floats(DATA.weights), offsets = floats(DATA.offsets), modes = floats(DATA.modes), edges = bytesOf(DATA.edges), betas = floats(DATA.edgeBeta);
const chosen = { mode: 0, amount: 0, edge: DATA.pairs ? [...edges.slice(0, 4)] : null, keypoint: -1 };

// ---- shape -------------------------------------------------------------------------------------
const viewer = $("viewer"), pen = viewer.getContext("2d");
const view = { rotation: DATA.view, zoom: 1, centre: [0, 0, 0] };

function shape() {
  const amount = chosen.amount * Math.sqrt(DATA.modeVariances[chosen.mode] || 0);
  return DATA.shape.map((x, k) => x.map((v, i) => v + amount * (modes[(chosen.mode * K + k) * 3 + i] || 0)));
}

// The normal of the plane of coplanar keypoints, as long as their scale; 0 elsewhere (see surface_map.py).
function normal(keypoints) {
  const [a, b] = DATA.plane.map((row) => [0, 1, 2].map((i) => row.reduce((sum, w, k) => sum + w * keypoints[k][i], 0)));
  const length = Math.sqrt(Math.hypot(...a) * Math.hypot(...b)) || 1;
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]].map((v) => v / length);
}

function cloud(keypoints) {
  const n = normal(keypoints);
  return DATA.colours.map((_, j) => {
    const p = n.map((v) => offsets[j] * v);
    for (let k = 0; k < K; k++) for (let i = 0; i < 3; i++) p[i] += weights[j * K + k] * keypoints[k][i];
    return p;
  });
}

const product = (m, n) => m.map((row) => [0, 1, 2].map((j) => row[0] * n[0][j] + row[1] * n[1][j] + row[2] * n[2][j]));

function place(p) {
  const c = p.map((v, i) => v - view.centre[i]);
  const q = view.rotation.map((row) => row[0] * c[0] + row[1] * c[1] + row[2] * c[2]);
  const scale = 0.78 * viewer.height * view.zoom * 3 / (3 + q[2]);
  return [viewer.width / 2 + scale * q[0], viewer.height / 2 + scale * q[1], q[2]];
}

// Keypoints and cloud fill most of the viewer, names at their right included.
function fit() {
  const points = [...shape().filter((_, k) => DATA.present[k]), ...cloud(shape())];
  view.centre = [0, 1, 2].map((i) => (Math.max(...points.map((p) => p[i])) + Math.min(...points.map((p) => p[i]))) / 2);
  const reach = points.map(place).map((q) => Math.max(Math.abs(q[0] / viewer.width - 0.5) * 1.3, Math.abs(q[1] / viewer.height - 0.5)));
  view.zoom = 0.46 / Math.max(...reach);
}

function stroke(from, to, colour, width) {
  const [a, b] = [place(from), place(to)];
  pen.beginPath();
  pen.moveTo(a[0], a[1]);
  pen.lineTo(b[0], b[1]);
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.stroke();
}

function disc(q, radius, fill, edge) {
  pen.beginPath();
  pen.arc(q[0], q[1], radius, 0, 2 * Math.PI);
  pen.fillStyle = fill;
  pen.fill();
  if (edge) { pen.strokeStyle = edge; pen.lineWidth = 1.5; pen.stroke(); }
}

function drawPlane() {
  pen.beginPath();
  [[-1, -1], [-1, 1], [1, 1], [1, -1]].forEach(([y, z], i) => pen[i ? "lineTo" : "moveTo"](...place([0, 0.5 * y, 0.5 * z]).slice(0, 2)));
  pen.fillStyle = "rgba(200, 60, 60, 0.06)";
  pen.fill();
}

function draw() {
  const keypoints = shape();
  pen.clearRect(0, 0, viewer.width, viewer.height);
  if (DATA.mirrored) drawPlane();
  const items = keypoints.map((p, k) => ({ q: place(p), k })).filter((item) => DATA.present[item.k]);
  if ($("showCloud").checked) cloud(keypoints).forEach((p, j) => items.push({ q: place(p), colour: DATA.colours[j] }));
  items.sort((s, t) => t.q[2] - s.q[2]);
  for (const { q, k, colour } of items) {
    if (k === undefined) disc(q, 4.2 - 1.5 * q[2], `rgb(${colour})`);
    else disc(q, k === chosen.keypoint ? 9 : 6, keypointColour(k), "#000");
  }
  if (chosen.edge) {
    stroke(keypoints[chosen.edge[0]], keypoints[chosen.edge[1]], "#0b62a4", 3);
    stroke(keypoints[chosen.edge[2]], keypoints[chosen.edge[3]], "#d1495b", 3);
  }
  ["#d33", "#2a2", "#36f"].forEach((colour, i) => stroke([0, 0, 0], [0, 1, 2].map((n) => (n === i ? 0.15 : 0)), colour, 2));
  if ($("showNames").checked) for (const { q, k } of items.filter((item) => item.k !== undefined)) {
    pen.font = k === chosen.keypoint ? "bold 13px sans-serif" : "12px sans-serif";
    pen.fillStyle = `rgba(20, 25, 35, ${q[2] < 0.1 ? 1 : 0.5})`;
    nameBeside(pen, DATA.names[k], q, 9);
  }
}

fit();
let drag = null;
viewer.addEventListener("pointerdown", (e) => { drag = [e.clientX, e.clientY]; viewer.setPointerCapture(e.pointerId); });
viewer.addEventListener("pointerup", () => { drag = null; });
viewer.addEventListener("pointermove", (e) => {
  if (!drag) return;
  const [s, t] = [(e.clientX - drag[0]) / 150, (e.clientY - drag[1]) / 150];
  drag = [e.clientX, e.clientY];
  const yaw = [[Math.cos(s), 0, -Math.sin(s)], [0, 1, 0], [Math.sin(s), 0, Math.cos(s)]];
  const pitch = [[1, 0, 0], [0, Math.cos(t), -Math.sin(t)], [0, Math.sin(t), Math.cos(t)]];
  view.rotation = product(pitch, product(yaw, view.rotation));
  draw();
});
viewer.addEventListener("wheel", (e) => { e.preventDefault(); view.zoom *= Math.exp(-e.deltaY / 800); draw(); }, { passive: false });
DATA.modeVariances.forEach((v, m) => $("mode").append(element("option", { value: m }, `${m + 1} (sd ${Math.sqrt(v).toFixed(3)})`)));
function moveMode() {
  chosen.mode = Number($("mode").value || 0);
  chosen.amount = Number($("amount").value);
  $("amountText").textContent = `${chosen.amount.toFixed(1)} sd`;
  draw();
}
for (const id of ["mode", "amount"]) $(id).addEventListener("input", moveMode);
for (const id of ["showCloud", "showNames"]) $(id).addEventListener("change", draw);

// ---- keypoints ---------------------------------------------------------------------------------
const swatch = (k) => element("span", {}, element("span", { class: "swatch", style: `background:${keypointColour(k)}` }), DATA.names[k]);
table($("keypoints"), ["name", "mirror", "images", "mean cosine", "sd"], DATA.names.map((_, k) => DATA.present[k]
  ? [swatch(k), DATA.flip[k] === k ? "itself" : DATA.names[DATA.flip[k]], fixed(DATA.seen[k], 0), fixed(DATA.mu[k]), fixed(DATA.sd[k])]
  : [swatch(k), "absent", fixed(DATA.seen[k], 0), "–", "–"]), (k) => { chosen.keypoint = k; draw(); });

// ---- Beta statistics ---------------------------------------------------------------------------
function betaMoments(alpha, beta) {
  const mean = alpha / (alpha + beta);
  return [mean, Math.sqrt(mean * (1 - mean) / (alpha + beta + 1))];
}

function curve(alpha, beta, low) {
  const points = [], logs = [];
  for (let i = 1; i < 200; i++) logs.push([i / 200, (alpha - 1) * Math.log(i / 200) + (beta - 1) * Math.log(1 - i / 200)]);
  const top = Math.max(...logs.map((l) => l[1]));
  for (const [u, l] of logs) points.push([low + u * (1 - low), Math.exp(l - top)]);
  return points;
}

// Row and orientation of the pair (ab, cd) in the table: which edges are exchanged or reversed there.
function findPair([a, b, c, d]) {
  for (let n = 0; n < DATA.pairs; n++) {
    const e = edges.subarray(4 * n, 4 * n + 4);
    for (const [p, q, r, s, swapped] of [[a, b, c, d, false], [c, d, a, b, true]]) {
      const first = e[0] === p && e[1] === q ? 1 : e[0] === q && e[1] === p ? -1 : 0;
      const second = e[2] === r && e[3] === s ? 1 : e[2] === s && e[3] === r ? -1 : 0;
      if (first && second) return { n, swapped, sign: first * second };
    }
  }
  return null;
}

function shapeValues([a, b, c, d]) {
  const v = (s, t) => DATA.shape[t].map((x, i) => x - DATA.shape[s][i]);
  const [e, f] = [v(a, b), v(c, d)], [le, lf] = [Math.hypot(...e), Math.hypot(...f)];
  return [le / (le + lf), (e[0] * f[0] + e[1] * f[1] + e[2] * f[2]) / (le * lf)];
}

function drawPair() {
  const found = findPair(chosen.edge), [ratio, cosine] = shapeValues(chosen.edge);
  ["ratio", "cosine"].forEach((id) => $(id).replaceChildren());
  if (!found) {
    $("edgeText").textContent = "this pair has no statistics (never seen together, or one edge twice)";
    draw();
    return;
  }
  let [ra, rb, ca, cb] = betas.subarray(4 * found.n, 4 * found.n + 4);
  if (found.swapped) [ra, rb] = [rb, ra];
  if (found.sign < 0) [ca, cb] = [cb, ca];
  const [rm, rs] = betaMoments(ra, rb), [cm, cs] = betaMoments(ca, cb);
  $("edgeText").textContent = `length ratio ${fixed(rm)} ± ${fixed(rs)}, cosine ${fixed(2 * cm - 1)} ± ${fixed(2 * cs)}; mean shape ${fixed(ratio)}, ${fixed(cosine)}`;
  const size = { width: 380, height: 230, y: "relative density" };
  lineChart($("ratio"), [{ colour: "#0b62a4", points: curve(ra, rb, 0) }, { colour: "#d1495b", points: [[ratio, 0], [ratio, 1]] }], { ...size, x: "|edge 1| / (|edge 1| + |edge 2|)", xRange: [0, 1] });
  lineChart($("cosine"), [{ colour: "#0b62a4", points: curve(ca, cb, -1) }, { colour: "#d1495b", points: [[cosine, 0], [cosine, 1]] }], { ...size, x: "cosine of the angle", xRange: [-1, 1] });
  draw();
}

function showPair(pair) {
  chosen.edge = [...pair];
  ["a", "b", "c", "d"].forEach((id, i) => { $(id).value = pair[i]; });
  drawPair();
}

if (DATA.pairs) {
  for (const id of ["a", "b", "c", "d"]) {
    DATA.names.forEach((name, k) => DATA.present[k] && $(id).append(element("option", { value: k }, name)));
    $(id).addEventListener("change", () => { chosen.edge = ["a", "b", "c", "d"].map((i) => Number($(i).value)); drawPair(); });
  }
  const spread = Array.from({ length: DATA.pairs }, (_, n) => [n, betaMoments(betas[4 * n], betas[4 * n + 1])[1]]);
  const loose = spread.sort((s, t) => t[1] - s[1]).slice(0, 12);
  const name = (n) => { const e = [...edges.subarray(4 * n, 4 * n + 4)].map((k) => DATA.names[k]); return `${e[0]} – ${e[1]} | ${e[2]} – ${e[3]}`; };
  table($("loose"), ["pair", "sd of ratio"], loose.map(([n, sd]) => [name(n), fixed(sd, 3)]), (i) => showPair(edges.subarray(4 * loose[i][0], 4 * loose[i][0] + 4)));
  showPair(edges.subarray(0, 4));
} else $("edgeText").textContent = "the model holds none";

// ---- training images ---------------------------------------------------------------------------
function card(image) {
  const frame = element("div", { class: "frame" });
  if (image.picture) {
    const svg = element("svg", { viewBox: `0 0 ${image.width} ${image.height}` });
    for (const [k, x, y, dx, dy] of image.points) {
      const r = 0.016 * Math.max(image.width, image.height);
      svg.append(element("line", { x1: x, y1: y, x2: x + dx, y2: y + dy, stroke: keypointColour(k), "stroke-width": r / 2 }));
      svg.append(element("circle", { cx: x, cy: y, r, fill: "none", stroke: "#000", "stroke-width": r / 1.4 }));
      svg.append(element("circle", { cx: x, cy: y, r, fill: "none", stroke: keypointColour(k), "stroke-width": r / 2.2 }, element("title", {}, DATA.names[k])));
    }
    frame.append(element("img", { src: image.picture, alt: image.name }), svg);
  }
  return element("div", { class: image.bad ? "card bad" : "card" }, frame, element("b", {}, image.name), element("br"),
    `error ${fixed(100 * image.error, 1)} % (${fixed(image.pixels, 1)} px), weight ${fixed(image.weight)}`, element("br"),
    `worst: ${image.worst}, ${fixed(image.worstPixels, 1)} px`);
}
DATA.images.forEach((image) => $("images").append(card(image)));
if (!DATA.images.length) $("images").append("The model does not say (built without a report).");

// ---- the rest ----------------------------------------------------------------------------------
facts($("facts"), DATA.facts);
for (const text of DATA.warnings) $("messages").append(element("p", { class: "warn" }, text));
lineChart($("views"), [{ colour: "#0b62a4", marks: true, points: DATA.views }], { width: 420, xRange: [-180, 180], x: "azimuth (degrees)", y: "elevation (degrees)" });
table($("calibration"), ["", "value"], DATA.calibration.map(([name, value]) => [name, fixed(value, 3)]));
if (DATA.left.length) table($("left"), ["image", "reason"], DATA.left);
else $("left").append("nothing");
moveMode();
document.body.dataset.ready = "yes";
