(() => {
"use strict";

const content = JSON.parse(document.getElementById("content").textContent);
const page = document.getElementById("page");
const DASHES = [[], [8, 4], [3, 3], [10, 3, 2, 3], [5, 5], [14, 5], [2, 6], [8, 3, 2, 3, 2, 3]];
const AXES = {step: "Steps", images: "Images", hours: "Hours of training"};
const CHART_HEIGHT = 260;
const MAX_LEGEND_ENTRIES = 12;
const SCALES = {auto: "Automatic", linear: "Linear", log: "Logarithmic"};
const MIN_LOG_RATIO = 30;
const MAX_PARALLEL_SETTINGS = 9;
const MAX_CELL_LENGTH = 24;
const view = {x: "step", scale: "auto", smoothing: 0};
const charts = [];

// Elements. Text from runs is only ever set as text, never as HTML.

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  setAttributes(node, attributes);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function shape(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAttributes(node, attributes);
  node.append(...children.flat());
  return node;
}

function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
}

function section(title, ...children) {
  const present = children.flat().filter(Boolean);
  if (present.length) page.append(element("section", {}, element("h2", {}, title), present));
}

function table(headings, rows, caption) {
  const head = headings.map((heading) => element("th", {scope: "col", class: heading.isNumber && "number"}, heading.text));
  const body = rows.map((row) => element("tr", {class: row.isChanged && "changed"}, row.cells.map((cell, index) =>
    element(index ? "td" : "th", {scope: !index && "row", class: headings[index].isNumber ? "number" : headings[index].isShort && "short"}, cell))));
  return element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": caption},
    element("table", {}, element("thead", {}, element("tr", {}, head)), element("tbody", {}, body)));
}

// Numbers.

function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(digits - 2);
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  return value.toLocaleString("en-US", {maximumSignificantDigits: digits});
}

function duration(hours) {
  const minutes = hours * 60;
  if (minutes < 1) return `${Math.round(hours * 3600)} s`;
  if (hours < 1) return `${number(minutes, 3)} min`;
  return hours < 48 ? `${number(hours, 3)} h` : `${number(hours / 24, 3)} days`;
}

function bytes(value) {
  return value >= 2 ** 30 ? `${number(value / 2 ** 30, 3)} GiB` : `${number(value / 2 ** 20, 3)} MiB`;
}

function date(seconds) {
  return new Date(seconds * 1000).toLocaleString("en-US", {dateStyle: "medium", timeStyle: "short"});
}

function percent(part, whole) {
  return whole > 0 ? `${(100 * part / whole).toFixed(1)} %` : "–";
}

function isPowerOfTen(value) {
  return Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;
}

function shortName(name) {
  return name.replace(/^metric\//, "");
}

function color(index) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--series-${index % 8}`).trim();
}

function themeColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Curves.

// Returns the points of a curve with increasing x: [x, mean, min, max].
function points(source, x, column) {
  const values = source.columns[column];
  const result = [[], [], [], []];
  source[x].forEach((position, index) => {
    const last = result[0][result[0].length - 1];
    if (position === null || (last !== undefined && position <= last)) return;
    const mean = values.mean[index];
    result[0].push(position);
    result[1].push(mean);
    result[2].push(values.min ? values.min[index] : mean);
    result[3].push(values.max ? values.max[index] : mean);
  });
  return result;
}

function smooth(values, weight) {
  let sum = 0, total = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

function nearestIndex(values, target) {
  let best = 0;
  values.forEach((value, index) => { if (Math.abs(value - target) < Math.abs(values[best] - target)) best = index; });
  return best;
}

class Chart {
  // spec: {title, note, curves: [{label, source, column, index}], realVsReal, best: {step, value}, isMinimized}
  constructor(spec) {
    this.spec = spec;
    this.hidden = new Set();
    this.plotArea = element("div", {tabindex: 0, role: "group", onkeydown: (event) => this.onKey(event),
      "aria-label": `Chart of ${spec.title}. Arrow keys read values, plus and minus zoom, 0 shows everything.`});
    this.legend = element("ul", {class: "legend"});
    this.reading = element("p", {class: "reading", role: "status"});
    const tool = (text, label, action) =>
      element("button", {type: "button", "aria-label": `${label}: ${spec.title}`, title: label, onclick: action}, text);
    this.node = element("figure", {class: "chart", "data-title": spec.title},
      element("header", {}, element("h3", {}, spec.title), element("span", {class: "tools"},
        tool("+", "Zoom in", () => this.zoom(0.5)), tool("−", "Zoom out", () => this.zoom(2)),
        tool("↺", "Show everything", () => this.zoom(Infinity)))),
      this.plotArea, this.legend, this.reading);
    charts.push(this);
  }

  // Curves as they are drawn: those of the scalars, of real images, and the best checkpoint.
  drawnCurves() {
    const {curves, realVsReal, best} = this.spec;
    const drawn = curves.map((curve) => ({label: curve.label, index: curve.index, data: points(curve.source, view.x, curve.column)}));
    const positions = drawn.flatMap((curve) => curve.data[0]);
    if (realVsReal !== null && realVsReal !== undefined && positions.length) {
      const ends = [Math.min(...positions), Math.max(...positions)];
      drawn.push({label: "real images", index: 7, isRealVsReal: true, data: [ends, [realVsReal, realVsReal], [realVsReal, realVsReal], [realVsReal, realVsReal]]});
    }
    if (best && best.value !== null && curves.length === 1) {
      const source = curves[0].source;
      const position = source[view.x][nearestIndex(source.step, best.step)];
      const value = best.value;
      if (position !== null) drawn.push({label: "best", index: 1, isPoint: true, data: [[position], [value], [value], [value]]});
    }
    return drawn.filter((curve) => curve.data[0].length);
  }

  draw() {
    if (this.plot) this.plot.destroy();
    this.plot = null;
    this.curves = this.drawnCurves();
    const positive = this.curves.flatMap((curve) => curve.data[1]).filter((value) => value > 0);
    const isLog = positive.length > 0 && (view.scale === "log" || (view.scale === "auto" && this.isLogBetter(positive)));
    const keep = (values) => isLog ? values.map((value) => value > 0 ? value : null) : values;
    const tables = this.curves.map((curve) => {
      const mean = view.smoothing && !curve.isRealVsReal && !curve.isPoint ? smooth(curve.data[1], view.smoothing) : curve.data[1];
      return [curve.data[0], keep(mean), keep(curve.data[2]), keep(curve.data[3])];
    });
    this.drawLegend();
    const dropped = isLog && this.curves.some((curve) => curve.data[1].some((value) => value !== null && value <= 0));
    this.baseReading = [this.spec.note, dropped && "Values of 0 and below are not shown on a log scale.",
      view.scale === "log" && !isLog && "This chart has no positive values, and is linear."].filter(Boolean).join(" ");
    this.reading.textContent = this.baseReading;
    if (!tables.length) {
      this.plotArea.replaceChildren(element("p", {class: "muted"}, "There is no time or number of images to draw these values over."));
      return;
    }
    this.plotArea.replaceChildren();
    this.plot = new uPlot(this.options(isLog), tables.length > 1 ? uPlot.join(tables) : tables[0], this.plotArea);
    this.fullRange = [this.plot.data[0][0], this.plot.data[0][this.plot.data[0].length - 1]];
  }

  // Returns whether a metric falls so far that a linear scale hides its later values.
  isLogBetter(positive) {
    const low = positive.reduce((a, b) => Math.min(a, b)), high = positive.reduce((a, b) => Math.max(a, b));
    return Boolean(this.spec.isMinimized) && high / low > MIN_LOG_RATIO;
  }

  options(isLog) {
    const axis = {stroke: themeColor("text"), grid: {stroke: themeColor("line"), width: 1}, ticks: {stroke: themeColor("line"), width: 1}};
    const series = [{}], bands = [];
    this.curves.forEach((curve) => {
      const stroke = color(curve.index), isShown = !this.hidden.has(curve.label), first = series.length;
      const hasOnePoint = curve.data[0].length === 1;
      series.push({label: curve.label, stroke, show: isShown, spanGaps: false,
        width: curve.isPoint ? 0 : curve.isRealVsReal ? 1.5 : 2, dash: curve.isRealVsReal ? [4, 4] : DASHES[curve.index % 8],
        points: curve.isPoint ? {show: true, size: 12, width: 3, stroke} : {show: hasOnePoint || undefined, stroke}});
      series.push({show: isShown, width: 0, points: {show: false}}, {show: isShown, width: 0, points: {show: false}});
      bands.push({series: [first + 2, first + 1], fill: `${stroke}33`});
    });
    return {
      width: Math.max(200, this.plotArea.clientWidth), height: CHART_HEIGHT, series, bands,
      legend: {show: false}, cursor: {focus: {prox: 30}, drag: {x: true, y: false}},
      scales: {x: {time: false}, y: {distr: isLog ? 3 : 1}},
      axes: [{...axis, label: AXES[view.x], labelSize: 22, size: 36, values: (plot, ticks) => ticks.map((tick) => number(tick))},
        {...axis, size: 68, grid: {...axis.grid, filter: (plot, ticks) => isLog ? ticks.map((tick) => isPowerOfTen(tick) ? tick : null) : ticks}, values: (plot, ticks) => ticks.map((tick) => tick === null ? "" : Math.abs(tick) >= 1e5 ? tick.toExponential() : number(tick, 3))}],
      hooks: {setCursor: [(plot) => this.read(plot)]},
    };
  }

  drawLegend() {
    if (this.curves.length > MAX_LEGEND_ENTRIES) {
      this.legend.replaceChildren();
      this.outputs = [];
      return;
    }
    this.outputs = this.curves.map(() => element("output", {}));
    this.legend.replaceChildren(...this.curves.map((curve, index) => {
      const dash = curve.isRealVsReal ? "4 4" : DASHES[curve.index % 8].join(" ");
      const mark = curve.isPoint ? shape("circle", {cx: 14, cy: 5, r: 4, fill: "none", stroke: color(curve.index), "stroke-width": 2})
        : shape("line", {x1: 0, x2: 28, y1: 5, y2: 5, stroke: color(curve.index), "stroke-width": 2.5, "stroke-dasharray": dash});
      const swatch = shape("svg", {viewBox: "0 0 28 10", width: 28, height: 10, "aria-hidden": "true"}, mark);
      swatch.style.width = "28px";
      return element("li", {}, element("button", {type: "button", "aria-pressed": String(!this.hidden.has(curve.label)),
        onclick: () => this.toggle(curve.label)}, swatch, curve.label, this.outputs[index]));
    }));
  }

  toggle(label) {
    if (!this.hidden.delete(label)) this.hidden.add(label);
    const focused = [...this.legend.querySelectorAll("button")].indexOf(document.activeElement);
    this.draw();
    if (focused >= 0) this.legend.querySelectorAll("button")[focused].focus();
  }

  // Shows the values at the cursor.
  read(plot) {
    const index = plot.cursor.idx;
    if (index === null || index === undefined) {
      this.outputs.forEach((output) => { output.textContent = ""; });
      this.reading.textContent = this.baseReading;
      return;
    }
    const position = plot.data[0][index];
    const at = `${AXES[view.x]}: ${number(position, 6)}`;
    const values = this.curves.map((curve, order) => plot.data[1 + 3 * order][index]);
    this.outputs.forEach((output, order) => { output.textContent = values[order] === null || values[order] === undefined ? "" : number(values[order]); });
    const focused = this.outputs.length ? -1 : this.nearest(plot, values);
    const detail = focused >= 0 ? `, ${this.curves[focused].label}: ${number(values[focused])}` : "";
    this.reading.textContent = at + detail;
  }

  nearest(plot, values) {
    const target = plot.posToVal(plot.cursor.top, "y");
    let best = -1;
    values.forEach((value, order) => {
      if (typeof value === "number" && (best < 0 || Math.abs(value - target) < Math.abs(values[best] - target))) best = order;
    });
    return best;
  }

  zoom(factor) {
    if (!this.plot) return;
    const {min, max} = this.plot.scales.x, [first, last] = this.fullRange;
    const idx = this.plot.cursor.idx;
    const center = idx === null || idx === undefined ? (min + max) / 2 : this.plot.data[0][idx];
    const half = (max - min) / 2 * factor;
    const range = {min: Math.max(first, center - half), max: Math.min(last, center + half)};
    this.plot.setScale("x", range.max > range.min ? range : {min: first, max: last});
  }

  onKey(event) {
    if (!this.plot) return;
    const move = {ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity}[event.key];
    if (move !== undefined) {
      const xs = this.plot.data[0], {min, max} = this.plot.scales.x;
      let index = Number.isFinite(move) ? this.plot.cursor.idx : null;
      const visible = [xs.findIndex((x) => x >= min), xs.findLastIndex((x) => x <= max)];
      if (index === null || index === undefined) index = visible[move === 1 || move === -Infinity ? 0 : 1];
      else index += move;
      index = Math.max(visible[0], Math.min(visible[1], index));
      this.plot.setCursor({left: this.plot.valToPos(xs[index], "x"), top: CHART_HEIGHT / 3});
    } else if (event.key === "+" || event.key === "=") this.zoom(0.5);
    else if (event.key === "-") this.zoom(2);
    else if (event.key === "0" || event.key === "Escape") this.zoom(Infinity);
    else return;
    event.preventDefault();
  }
}

function drawCharts() {
  charts.forEach((chart) => chart.draw());
}

function curveControls() {
  const select = element("select", {id: "x-axis", onchange: (event) => { view.x = event.target.value; drawCharts(); }},
    Object.entries(AXES).map(([name, label]) => element("option", {value: name}, label)));
  const scale = element("select", {id: "y-scale", onchange: (event) => { view.scale = event.target.value; drawCharts(); }},
    Object.entries(SCALES).map(([name, label]) => element("option", {value: name}, label)));
  const value = element("output", {for: "smoothing"}, "off");
  const slider = element("input", {type: "range", id: "smoothing", min: 0, max: 0.98, step: 0.02, value: 0, oninput: (event) => {
    view.smoothing = Number(event.target.value);
    value.textContent = view.smoothing ? view.smoothing.toFixed(2) : "off";
    drawCharts();
  }});
  return element("div", {class: "controls"}, element("label", {}, "Horizontal axis", select), element("label", {}, "Vertical axis", scale),
    element("label", {}, "Smoothing", slider), value);
}

function chartGrid(specs) {
  return specs.length ? element("div", {class: "charts"}, specs.map((spec) => new Chart(spec).node)) : null;
}

function decimationNote(source) {
  return source.lines_per_point > 1 ? `Each point is the mean of ${source.lines_per_point} lines; the band is their range.` : "";
}

// One run.

function runCharts(run) {
  const groups = new Map();
  for (const source of run.tables) {
    for (const column of Object.keys(source.columns)) {
      if (column.startsWith("resources/")) continue;
      const isMetric = column.startsWith("metric/");
      const group = isMetric || !column.includes("/") ? column : column.split("/")[0];
      if (!groups.has(group)) groups.set(group, {title: groupTitle(group), note: decimationNote(source), curves: []});
      const {curves} = groups.get(group);
      curves.push({label: shortName(column), source, column, index: curves.length});
      const row = run.metrics.find((metric) => metric.name === column);
      if (row) Object.assign(groups.get(group), {realVsReal: row.real_vs_real, isMinimized: row.goal === "MINIMIZE", best: row.best === null ? null : {step: row.best_step, value: row.best}});
    }
  }
  const rank = (name) => name === run.monitor ? 0 : name.startsWith("metric/") ? 1 : name === "loss" ? 2 : name === "images_per_sec" ? 3 : 4;
  return [...groups.keys()].sort((a, b) => rank(a) - rank(b)).map((name) => groups.get(name));
}

function groupTitle(group) {
  return {loss: "Losses", images_per_sec: "Throughput in images per second", penalty: "Penalties", accuracy: "Accuracy", score: "Mean output of the discriminator"}[group] || shortName(group);
}

function picture(url, alt) {
  return element("img", {src: url, alt, onload: (event) => event.target.classList.toggle("pixelated", event.target.naturalWidth < 400)});
}

function hoursAt(run, step) {
  const source = run.tables.find((candidate) => candidate.step.length);
  return source ? source.hours[nearestIndex(source.step, step)] : null;
}

function sampleViewer(run) {
  const grids = run.pictures.grids;
  if (!grids.length) return element("p", {class: "muted"}, "The run has no sample grids yet.");
  const describe = (grid) => {
    const hours = hoursAt(run, grid.step);
    return `Step ${number(grid.step)}${hours === null ? "" : `, after ${duration(hours)}`}`;
  };
  const image = picture("", "");
  const caption = element("figcaption", {role: "status"});
  const slider = element("input", {type: "range", id: "grid", min: 0, max: grids.length - 1, step: 1, "aria-label": "Training step of the samples"});
  const show = (index) => {
    slider.value = index;
    slider.setAttribute("aria-valuetext", describe(grids[index]));
    image.src = grids[index].url;
    image.alt = `Samples at step ${grids[index].step}`;
    caption.textContent = `${describe(grids[index])} (${index + 1} of ${grids.length})`;
  };
  slider.addEventListener("input", () => show(Number(slider.value)));
  let timer = null;
  const play = element("button", {type: "button", onclick: () => {
    if (timer === null && Number(slider.value) === grids.length - 1) show(0);
    timer = timer === null ? setInterval(() => {
      const next = Number(slider.value) + 1;
      if (next < grids.length) show(next); else stop();
    }, 250) : stop();
    play.textContent = timer === null ? "Play" : "Stop";
  }}, "Play");
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; return null; };
  const step = (move) => () => show(Math.max(0, Math.min(grids.length - 1, Number(slider.value) + move)));
  const buttons = element("div", {class: "controls"}, element("button", {type: "button", onclick: step(-1)}, "Previous"),
    element("button", {type: "button", onclick: step(1)}, "Next"), play);
  show(grids.length - 1);
  return element("figure", {}, element("h3", {}, "During training"), image, caption, grids.length > 1 ? [slider, buttons] : null);
}

function bestGrid(run) {
  const grid = run.pictures.grids.find((candidate) => candidate.step === run.pictures.best_grid);
  if (!grid) return null;
  const note = grid.step === run.best_step ? `Step ${number(grid.step)}, the best checkpoint`
    : `Step ${number(grid.step)}, the grid nearest to the best checkpoint (step ${number(run.best_step)})`;
  return element("figure", {}, element("h3", {}, "Best checkpoint"), picture(grid.url, note), element("figcaption", {}, note));
}

function metricTable(run) {
  if (!run.metrics.length) return element("p", {class: "muted"}, "The run has not been evaluated yet.");
  const goals = {MINIMIZE: "lower is better", MAXIMIZE: "higher is better"};
  const headings = [{text: "Metric"}, ...["First", "Last", "Best", "At step", "Real images"].map((text) => ({text, isNumber: true})), {text: "Goal", isShort: true}];
  const rows = run.metrics.map((row) => ({cells: [shortName(row.name) + (row.name === run.monitor ? "\u00a0★" : ""), number(row.first), number(row.last),
    number(row.best), number(row.best_step), number(row.real_vs_real), goals[row.goal] || "–"]}));
  return [table(headings, rows, "Metrics"), element("p", {class: "muted"},
    "★ selects the best checkpoint. Real images are compared with other real images: a perfect generator reaches about this value.")];
}

// The parts of a name with places between them where a line may break.
function breakable(name) {
  return name.split(/(?<=_)/).flatMap((part, index) => index ? [element("wbr"), part] : [part]);
}

function settingsTable(run) {
  const headings = [{text: "Setting"}, {text: "Value"}, {text: "Recipe"}];
  const rows = (settings) => settings.map((row) => ({isChanged: row.differs, cells: [
    element("code", {}, breakable(row.name)), element("code", {}, row.value), row.differs ? element("span", {}, "changed from ", element("code", {}, row.recipe)) : row.recipe === null ? "unknown" : "same"]}));
  const changed = run.settings.filter((row) => row.differs);
  const isKnown = run.settings.some((row) => row.recipe !== null);
  const summary = !isKnown ? `The settings of the recipe ${run.recipe} are not known here, so that differences are not marked.`
    : changed.length ? `${changed.length} of ${run.settings.length} settings differ from the recipe ${run.recipe}:`
    : `All settings are those of the recipe ${run.recipe}, or were filled in for the data and the machine.`;
  return [element("p", {}, summary), changed.length ? table(headings, rows(changed), "Changed settings") : null,
    element("details", {}, element("summary", {}, `All ${run.settings.length} settings`), table(headings, rows(run.settings), "All settings"))];
}

function timeline(run) {
  const sessions = run.sessions;
  if (!sessions.length) return null;
  const first = sessions[0].start, last = Math.max(...sessions.map((session) => session.end));
  const position = (time) => 10 + 980 * (last > first ? (time - first) / (last - first) : 0);
  const bars = sessions.map((session, index) => shape("rect", {x: position(session.start), y: 8,
    width: Math.max(3, position(session.end) - position(session.start)), height: 22, fill: color(index % 2), rx: 3},
    shape("title", {}, `Session ${index + 1}: ${session.reason}`)));
  const chart = shape("svg", {viewBox: "0 0 1000 40", role: "img", "aria-label": `Timeline of ${sessions.length} sessions`},
    shape("line", {x1: 10, x2: 990, y1: 19, y2: 19, stroke: themeColor("line"), "stroke-width": 3, "stroke-dasharray": "4 5"}), bars);
  const headings = [{text: "Session"}, {text: "Start", isShort: true}, {text: "Length", isShort: true}, {text: "Steps", isShort: true}, {text: "Devices", isNumber: true}, {text: "End"}, {text: "Repeated steps", isNumber: true}];
  const rows = sessions.map((session, index) => ({cells: [String(index + 1), date(session.start), duration(session.hours),
    `${number(session.first_step)} to ${number(session.last_step)}`, number(session.num_devices), session.reason, number(session.lost_steps)]}));
  return [chart, table(headings, rows, "Sessions")];
}

function resources(run) {
  const figures = run.sessions.map((session) => session.figures).filter((each) => each.secs);
  if (!figures.length) return null;
  const seconds = {}, peaks = {};
  for (const each of figures) {
    for (const [name, value] of Object.entries(each.secs)) seconds[name] = (seconds[name] || 0) + value;
    for (const [name, value] of Object.entries(each.peak_bytes)) peaks[name] = Math.max(peaks[name] || 0, value);
  }
  const total = Object.values(seconds).reduce((sum, value) => sum + value, 0);
  const bar = (value) => shape("svg", {viewBox: "0 0 100 8", class: "share", preserveAspectRatio: "none", "aria-hidden": "true"},
    shape("rect", {x: 0, y: 0, width: total ? 100 * value / total : 0, height: 8}));
  const labels = {training: "Training", data: "Waiting for data", evaluation: "Evaluation", samples: "Sample grids", checkpoints: "Checkpoints", other: "Other"};
  const headings = [{text: "Activity"}, {text: "Time", isNumber: true}, {text: "Share", isNumber: true}, {text: ""}];
  const rows = Object.entries(seconds).sort((a, b) => b[1] - a[1]).map(([name, value]) =>
    ({cells: [labels[name] || name, duration(value / 3600), percent(value, total), bar(value)]}));
  const memory = Object.entries(peaks).map(([name, value]) => `${bytes(value)} of ${name} memory`).join(", ");
  return [table(headings, rows, "Time by activity"), memory ? element("p", {}, `Peak: ${memory}.`) : null];
}

function tiles(entries) {
  return element("dl", {class: "tiles"}, entries.filter((entry) => entry[1] !== null).map(([name, value]) =>
    element("div", {class: String(value).length > 30 && "long"}, element("dt", {}, name), element("dd", {}, value))));
}

function monitorRow(run) {
  return run.metrics.find((row) => row.name === run.monitor) || null;
}

function state(run) {
  const last = run.sessions[run.sessions.length - 1];
  return last ? last.reason : "not started";
}

function setting(run, name) {
  const row = run.settings.find((candidate) => candidate.name === name);
  return row ? JSON.parse(row.value) : null;
}

function showRun(run) {
  const best = monitorRow(run);
  const images = setting(run, "global_batch_size");
  page.append(element("h1", {}, content.title), element("p", {},
    `Recipe ${run.recipe} on ${setting(run, "dataset")}${setting(run, "dataset_b") ? ` and ${setting(run, "dataset_b")}` : ""}. State: ${state(run)}.`));
  page.append(tiles([
    best ? [`Best ${shortName(best.name)}${best.best_step === null ? "" : `, step ${number(best.best_step)}`}`, number(best.best)] : ["Best", null],
    ["Steps", run.last_step === null ? "none" : `${number(run.last_step)}${run.steps ? ` of ${number(run.steps)}` : ""}`],
    ["Images shown", run.last_step !== null && typeof images === "number" ? number(run.last_step * images) : null],
    ["Time", run.sessions.length ? duration(run.cost.hours) : null],
    ["Device hours", run.sessions.length ? number(run.cost.device_hours, 3) : null],
    ["Price", run.cost.price === null ? null : number(run.cost.price)],
    ...run.facts]));
  if (run.warnings.length) {
    page.append(element("ul", {class: "warnings", "aria-label": "Warnings"}, run.warnings.map((text) => element("li", {}, text))));
  }
  section("Samples", element("div", {class: "samples"}, sampleViewer(run), bestGrid(run)));
  const specs = runCharts(run);
  if (specs.length) section("Curves", curveControls(), chartGrid(specs));
  section("Metrics", metricTable(run));
  if (run.pictures.neighbors) {
    section("Nearest training images", element("figure", {}, picture(run.pictures.neighbors, "Samples and their nearest training images"),
      element("figcaption", {}, "Each row: a sample, and the training images that are nearest to it.")));
  }
  section("Settings", settingsTable(run));
  section("Sessions", timeline(run));
  section("Resources", resources(run));
}

// Several runs.

function names(runs) {
  const parts = runs.map((run) => run.name.split("/"));
  let shared = 0;
  while (parts.every((part) => part.length > shared + 1 && part[shared] === parts[0][shared])) shared += 1;
  return parts.map((part) => part.slice(shared).join("/"));
}

function parseSetting(text) {
  if (text === undefined || text === null) return null;
  const value = JSON.parse(text);
  return typeof value === "number" || typeof value === "string" ? value : value === null ? null : text;
}

function throughput(run) {
  for (const source of run.tables) {
    const column = source.columns.images_per_sec;
    if (column) {
      const values = column.mean.filter((value) => value !== null).sort((a, b) => a - b);
      return values.length ? values[Math.floor(values.length / 2)] : null;
    }
  }
  return null;
}

function comparisonColumns() {
  const hasPrice = content.runs.some((run) => run.cost.price !== null);
  const columns = [{text: "Run", value: (run) => run.label}, {text: "Recipe", value: (run) => run.recipe}];
  const settings = content.differing.filter((name) => name !== "recipe");
  const monitors = [...new Set(content.runs.map((run) => run.monitor).filter(Boolean))];
  columns.push(...monitors.map((name) => ({text: `Best ${shortName(name)}`, isNumber: true,
    value: (run) => run.monitor === name ? (monitorRow(run) || {best: null}).best : null})));
  columns.push({text: "At step", isNumber: true, value: (run) => run.best_step}, {text: "Steps", isNumber: true, value: (run) => run.last_step},
    {text: "Images per second", isNumber: true, value: throughput}, {text: "Hours", isNumber: true, value: (run) => run.cost.hours},
    {text: "Device hours", isNumber: true, value: (run) => run.cost.device_hours});
  if (hasPrice) columns.push({text: "Price", isNumber: true, value: (run) => run.cost.price});
  columns.push({text: "State", value: state});
  columns.push(...settings.map((name) => ({text: name, isSetting: true, value: (run) => parseSetting(run.differing[name])})));
  return {columns, firstMonitor: monitors.length ? 2 : 0};
}

function compareValues(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", {numeric: true});
}

function sortableTable() {
  const {columns, firstMonitor} = comparisonColumns();
  const body = element("tbody");
  const headings = columns.map((column, index) => {
    const button = element("button", {type: "button", onclick: () => sort(index)}, column.text, element("span", {"aria-hidden": "true"}, " ↕"));
    return element("th", {scope: "col", class: column.isNumber && "number"}, button);
  });
  let sorted = {index: -1, sign: 1};
  const cell = (column, run) => {
    const value = column.value(run);
    if (typeof value === "number") return number(value);
    const text = value === null || value === undefined ? "–" : String(value);
    return text.length > MAX_CELL_LENGTH ? element("span", {class: "cut", title: text}, text) : text;
  };
  // One tab stop per run with long settings, in the first cell of its row.
  const row = (run) => {
    const cells = columns.map((column, other) =>
      element(other ? "td" : "th", {scope: !other && "row", class: column.isNumber && "number"}, cell(column, run)));
    const node = element("tr", {}, cells);
    if (node.querySelector(".cut")) {
      const toggle = element("button", {type: "button", class: "expand", "aria-expanded": "false",
        "aria-label": `Long settings of ${run.label}`, title: "Show long settings"}, "…");
      const expand = () => toggle.setAttribute("aria-expanded", String(node.classList.toggle("expanded")));
      toggle.addEventListener("click", expand);
      node.querySelectorAll(".cut").forEach((cut) => cut.addEventListener("click", expand));
      cells[0].append(" ", toggle);
    }
    return node;
  };
  function sort(index) {
    sorted = {index, sign: sorted.index === index ? -sorted.sign : 1};
    const value = columns[index].value;
    const missing = (run) => value(run) === null || value(run) === undefined;
    const runs = [...content.runs].sort((a, b) => missing(a) - missing(b) || sorted.sign * compareValues(value(a), value(b)));
    headings.forEach((heading, other) => {
      if (other === index) heading.setAttribute("aria-sort", sorted.sign > 0 ? "ascending" : "descending");
      else heading.removeAttribute("aria-sort");
      heading.querySelector("span").textContent = other !== index ? " ↕" : sorted.sign > 0 ? " ↑" : " ↓";
    });
    body.replaceChildren(...runs.map(row));
  }
  sort(content.notice ? 0 : firstMonitor);
  return element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "Runs"},
    element("table", {id: "runs"}, element("thead", {}, element("tr", {}, headings)), body));
}

function comparisonCharts() {
  const byColumn = new Map();
  content.runs.forEach((run, index) => run.tables.forEach((source) => Object.keys(source.columns).forEach((column) => {
    if (!/^(metric|loss)\/|^images_per_sec$/.test(column)) return;
    if (!byColumn.has(column)) byColumn.set(column, []);
    byColumn.get(column).push({label: run.label, source, column, index});
  })));
  const monitors = new Set(content.runs.map((run) => run.monitor));
  const rank = (name) => monitors.has(name) ? 0 : name.startsWith("metric/") ? 1 : name.startsWith("loss/") ? 2 : 3;
  return [...byColumn.keys()].sort((a, b) => rank(a) - rank(b)).map((column) => {
    const rows = content.runs.map((run) => run.metrics.find((row) => row.name === column)).filter(Boolean);
    const isShared = rows.length > 0 && rows.every((row) => row.real_vs_real === rows[0].real_vs_real);
    return {isMinimized: rows.length > 0 && rows[0].goal === "MINIMIZE", title: column === "images_per_sec" ? groupTitle(column) : shortName(column), curves: byColumn.get(column), realVsReal: isShared ? rows[0].real_vs_real : null,
      note: decimationNote(byColumn.get(column)[0].source)};
  });
}

// Returns {ticks: [[text, fraction]], place(value)} of an axis from 0 (bottom) to 1.
function parallelAxis(values) {
  const present = values.filter((value) => value !== null);
  if (present.length && present.every((value) => typeof value === "number")) {
    const low = Math.min(...present), high = Math.max(...present);
    const isLog = low > 0 && high / low > 50;
    const scale = isLog ? Math.log : (value) => value;
    const place = (value) => high > low ? (scale(value) - scale(low)) / (scale(high) - scale(low)) : 0.5;
    return {ticks: high > low ? [[number(low, 3), 0], [number(high, 3), 1]] : [[number(low, 3), 0.5]], place, note: isLog ? " (log)" : ""};
  }
  const texts = [...new Set(present.map(String))].sort((a, b) => compareValues(a, b));
  const place = (value) => texts.length > 1 ? texts.indexOf(String(value)) / (texts.length - 1) : 0.5;
  return {ticks: texts.length <= 12 ? texts.map((text) => [text.length > 18 ? `${text.slice(0, 17)}…` : text, place(text)]) : [], place, note: ""};
}

function parallelCoordinates() {
  const {columns} = comparisonColumns();
  const results = columns.filter((column) => column.text.startsWith("Best ") || column.text === "Images per second").reverse();
  const settings = columns.filter((column) => column.isSetting || column.text === "Recipe");
  const used = [...settings, ...results]
    .map((column) => ({...column, values: content.runs.map((run) => { const value = column.value(run); return value === undefined ? null : value; })}))
    .filter((column) => new Set(column.values.filter((value) => value !== null)).size > 1);
  const numLeftOut = Math.max(0, used.filter((column) => !results.some((result) => result.text === column.text)).length - MAX_PARALLEL_SETTINGS);
  used.splice(MAX_PARALLEL_SETTINGS, numLeftOut);
  if (used.length < 2) return null;
  const axes = used.map((column) => parallelAxis(column.values));
  const width = Math.max(560, 150 * used.length), top = 46, height = 220;
  const x = (index) => 70 + index * (width - 140) / (used.length - 1);
  const y = (fraction) => top + height * (1 - fraction);
  const last = used.findLastIndex((column) => column.text.startsWith("Best "));
  const ranked = content.notice ? [] : content.runs.map((run, index) => index).filter((index) => last >= 0 && used[last].values[index] !== null)
    .sort((a, b) => used[last].values[a] - used[last].values[b]);
  const lines = content.runs.map((run, index) => {
    const path = used.map((column, order) => column.values[index] === null ? null : [x(order), y(axes[order].place(column.values[index]))]).filter(Boolean);
    const text = `${run.label}: ${used.map((column) => `${column.text} ${column.values[index] === null ? "–" : typeof column.values[index] === "number" ? number(column.values[index]) : column.values[index]}`).join(", ")}`;
    return path.length < 2 ? null : shape("path", {d: `M${path.map((point) => point.map((each) => each.toFixed(1)).join(",")).join("L")}`, stroke: color(index),
      "stroke-dasharray": DASHES[index % 8].join(" "), class: index === ranked[0] ? "best" : null, tabindex: 0, role: "img", "aria-label": text}, shape("title", {}, text));
  }).filter(Boolean);
  const frame = used.map((column, index) => shape("line", {x1: x(index), x2: x(index), y1: top, y2: top + height}));
  const titlePlace = (index) => index === 0 ? {x: 8, "text-anchor": "start"}
    : index === used.length - 1 ? {x: width - 8, "text-anchor": "end"} : {x: x(index), "text-anchor": "middle"};
  const texts = used.flatMap((column, index) => [
    shape("text", {...titlePlace(index), y: index % 2 ? 34 : 16}, column.text + axes[index].note),
    ...axes[index].ticks.map(([text, fraction]) => shape("text", {x: x(index) + 6, y: y(fraction) + 4}, text))]);
  return [element("p", {class: "muted"}, `Each line is a run${content.notice ? "" : "; the thick line is the best one"}. Point at a line, or move to it with the Tab key, to read its values.`
    + (numLeftOut ? ` ${numLeftOut} more settings differ; the table has them.` : "")),
    element("div", {class: "parallel scroll", tabindex: 0, role: "region", "aria-label": "Parallel coordinates"},
      shape("svg", {viewBox: `0 0 ${width} ${top + height + 20}`, width, id: "parallel"}, frame, lines, texts))];
}

function showComparison() {
  const labels = names(content.runs);
  content.runs.forEach((run, index) => { run.label = labels[index]; });
  page.append(element("h1", {}, content.title));
  const warnings = [...(content.notice ? [content.notice] : []), ...content.runs.flatMap((run) => run.warnings.map((text) => `${run.label}: ${text}`))];
  if (warnings.length) page.append(element("ul", {class: "warnings", "aria-label": "Warnings"}, warnings.map((text) => element("li", {}, text))));
  section("Runs", sortableTable());
  section("Settings and results", parallelCoordinates());
  const specs = comparisonCharts();
  if (specs.length) section("Curves", curveControls(), chartGrid(specs));
  const best = content.runs.map((run) => {
    const grid = run.pictures.grids.find((candidate) => candidate.step === run.pictures.best_grid) || run.pictures.grids[run.pictures.grids.length - 1];
    return grid ? element("figure", {}, element("h3", {}, run.label), picture(grid.url, `Samples of ${run.label}`),
      element("figcaption", {}, `Step ${number(grid.step)}${grid.step === run.pictures.best_grid ? ", best" : ""}`)) : null;
  }).filter(Boolean);
  if (best.length) section("Samples", element("div", {class: "gallery"}, best));
}

if (content.kind === "run") showRun(content.runs[0]);
else showComparison();
drawCharts();
let resizing = null;
let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;  // on phones, the height changes while scrolling
  width = window.innerWidth;
  clearTimeout(resizing);
  resizing = setTimeout(drawCharts, 150);
});
for (const query of ["(prefers-color-scheme: dark)", "print"]) window.matchMedia(query).addEventListener("change", drawCharts);
})();
