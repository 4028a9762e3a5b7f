// State, knobs and the address: everything that is chosen stands behind the # and can be shared.

const by = (id) => document.getElementById(id);
const START = {
  unit: null,
  inputs: data.inputs[0].name,
  bits: data.man_bits.includes(9) ? 9 : data.man_bits[Math.floor(data.man_bits.length / 2)],
  rounding: data.roundings[0],
  chunk: null,
  promote: null,
  density: data.densities[0],
  k: 4096,
  by: "snr",
  target: 30,
  show: "snr",
  order: "worst",
  network: data.networks.length ? data.networks[0].name : "",
  theme: "",
  pin: null,
};
let state = { ...START };

function readAccumulator(text, setting) {
  const [head, ...options] = text.split(",").map((part) => part.trim());
  const unit = unitOf(head);
  const value = (name) => {
    const found = options.find((option) => option.startsWith(`${name}=`));
    return found === undefined ? null : Number(found.split("=")[1]);
  };
  if (unit) {
    const promote = value("promote_every");
    return { ...setting, unit: unit.name, promote: unit.intervals.includes(promote) ? promote : unit.intervals[0] };
  }
  const width = /^e\d+m(\d+)$/.exec(head);
  const bits = width ? Number(width[1]) : setting.bits;
  const chunk = value("chunk");
  return {
    ...setting,
    unit: null,
    bits: data.man_bits.includes(bits) ? bits : setting.bits,
    rounding: data.roundings.find((rounding) => options.includes(rounding)) || "nearest_even",
    chunk: data.chunks.includes(chunk) ? chunk : null,
  };
}

// A setting whose knobs fit each other, whatever an address asked for.
function mended(setting) {
  const unit = unitOf(setting.unit);
  const names = unit ? unit.inputs : data.inputs.map((input) => input.name);
  const found = { ...setting, unit: unit ? unit.name : null };
  if (!names.includes(found.inputs)) found.inputs = names[0];
  if (!data.densities.includes(found.density)) found.density = data.densities[0];
  if (!data.roundings.includes(found.rounding)) found.rounding = data.roundings[0];
  if (unit) found.density = 1;
  if (unit && !unit.intervals.includes(found.promote)) found.promote = unit.intervals[0];
  return found;
}

function readHash() {
  const words = new URLSearchParams(location.hash.slice(1));
  let found = readAccumulator(words.get("acc") || accumulatorName(START), { ...START });
  const number = (name, low, high, usual) => {
    const value = words.has(name) ? parseLength(words.get(name)) : null;
    return value !== null && value >= low && value <= high ? value : usual;
  };
  found.inputs = words.get("inputs") || START.inputs;
  found.density = words.has("density") ? Number(words.get("density")) : START.density;
  found = mended(found);
  found.k = number("k", KNOTS[0], KNOTS[KNOTS.length - 1], START.k);
  found.target = number("target", 5, 100, START.target);
  found.by = words.get("by") === "v" ? "v" : "snr";
  found.show = words.get("show") in SHOWN ? words.get("show") : START.show;
  found.order = words.get("order") === "network" ? "network" : "worst";
  found.network = data.networks.some(({ name }) => name === words.get("network")) ? words.get("network") : START.network;
  found.theme = ["dark", "light"].includes(words.get("theme")) ? words.get("theme") : "";
  if (words.has("pin")) {
    const [acc, inputs, density] = words.get("pin").split(";");
    found.pin = mended(readAccumulator(acc, { ...START, inputs, density: Number(density || 1) }));
  }
  return found;
}

function writeHash() {
  const words = new URLSearchParams();
  words.set("acc", accumulatorName(state));
  words.set("inputs", state.inputs);
  words.set("k", state.k);
  ["density", "by", "target", "show", "order", "network", "theme"].forEach((name) => {
    if (state[name] !== START[name]) words.set(name, state[name]);
  });
  if (state.pin) words.set("pin", [accumulatorName(state.pin), state.pin.inputs, state.pin.density].join(";"));
  const text = `#${words.toString().replace(/%2C/g, ",").replace(/%3D/g, "=").replace(/%3B/g, ";")}`;
  if (text !== location.hash) history.replaceState(null, "", text);
}

function set(change) {
  state = mended({ ...state, ...change });
  writeHash();
  draw();
}

// A group of radio buttons, made anew only where its choices change.
function choices(host, name, values, chosen, say, choose) {
  if (host.dataset.values !== JSON.stringify(values)) {
    host.dataset.values = JSON.stringify(values);
    host.replaceChildren(
      ...values.map((value, i) => {
        const input = html("input", { type: "radio", name, value: String(value), id: `${name}-${i}` });
        input.addEventListener("change", () => choose(values[i]));
        return html("label", { for: `${name}-${i}` }, input, html("span", {}, say(value)));
      }),
    );
  }
  host.querySelectorAll("input").forEach((input, i) => {
    input.checked = values[i] === chosen;
  });
}

function options(select, pairs, chosen) {
  const known = JSON.stringify(pairs);
  if (select.dataset.values !== known) {
    select.dataset.values = known;
    select.replaceChildren(...pairs.map(([value, text]) => html("option", { value }, text)));
  }
  select.value = chosen;
}

function drawKnobs() {
  const unit = unitOf(state.unit);
  options(by("acc"), [["", "A register of your own"], ...data.units.map(({ name }) => [name, name])], state.unit || "");
  by("acc-hint").textContent = unit ? unit.description : `Exponent bits: ${data.exp_bits}; every addition is rounded`;
  options(by("inputs"), (unit ? unit.inputs : data.inputs.map(({ name }) => name)).map((name) => [name, name]), state.inputs);
  const operands = data.operands_db[state.inputs];
  by("inputs-hint").textContent = operands ? `Rounding the operands themselves leaves about ${decibels(operands)}` : "";
  document.querySelectorAll("[data-for]").forEach((knob) => {
    knob.hidden = knob.dataset.for !== (unit ? "unit" : "register") || (unit !== undefined && unit.intervals.length < 2);
  });
  by("bits").max = data.man_bits.length - 1;
  by("bits").value = data.man_bits.indexOf(state.bits);
  by("bits").setAttribute("aria-valuetext", `${state.bits} mantissa bits`);
  by("bits-out").textContent = state.bits;
  choices(by("rounding"), "rounding", data.roundings, state.rounding, (mode) => ROUNDING_WORDS[mode], (rounding) => set({ rounding }));
  choices(by("chunk"), "chunk", data.chunks, state.chunk, (size) => (size === null ? "none" : String(size)), (chunk) => set({ chunk }));
  if (unit) choices(by("promote"), "promote", unit.intervals, state.promote, (step) => (step === null ? "never" : String(step)), (promote) => set({ promote }));
  choices(by("density"), "density", data.densities, state.density, String, (density) => set({ density }));
  if (document.activeElement !== by("k")) by("k").value = grouped(state.k);
  Object.assign(by("k-slider"), { min: LOGS[0], max: LOGS[LOGS.length - 1] });
  by("k-slider").value = Math.log2(state.k);
  by("k-slider").setAttribute("aria-valuetext", `${grouped(state.k)} products`);
  by("target").value = state.target;
  by("target-out").textContent = `${state.target} dB`;
  document.querySelectorAll("input[name=by]").forEach((input) => {
    input.checked = input.value === (state.unit === null ? state.by : "snr");
    input.disabled = input.value === "v" && state.unit !== null;
  });
  by("unpin").hidden = state.pin === null;
  choices(by("show"), "show", Object.keys(SHOWN), state.show, (name) => SHOWN[name].name, (show) => set({ show }));
}

function drawNetworkTools() {
  const host = by("network-tools");
  const title = by("network-title");
  title.closest("section").hidden = !data.networks.length;
  if (!data.networks.length) return;
  if (!host.firstChild) {
    const select = html("select", { id: "which", "aria-label": "Network" });
    select.addEventListener("change", () => set({ network: select.value }));
    const orders = html("div", { class: "choices", id: "order", role: "group", "aria-label": "Order of the layers" });
    host.append(select, orders);
  }
  options(by("which"), data.networks.map(({ name, heading }) => [name, heading]), network(state).name);
  by("which").hidden = data.networks.length < 2;
  const say = (order) => (order === "worst" ? "worst first" : "as in the network");
  choices(by("order"), "order", ["worst", "network"], state.order, say, (order) => set({ order }));
}

function command() {
  const density = state.density === 1 ? "" : ` --density ${state.density}`;
  const lines = [`partialsum predict ${state.k} ${accumulatorName(state)} --inputs ${state.inputs}${density}`];
  if (state.unit === null) {
    const chunk = state.chunk === null ? "" : ` --chunk ${state.chunk}`;
    lines.push(`partialsum bits ${state.k} --inputs ${state.inputs.replace("*", " --grad-inputs ")}${density}${chunk} --method evolution --rounding ${state.rounding} --target-snr ${state.target}`);
  }
  return lines.join("\n");
}

const charts = {};
function draw() {
  const dark = state.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = dark;
  by("theme").setAttribute("aria-pressed", String(dark === "dark"));
  drawKnobs();
  drawNetworkTools();
  drawAnswer(state);
  drawKept(charts.kept, state);
  drawWidth(charts.width, state);
  drawNetwork(state, (k) => set({ k: Math.min(Math.max(k, KNOTS[0]), KNOTS[KNOTS.length - 1]) }));
  drawCost(state);
  by("command").textContent = command();
}

function wire() {
  charts.kept = new Chart(by("kept"), (k) => set({ k }));
  charts.width = new Chart(by("width"), (k) => set({ k }));
  by("cost-note").textContent = data.cost.note;
  by("acc").addEventListener("change", () => set({ unit: by("acc").value || null }));
  by("inputs").addEventListener("change", () => set({ inputs: by("inputs").value }));
  by("bits").addEventListener("input", () => set({ bits: data.man_bits[Number(by("bits").value)] }));
  by("k-slider").addEventListener("input", () => set({ k: Math.round(2 ** Number(by("k-slider").value)) }));
  by("k").addEventListener("input", () => {
    const k = parseLength(by("k").value);
    const fits = k !== null && k >= KNOTS[0] && k <= KNOTS[KNOTS.length - 1];
    by("k").setAttribute("aria-invalid", String(!fits));
    by("k-hint").textContent = fits ? "4608, 1e6 or 256x56x56" : `A whole number from ${KNOTS[0]} to ${grouped(KNOTS[KNOTS.length - 1])}, please`;
    if (fits) set({ k });
  });
  by("k").addEventListener("blur", () => set({}));
  by("target").addEventListener("input", () => set({ target: Number(by("target").value), by: "snr" }));
  document.querySelectorAll("input[name=by]").forEach((input) => input.addEventListener("change", () => set({ by: input.value })));
  by("pin").addEventListener("click", () => set({ pin: { ...state, pin: null } }));
  by("unpin").addEventListener("click", () => set({ pin: null }));
  by("reset").addEventListener("click", () => set({ ...START, theme: state.theme, network: state.network }));
  by("theme").addEventListener("click", () => set({ theme: document.documentElement.dataset.theme === "dark" ? "light" : "dark" }));
  by("copy").addEventListener("click", copyLink);
  by("knobs").addEventListener("submit", (event) => event.preventDefault());
  if (matchMedia("(max-width: 900px)").matches) by("panel").open = false;
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  window.addEventListener("hashchange", () => {
    state = readHash();
    draw();
  });
  let width = by("kept").clientWidth;
  new ResizeObserver(() => {
    if (by("kept").clientWidth === width) return;
    width = by("kept").clientWidth;
    draw();
  }).observe(by("kept"));
}

function copyLink() {
  const done = (word) => {
    by("copy").textContent = word;
    setTimeout(() => (by("copy").textContent = "Copy link to this view"), 2000);
  };
  writeHash();
  if (navigator.clipboard) navigator.clipboard.writeText(location.href).then(() => done("Copied"), () => done("Copy the address above"));
  else done("Copy the address above");
}

state = readHash();
wire();
draw();
