// The views: each takes the state and draws itself anew.

const SHOWN = {
  snr: { name: "SNR", unit: "SNR (dB)", say: decibels },
  gain: { name: "gain", unit: "gain (share of the signal)", say: (value) => value.toFixed(3) },
  vrr: { name: "VRR", unit: "VRR (share of the variance)", say: varianceText },
};
const PASSES = ["forward", "grad_input", "grad_weight"];

const network = (state) => data.networks.find((found) => found.name === state.network) || data.networks[0];
const byFormula = (state) => state.by === "v" && hasFormula(state);

// Whether sums of k suffice, by how much, and how many bits a register like this needs.
function judge(state, k) {
  const snr = kept(state, k, "snr");
  if (byFormula(state)) {
    const need = bitsForV(state, k);
    const margin = need === null ? -99 : state.bits - need;
    return { snr, need, margin, ok: margin >= 0, needText: need === null ? "over 23" : String(need) };
  }
  const need = state.unit === null ? bitsForSnr(state, k, state.target) : null;
  return { snr, need, margin: snr - state.target, ok: snr >= state.target, needText: bitsText(need) };
}

function relatives(state) {
  if (state.unit === null) {
    return data.roundings
      .filter((rounding) => rounding !== state.rounding)
      .map((rounding, i) => ({ setting: { ...state, rounding }, name: ROUNDING_WORDS[rounding], look: `other${i}` }));
  }
  const steps = unitOf(state.unit).intervals.filter((step) => step !== state.promote);
  return [steps[0], steps.includes(128) ? 128 : steps[1]]
    .filter((step, i, all) => step !== undefined && all.indexOf(step) === i)
    .map((promote, i) => ({
      setting: { ...state, promote },
      name: promote === null ? "not promoted" : `promoted every ${promote}`,
      look: `other${i}`,
    }));
}

function drawKept(chart, state) {
  const { show } = state;
  const { name, unit, say } = SHOWN[show];
  const line = (setting, title, look) => ({
    name: title,
    look,
    at: (k) => kept(setting, k, show),
    say: (k) => say(kept(setting, k, show)),
  });
  const lines = [line(state, accumulatorName(state), "own")];
  if (state.pin) lines.push(line(state.pin, `pinned: ${settingName(state.pin)}`, "pinned"));
  relatives(state).forEach((other) => lines.push(line(other.setting, other.name, other.look)));
  const formula = hasFormula(state);
  if (show === "vrr" && formula) {
    lines.splice(1, 0, {
      name: "formula of 2019, VRR",
      look: "formula",
      at: (k) => formulaVrr(state, k),
      say: (k) => formulaVrr(state, k).toFixed(3),
    });
  }
  const finite = KNOTS.map((k) => kept(state, k, "snr")).filter(Number.isFinite);
  const top = Math.max(...finite, state.target, 20);
  const range = show === "snr" ? [0, Math.min(160, 20 * Math.ceil((top + 5) / 20))] : [0, 1.05];
  const stops = [];
  if (formula) {
    const longest = longestForV(state);
    stops.push({ k: longest, text: `2019: enough up to ${grouped(longest)}` });
  }
  chart.draw({
    lines,
    range,
    unit,
    every: show === "snr" ? (range[1] > 80 ? 20 : 10) : 0.25,
    levels: show === "snr" && state.by === "snr" ? [{ y: state.target, text: `asked: ${state.target} dB` }] : [],
    stops,
    ticks: rug(state),
    k: state.k,
    label: `${name} over the length of the sum, for ${settingName(state)}; ${say(kept(state, state.k, show))} at k = ${grouped(state.k)}`,
  });
  const marks = data.networks.length ? ` Marks on the axis are the sums of ${network(state).name}.` : "";
  const limit = formula
    ? "The dashed vertical line is where the formula of 2019 (v < 50) stops trusting this width: it knows lengths, chunks and density, but no rounding."
    : "The formula of 2019 is shown for registers of your own; matrix units it does not describe.";
  document.getElementById("kept-note").textContent = `${limit}${marks} Click to choose a length.`;
}

const rug = (state) =>
  data.networks.length ? network(state).gemms.map((gemm) => ({ k: gemm.k, look: gemm.pass })).filter(({ k }) => k >= KNOTS[0] && k <= KNOTS[KNOTS.length - 1]) : [];

function drawWidth(chart, state) {
  const register = { ...state, unit: null };
  const lines = [];
  const target = state.target;
  const evolved = (setting, name, look) => ({
    name,
    look,
    step: true,
    at: (k) => bitsForSnr(setting, k, target) || WIDEST + 1,
    say: (k) => `${bitsText(bitsForSnr(setting, k, target))} bits`,
  });
  const formula = (setting, name, look) => ({
    name,
    look,
    step: true,
    at: (k) => bitsForV(setting, k) || WIDEST + 1,
    say: (k) => `${bitsForV(setting, k) || `over ${WIDEST}`} bits`,
  });
  const known = productOf(state.inputs) !== undefined;
  if (known) {
    const how = state.chunk === null ? "plain" : `chunk ${state.chunk}`;
    lines.push(evolved(register, `${target} dB, ${ROUNDING_WORDS[state.rounding]}, ${how}`, "own"));
    lines.push(formula(register, `2019 (v < 50), ${how}`, "formula"));
    data.roundings
      .filter((rounding) => rounding !== state.rounding)
      .forEach((rounding, i) => lines.push(evolved({ ...register, rounding }, ROUNDING_WORDS[rounding], `other${i}`)));
    if (state.chunk !== null) lines.push(formula({ ...register, chunk: null }, "2019, plain", "formula thin"));
  }
  chart.host.hidden = !known;
  const note = document.getElementById("width-note");
  const upto = `Tables hold ${data.man_bits[0]} to ${data.man_bits[data.man_bits.length - 2]} bits and ${WIDEST}, and a step to ${WIDEST} means somewhere between.`;
  if (!known) {
    note.textContent = `There are no register tables for ${state.inputs}; partialsum explorer --inputs ${state.inputs} makes them.`;
    return;
  }
  const now = { k: state.k, need: bitsForSnr(register, state.k, target) };
  chart.draw({
    lines,
    range: [0, WIDEST + 1],
    every: 4,
    unit: "mantissa bits that suffice",
    levels: state.unit === null ? [{ y: state.bits, text: `chosen: ${state.bits} bits` }] : [],
    ticks: rug(state),
    k: state.k,
    label: `Mantissa bits that suffice over the length of the sum; ${bitsText(now.need)} for ${target} dB at k = ${grouped(state.k)}`,
  });
  note.textContent = (state.unit === null ? "" : `For registers with ${ROUNDING_WORDS[state.rounding]} rounding, beside the unit. `) + upto;
}

const STATES = [
  [20, "suffices-far", "suffices by 20 dB"],
  [0, "suffices", "suffices"],
  [-10, "short", "short by up to 10 dB"],
  [-Infinity, "short-far", "short by more"],
];
const BIT_STATES = [
  [3, "suffices-far", "3 bits to spare"],
  [0, "suffices", "suffices"],
  [-2, "short", "1 or 2 bits short"],
  [-Infinity, "short-far", "more bits short"],
];

function drawNetwork(state, choose) {
  const host = document.getElementById("network");
  if (!data.networks.length) return;
  const found = network(state);
  const formula = byFormula(state);
  const looks = formula ? BIT_STATES : STATES;
  const judged = found.gemms.map((gemm) => ({ gemm, ...judge(state, gemm.k) }));
  const layers = found.layers.map((layer, place) => {
    const own = judged.filter(({ gemm }) => gemm.layer === place);
    return { layer, own, worst: Math.min(...own.map(({ margin }) => margin)), place };
  });
  if (state.order === "worst") layers.sort((a, b) => a.worst - b.worst || a.place - b.place);
  const body = html("tbody");
  layers.forEach(({ layer, own }) => {
    const row = html("tr", {}, html("th", { scope: "row" }, layer.name, layer.layers > 1 ? html("span", {}, ` ×${layer.layers}`) : ""));
    PASSES.forEach((pass) => {
      const cell = html("td");
      own
        .filter(({ gemm }) => gemm.pass === pass)
        .forEach((verdict) => {
          const [, look, words] = looks.find(([least]) => verdict.margin >= least);
          const text = formula ? `${verdict.needText} bits` : decibels(verdict.snr);
          const button = html(
            "button",
            { type: "button", class: `gemm ${look}`, "aria-label": `${layer.name} ${pass}, k = ${grouped(verdict.gemm.k)}: ${text}, ${words}` },
            text,
          );
          button.addEventListener("click", () => choose(verdict.gemm.k));
          ["pointerenter", "focus"].forEach((event) => button.addEventListener(event, () => describe(state, layer, verdict)));
          cell.append(button);
        });
      row.append(cell);
    });
    body.append(row);
  });
  const head = html("tr", {}, html("th", { scope: "col" }, "layer"), ...PASSES.map((pass) => html("th", { scope: "col", class: `pass ${pass}` }, pass)));
  host.replaceChildren(html("table", { class: "strip" }, html("thead", {}, head), body));
  summarise(state, found, judged, looks);
  const worst = judged.reduce((a, b) => (b.margin < a.margin ? b : a));
  describe(state, found.layers[worst.gemm.layer], worst);
}

function summarise(state, found, judged, looks) {
  const failing = judged.filter(({ ok }) => !ok);
  const macs = failing.reduce((sum, { gemm }) => sum + gemm.share, 0);
  const asked = byFormula(state) ? "v < 50" : `${state.target} dB`;
  const many = judged.reduce((sum, { gemm }) => sum + gemm.gemms, 0);
  const text = failing.length
    ? `${grouped(failing.reduce((sum, { gemm }) => sum + gemm.gemms, 0))} of the ${grouped(many)} GEMMs of ${found.heading}, with ${sharePercent(macs)} of its multiply-adds, miss ${asked} in ${accumulatorName(state)}.`
    : `All ${grouped(many)} GEMMs of ${found.heading} keep ${asked} in ${accumulatorName(state)}.`;
  document.getElementById("network-summary").textContent = text;
  const key = html("ul", { class: "key" }, ...looks.map(([, look, words]) => html("li", {}, html("span", { class: `swatch ${look}` }), words)));
  document.getElementById("network-notes").replaceChildren(key, ...found.notes.map((note) => html("p", { class: "note" }, note)));
}

function describe(state, layer, { gemm, snr, need, needText, ok }) {
  const parts = [
    html("b", {}, `${layer.name} ${gemm.pass}`),
    ` [${grouped(gemm.m)}, ${grouped(gemm.k)}] × [${grouped(gemm.k)}, ${grouped(gemm.n)}]`,
    gemm.gemms > 1 ? `, ${grouped(gemm.gemms)} of them` : "",
    `, ${sharePercent(gemm.share)} of the multiply-adds: ${decibels(snr)}, gain ${kept(state, gemm.k, "gain").toFixed(3)}; ${ok ? "suffices" : "does not suffice"}.`,
  ];
  if (state.unit === null) {
    const evolved = bitsText(bitsForSnr(state, gemm.k, state.target));
    const how = state.chunk === null ? "" : ` in chunks of ${state.chunk}`;
    parts.push(` Bits needed${how}: ${evolved} for ${state.target} dB ${ROUNDING_WORDS[state.rounding]}, ${bitsForV(state, gemm.k) || `over ${WIDEST}`} by the formula of 2019.`);
  }
  if (gemm.k > KNOTS[KNOTS.length - 1]) parts.push(` The sum is longer than the tables; shown is k = ${grouped(KNOTS[KNOTS.length - 1])}.`);
  document.getElementById("gemm").replaceChildren(...parts.filter(Boolean));
}
