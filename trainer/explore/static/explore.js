"use strict";

const byId = (id) => document.getElementById(id);
const STEP_ON_MAP = 0.05;
const MAX_SLIDERS = 8;

// The fixed points have their own moves, so those of a place between them start at zero.
const state = {x: 0.5, y: 0.5, moves: {place: noMoves(), between: noMoves()}, fixed: {a: null, b: null}, shown: null};
let facts;

function baseName() {
  return document.querySelector("input[name=base]:checked").value;
}

function noMoves() {
  return {principal: {}, coordinates: {}};
}

function movesName() {
  return baseName() === "between" ? "between" : "place";
}

function resetMoves() {
  state.moves[movesName()] = noMoves();
  makeSliders();
}

function point() {
  const moves = structuredClone(state.moves[movesName()]);
  const base = baseName();
  if (base === "between") {
    return {between: [state.fixed.a.point, state.fixed.b.point], share: byId("share").valueAsNumber, ...moves};
  }
  const place = base === "seed" ? {seed: byId("seed").valueAsNumber}
    : {corners: corners(), x: state.x, y: state.y};
  const label = byId("class").value;
  return {...place, label: label === "" ? null : Number(label),
    truncation: byId("truncates").checked ? byId("truncation").valueAsNumber : null, ...moves};
}

function corners() {
  return [...byId("corners").querySelectorAll("input")].map((input) => input.valueAsNumber);
}

function inputProblem() {
  const isInvalid = document.querySelector(`[data-base=${baseName()}] input:invalid`) !== null;
  return isInvalid ? `Enter a seed: a whole number from 0 to ${facts.max_seed}.` : "";
}

function showStatus(text, isProblem = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("problem", isProblem);
}

// Sends at most one request at a time. While one is under way, only the newest of the others is kept.
class Requests {
  constructor(address, show) {
    this.address = address;
    this.show = show;
    this.isBusy = false;
    this.next = null;
  }

  async send(content) {
    this.next = content;
    if (this.isBusy) return;
    this.isBusy = true;
    showStatus("Generating…");
    let problem = "";
    while (this.next !== null) {
      const sent = this.next;
      this.next = null;
      try {
        const response = await fetch(this.address, {
          method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(sent)});
        problem = response.ok ? "" : await response.text();
        if (response.ok) await this.show(await response.blob(), response.headers, sent);
      } catch (error) {
        problem = "The server does not answer; start the command again.";
      }
    }
    this.isBusy = false;
    showStatus(inputProblem() || problem, true);
  }
}

async function showIn(image, blob) {
  const previous = image.src;
  image.src = URL.createObjectURL(blob);
  await image.decode();
  image.classList.toggle("pixelated", image.naturalWidth < 256);
  return previous;
}

const images = new Requests("image", async (blob, headers, sent) => {
  const previous = await showIn(byId("image"), blob);
  const isFixed = Object.values(state.fixed).some((fixed) => fixed && fixed.url === previous);
  if (previous && !isFixed) URL.revokeObjectURL(previous);
  const name = headers.get("Content-Disposition").match(/filename="([^"]*)"/)[1];
  state.shown = {point: sent, name, url: byId("image").src};
  byId("image").alt = `Image of ${name}`;
  byId("caption").textContent = name;
});

const maps = new Requests("map", async (blob) => {
  const previous = await showIn(byId("map-image"), blob);
  if (previous) URL.revokeObjectURL(previous);
});

function update(changesMap = true) {
  const base = baseName();
  for (const node of document.querySelectorAll("[data-base]")) node.hidden = node.dataset.base !== base;
  byId("choices").hidden = base === "between";
  byId("truncation").disabled = !byId("truncates").checked;
  for (const row of document.querySelectorAll(".slider")) {
    row.querySelector("output").textContent = row.querySelector("input[type=range]").valueAsNumber.toFixed(2);
  }
  byId("marker").style.left = `${100 * state.x}%`;
  byId("marker").style.top = `${100 * state.y}%`;
  byId("place").textContent = `x ${state.x.toFixed(2)}, y ${state.y.toFixed(2)}`;
  if (inputProblem()) {
    showStatus(inputProblem(), true);
    return;
  }
  const current = point();
  images.send(current);
  if (base === "corners" && changesMap) maps.send(current);
}

function moveTo(x, y) {
  state.x = Math.min(1, Math.max(0, x));
  state.y = Math.min(1, Math.max(0, y));
  update(false);
}

function makeSliders() {
  const kind = byId("kind").value;
  const count = kind === "principal" ? facts.num_directions : facts.num_latents;
  const first = kind === "principal" ? 0 : Math.min(Math.max(0, byId("first").valueAsNumber || 0), count - 1);
  byId("first-row").hidden = kind === "principal";
  const limit = kind === "principal" || facts.is_normal ? 4 : 1;
  const rows = [];
  for (let number = first; number < Math.min(count, first + MAX_SLIDERS); number++) {
    const ownLatents = facts.num_latents - facts.num_codes;
    const row = document.createElement("label");
    row.className = "slider";
    const name = document.createElement("span");
    name.textContent = kind === "principal" ? `Direction ${number + 1}`
      : number < ownLatents ? `Latent ${number}` : `Code ${number - ownLatents}`;
    const input = Object.assign(document.createElement("input"), {type: "range", min: -limit, max: limit, step: 0.05});
    const moves = state.moves[movesName()][kind];
    input.value = moves[number] ?? 0;
    input.addEventListener("input", () => {
      if (input.valueAsNumber) moves[number] = input.valueAsNumber;
      else delete moves[number];
      update();
    });
    const output = document.createElement("output");
    output.textContent = input.valueAsNumber.toFixed(2);
    row.append(name, input, output);
    rows.push(row);
  }
  byId("sliders").replaceChildren(...rows);
}

function fix(slot) {
  if (state.shown === null) return;
  const previous = state.fixed[slot];
  state.fixed[slot] = state.shown;
  const isUsed = [state.shown, state.fixed.a, state.fixed.b].some((used) => used && previous && used.url === previous.url);
  if (previous && !isUsed) URL.revokeObjectURL(previous.url);
  const button = byId(`point-${slot}`);
  const picture = Object.assign(document.createElement("img"), {src: state.shown.url, alt: ""});
  button.replaceChildren(picture, `Show ${slot.toUpperCase()}`);
  button.disabled = false;
  button.title = state.shown.name;
  document.querySelector("input[value=between]").disabled = !(state.fixed.a && state.fixed.b);
  if (baseName() === "between") {
    resetMoves();
    update();
  }
}

function save() {
  if (state.shown === null) return;
  const link = Object.assign(document.createElement("a"), {href: state.shown.url, download: state.shown.name});
  link.click();
}

function listen() {
  for (const input of document.querySelectorAll("input[name=base]")) {
    input.addEventListener("change", () => {
      makeSliders();
      update();
    });
  }
  for (const id of ["seed", "truncates", "truncation", "share", "class", "corners"]) {
    byId(id).addEventListener("input", () => update());
  }
  byId("random").addEventListener("click", () => {
    byId("seed").value = Math.floor(Math.random() * (facts.max_seed + 1));
    update();
  });
  byId("kind").addEventListener("change", makeSliders);
  byId("first").addEventListener("input", makeSliders);
  byId("reset").addEventListener("click", () => {
    resetMoves();
    update();
  });
  byId("save").addEventListener("click", save);
  for (const slot of ["a", "b"]) {
    byId(`fix-${slot}`).addEventListener("click", () => fix(slot));
    byId(`point-${slot}`).addEventListener("click", () => images.send(state.fixed[slot].point));
  }
  const map = byId("map");
  const moveToEvent = (event) => {
    const box = byId("map-image").getBoundingClientRect();
    moveTo((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  map.addEventListener("pointerdown", (event) => {
    map.setPointerCapture(event.pointerId);
    moveToEvent(event);
  });
  map.addEventListener("pointermove", (event) => event.buttons && moveToEvent(event));
  map.addEventListener("keydown", (event) => {
    const shift = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (shift === undefined) return;
    event.preventDefault();
    moveTo(state.x + STEP_ON_MAP * shift[0], state.y + STEP_ON_MAP * shift[1]);
  });
}

async function start() {
  facts = await (await fetch("facts")).json();
  byId("title").textContent = facts.title;
  byId("class-row").hidden = !facts.classes.length;
  byId("class").append(new Option("by the seed", ""), ...facts.classes.map(({label, name}) => new Option(name, label)));
  byId("first").max = facts.num_latents - 1;
  for (const input of [byId("seed"), ...byId("corners").querySelectorAll("input")]) input.max = facts.max_seed;
  listen();
  makeSliders();
  update();
}

start();
