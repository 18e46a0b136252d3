// Shared by all pages: elements, colours, small charts.
"use strict";
const $ = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const svg = ["svg", "line", "polyline", "path", "text", "circle", "rect", "g", "title"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  for (const child of children) node.append(child);
  return node;
}

// The palette of the overlays: the same index has the same colour in every picture.
function keypointColour(index) {
  return `hsl(${(0.13 + 0.618034 * index) % 1 * 360} 90% ${index % 2 ? 66 : 52}%)`;
}

// Writes a name beside a place of a canvas: to its left where it would be cut off on the right. outline: colour around the letters, or null.
function nameBeside(context, name, [x, y], gap, outline = null) {
  const width = context.measureText(name).width;
  const left = x + gap + width <= context.canvas.width ? x + gap : Math.max(x - gap - width, 0);
  if (outline) {
    context.strokeStyle = outline;
    context.strokeText(name, left, y + 4);
  }
  context.fillText(name, left, y + 4);
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

function fixed(value, digits = 2) {
  return value === null || value === undefined ? "–" : Number(value).toFixed(digits);
}

function facts(target, pairs) {
  for (const [name, value] of pairs) target.append(`${name} `, element("b", {}, String(value)));
}

// A table from rows of cells; pick(i) is called with the index of a clicked row.
function table(target, head, rows, pick = null) {
  const body = element("tbody");
  const node = element("table", {}, element("thead", {}, element("tr", {}, ...head.map((h) => element("th", {}, h)))), body);
  rows.forEach((cells, i) => {
    const row = element("tr", pick ? { class: "pick", onclick: () => choose(i) } : {}, ...cells.map((c) => element("td", {}, c)));
    body.append(row);
  });
  function choose(i) {
    [...body.children].forEach((row, k) => row.classList.toggle("chosen", k === i));
    pick(i);
  }
  target.append(node);
  return { rows: body.children, choose };
}

// Lines over a common axis: series = [{name, points: [[x, y], ...], colour, marks}]
function lineChart(target, series, { width = 560, height = 260, x = "", y = "", xRange = null, wholeX = false } = {}) {
  const all = series.flatMap((s) => s.points).filter((p) => p[1] !== null);
  target.replaceChildren();
  if (!all.length) { target.append("nothing to draw"); return; }
  const [left, bottom, top, right] = [58, 34, 10, 14];
  let [x0, x1] = xRange || [Math.min(...all.map((p) => p[0])), Math.max(...all.map((p) => p[0]))];
  let [y0, y1] = [Math.min(...all.map((p) => p[1])), Math.max(...all.map((p) => p[1]))];
  if (x1 === x0) x1 = x0 + 1;
  if (y1 === y0) { y0 -= 0.5; y1 += 0.5; }
  const u = (v) => left + (v - x0) / (x1 - x0) * (width - left - right);
  const w = (v) => height - bottom - (v - y0) / (y1 - y0) * (height - bottom - top);
  const svg = element("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}` });
  for (let i = 0; i <= 4; i++) {
    const [along, ty] = [x0 + i * (x1 - x0) / 4, y0 + i * (y1 - y0) / 4];
    const tx = wholeX ? Math.round(along) : along;
    svg.append(element("line", { x1: left, x2: width - right, y1: w(ty), y2: w(ty), stroke: "#e4e7ec" }));
    svg.append(element("text", { x: left - 6, y: w(ty) + 4, "text-anchor": "end" }, Number(ty.toPrecision(3))));
    svg.append(element("text", { x: u(tx), y: height - bottom + 15, "text-anchor": "middle" }, Number(tx.toPrecision(3))));
  }
  svg.append(element("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, x));
  svg.append(element("text", { transform: `translate(12 ${height / 2}) rotate(-90)`, "text-anchor": "middle" }, y));
  for (const s of series) {
    const points = s.points.filter((p) => p[1] !== null);
    if (s.marks) for (const p of points) svg.append(element("circle", { cx: u(p[0]), cy: w(p[1]), r: 3, fill: s.colour }, element("title", {}, p[2] || "")));
    else svg.append(element("polyline", { points: points.map((p) => `${u(p[0])},${w(p[1])}`).join(" "), fill: "none", stroke: s.colour, "stroke-width": 2 }));
  }
  target.append(svg);
}
