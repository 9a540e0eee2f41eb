// Draws the story in #story with uPlot: curves over one time axis, zoomed and pointed at together.
"use strict";

const story = JSON.parse(document.getElementById("story").textContent);
const main = document.getElementById("report");
const STATUS = ["unadapted", "adapting", "adapted", "invalid"];
const MARKS = { swap: "--swap", task: "--task", event: "--event", fresh: "--adapting", gap: "--limit",
                episode: "--line" };
const ORDER = ["episode", "event", "gap", "fresh", "task", "swap"]; // the last ones on top
const TALL = 230, SMALL = 150, STRIP = 64;
const plots = [];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const short = (value) => value == null ? "-" : Number(value.toPrecision(4)).toString();
const clock = (seconds) => `${seconds.toFixed(2)} s`;

function element(parent, tag, text, name) {
  const made = document.createElement(tag);
  if (text != null) made.textContent = text;
  if (name) made.className = name;
  parent.append(made);
  return made;
}

// One zoom for all charts.
let zooming = false;
function zoomAll(min, max) {
  if (zooming) return;
  zooming = true;
  for (const plot of plots) plot.setScale("x", { min, max });
  zooming = false;
}
const whole = () => [story.time[0], Math.max(story.time.at(-1), story.time[0] + 0.1)];

// What happened, as lines through a chart.
function drawMarks(plot) {
  const { ctx, bbox } = plot;
  ctx.save();
  for (const mark of [...story.marks].sort((a, b) => ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind))) {
    const x = plot.valToPos(mark.at, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.strokeStyle = colour(MARKS[mark.kind]);
    ctx.lineWidth = (mark.kind === "episode" ? 1 : 1.5) * devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

function axes() {
  const grid = () => ({ stroke: () => colour("--line"), width: 1 });
  const plain = { stroke: () => colour("--quiet"), ticks: { show: false },
                  font: "12px system-ui, sans-serif" };
  return [
    { ...plain, grid: grid(), size: 30, values: (_, ticks) => ticks.map((t) => `${short(t)} s`) },
    { ...plain, grid: grid(), size: 58, values: (_, ticks) => ticks.map((t) => t == null ? "" : short(t)) },
  ];
}

// A chart in its frame: a title, the values under the pointer, and uPlot.
function chart(parent, title, unit, height, time, curves, more = {}) {
  const frame = element(parent, "section", null, "chart");
  const heading = element(frame, "h3");
  element(heading, "span", unit && unit !== "1" ? `${title} [${unit}]` : title);
  const told = element(heading, "output");
  const values = curves.map((curve) => curve.values);
  const options = {
    width: Math.max(200, frame.clientWidth - 22), height, padding: [8, 26, 0, 0],
    cursor: { sync: { key: "time", scales: ["x", null] }, y: false, points: { size: 6 },
              drag: { x: true, y: false } },
    scales: { x: { time: false, range: (_, min, max) => min == null ? whole() : [min, max] },
              y: { range: more.range ?? ((_, low, high) => spread(low, high, more.limits)),
                   distr: more.log ? 3 : 1 } },
    axes: axes(),
    series: [{}, ...curves.map((curve) => ({
      label: curve.name, stroke: () => colour(curve.colour ?? "--ink"), width: curve.width ?? 1.5,
      dash: curve.dash, points: { show: Boolean(curve.points), size: 7, fill: () => colour(curve.colour) },
      paths: curve.paths, spanGaps: false }))],
    bands: more.bands ?? [],
    hooks: {
      drawClear: [(plot) => more.under?.(plot), drawMarks],
      setScale: [(plot, key) => key === "x" && zoomAll(plot.scales.x.min, plot.scales.x.max)],
      setCursor: [(plot) => { told.textContent = told_at(plot, more.tell); }],
    },
  };
  const plot = new uPlot(options, [time, ...values], frame);
  plot.over.addEventListener("dblclick", () => zoomAll(...whole()));
  plots.push(plot);
  return plot;
}

function told_at(plot, tell) {
  const i = plot.cursor.idx;
  if (i == null) return "";
  if (tell) return tell(plot, i);
  const shown = plot.series.slice(1).map((s, k) => [s.label, plot.data[k + 1][i]]);
  return `${clock(plot.data[0][i])}   ` +
    shown.filter(([, v]) => v != null).map(([name, v]) => `${name} ${short(v)}`).join("   ");
}

// The range of an axis: all values and the limits, with some room.
function spread(low, high, limits = []) {
  const all = [low, high, ...limits].filter((v) => v != null && Number.isFinite(v));
  if (!all.length) return [0, 1];
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const room = (most - least || Math.abs(most) || 1) * 0.06;
  return [least - room, most + room];
}

// Of a logarithmic axis: from one power of ten to another.
function decades(low, high) {
  const [first, last] = [Math.floor(Math.log10(Math.max(low, 1))), Math.ceil(Math.log10(Math.max(high, 10)))];
  return [10 ** first, 10 ** Math.max(last, first + 1)];
}

function level(plot, value, name, dash) {
  if (value == null) return;
  const { ctx, bbox } = plot, y = plot.valToPos(value, "y", true);
  if (y < bbox.top || y > bbox.top + bbox.height) return;
  ctx.save();
  ctx.strokeStyle = colour(name);
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash(dash.map((d) => d * devicePixelRatio));
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
}

function key(parent, entries) {
  const list = element(parent, "div", null, "key");
  for (const [name, variable, kind] of entries) {
    const entry = element(list, "span");
    const sign = element(entry, "i", null, kind);
    sign.style.borderColor = sign.style.background = `var(${variable})`;
    if (kind !== "area") sign.style.background = "none";
    entry.append(name);
  }
}

function head() {
  element(main, "h1", `Session ${story.session}`);
  const when = new Date(1000 * story.began).toISOString().replace("T", " ").slice(0, 19);
  element(main, "p", `${story.policies.join("  →  ")}   ·   ${when} UTC`, "under");
  const facts = element(main, "div", null, "facts");
  for (const [name, value] of Object.entries(story.facts)) {
    const fact = element(facts, "div", null, "fact");
    element(fact, "b", value);
    element(fact, "span", name);
  }
  const help = element(main, "p", "Drag over a chart to look closer; a double click shows all again. ", "help");
  if (story.ticksPerPoint > 1)
    help.append(`Each two points tell the lowest and the highest of ${story.ticksPerPoint} ticks.`);
  const kinds = new Set(story.marks.map((mark) => mark.kind));
  const words = { task: "new task", episode: "episode", swap: "swap", fresh: "memory at the prior",
                  gap: "missing", event: "event" };
  key(main, Object.keys(words).filter((k) => kinds.has(k)).map((k) => [words[k], MARKS[k]]));
}

function belief() {
  if (!story.beliefs.length) return;
  element(main, "h2", "What it believes of the task");
  for (const told of story.beliefs) {
    const [mean, low, high] = told.curves;
    const limits = [told.low, told.high];
    const under = (plot) => limits.forEach((v) => level(plot, v, "--quiet", [2, 4]));
    chart(main, told.title, told.unit, TALL, story.time, [
      { ...mean, colour: "--belief", width: 2 },
      { ...low, width: 0, colour: "--belief" }, { ...high, width: 0, colour: "--belief" },
    ], { bands: [{ series: [3, 2], fill: () => colour("--band") }], under, limits });
  }
  key(main, [["mean", "--belief"], ["two standard deviations", "--band", "area"],
             ["range in meta-training", "--quiet", "dashed"]]);
}

// The status as a strip of colours.
function adaptation() {
  element(main, "h2", "How adapted it is");
  const strip = (plot) => {
    const { ctx, bbox } = plot;
    const edges = story.adaptation.map((status, i) => [story.time[i], status]);
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (let i = 0; i < edges.length;) {
      let end = i + 1;
      while (end < edges.length && edges[end][1] === edges[i][1]) end++;
      const from = plot.valToPos(edges[i][0], "x", true);
      const to = plot.valToPos((edges[end] ?? edges.at(-1))[0], "x", true);
      if (edges[i][1] != null) {
        ctx.fillStyle = colour(`--${STATUS[edges[i][1]]}`);
        ctx.fillRect(from, bbox.top, Math.max(1, to - from), bbox.height);
      }
      i = end;
    }
    ctx.restore();
  };
  const tell = (plot, i) => story.adaptation[i] == null ? "" :
    `${clock(story.time[i])}   ${STATUS[story.adaptation[i]]}`;
  const plot = chart(main, "status", "", STRIP, story.time, [{ name: "status", values: story.adaptation, width: 0 }],
    { under: strip, range: () => [0, 1], tell });
  for (const axis of plot.axes) axis.grid.show = false;
  plot.axes[1].values = () => [];
  plot.redraw(false, true);
  const seen = new Set(story.adaptation);
  key(main, STATUS.map((name, i) => [name, `--${name}`, "area", i]).filter(([, , , i]) => seen.has(i)));
}

function returns() {
  if (!story.episodes.length) return;
  element(main, "h2", "Return per episode");
  const [at, value] = [0, 1].map((k) => story.episodes.map((episode) => episode[k]));
  const tell = (plot, i) => `episode ${i + 1}, over at ${clock(at[i])}   return ${short(value[i])}`;
  chart(main, "return", "", TALL - 40, at, [{ name: "return", values: value, colour: "--return", points: true }], { tell });
}

function actions() {
  element(main, "h2", "Actions and their limits");
  const grid = element(main, "div", null, "grid");
  for (const told of story.actions) {
    const [applied, requested] = told.curves;
    const limits = [told.low, told.high];
    const under = (plot) => limits.forEach((v) => level(plot, v, "--limit", [5, 4]));
    chart(grid, told.title, told.unit, SMALL, story.time, [
      { ...requested, colour: "--requested", width: 1 }, { ...applied, colour: "--applied", width: 1.5 },
    ], { under, limits });
  }
  key(main, [["applied", "--applied"], ["requested", "--requested"], ["limit", "--limit", "dashed"]]);
}

function latency() {
  element(main, "h2", "Time in the daemon");
  const [total, inference] = story.latency.curves;
  chart(main, "from an observation's arrival to its action", story.latency.unit, TALL - 50, story.time, [
    { ...inference, colour: "--inference", width: 1 }, { ...total, colour: "--latency", width: 1.25 },
  ], { log: true, range: (_, low, high) => decades(low ?? 10, high ?? 100) });
  key(main, [["queue and inference", "--latency"], ["inference", "--inference"]]);
}

function happenings() {
  const told = story.marks.filter((mark) => mark.kind !== "episode");
  if (!told.length) return;
  element(main, "h2", "What happened");
  const table = element(main, "table");
  const heads = element(table, "tr");
  for (const name of ["time", "kind", ""]) element(heads, "th", name);
  for (const mark of told) {
    const line = element(table, "tr");
    for (const text of [clock(mark.at), mark.kind, mark.text]) element(line, "td", text);
  }
}

function fit() {
  for (const plot of plots) {
    const width = Math.max(200, plot.root.parentElement.clientWidth - 22);
    if (width !== plot.width) plot.setSize({ width, height: plot.height });
  }
}

head();
belief();
adaptation();
returns();
actions();
latency();
happenings();
fit();
addEventListener("resize", fit);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((p) => p.redraw()));
document.documentElement.dataset.drawn = plots.length; // for who waits for the page
