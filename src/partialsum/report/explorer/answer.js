// The answer at the chosen length, what would help, and what the unit costs.

const AREA_PARTS = data.cost.parts.length;
const areaOf = (cost) => cost.slice(0, AREA_PARTS).reduce((a, b) => a + b, 0);
const energyOf = (cost) => cost.slice(AREA_PARTS);

function ratio(value) {
  if (value > 0.95 && value < 1.05) return "about as much";
  return value >= 1 ? `${value.toPrecision(2)} times less` : `${(1 / value).toPrecision(2)} times more`;
}

const compared = (value) => {
  const words = ratio(value);
  return words === "about as much" ? `${words} as` : `${words} than`;
};

function baseline(state) {
  const product = productOf(state.inputs) || unitOf(state.unit);
  return product.baselines ? product.baselines[state.inputs] : product.baseline;
}

function card(title, value, note, name, exact = null) {
  const shown = html("p", { class: "value", "data-name": name, "data-value": exact }, value);
  return html("li", {}, html("h3", {}, title), shown, html("p", { class: "hint" }, note));
}

function drawAnswer(state) {
  const verdict = judge(state, state.k);
  const gain = kept(state, state.k, "gain");
  const vrr = kept(state, state.k, "vrr");
  const cards = [
    card("SNR", decibels(verdict.snr), verdict.snr === Infinity ? "no error can be told" : errorWords(verdict.snr), "snr", verdict.snr),
    card("Gain", gain.toFixed(3), gain < 0.995 ? `${sharePercent(1 - gain)} of the signal is gone` : "the signal is whole", "gain", gain),
    card("VRR", varianceText(vrr), hasFormula(state) ? `formula of 2019: ${formulaVrr(state, state.k).toFixed(3)}` : "noise counts as variance", "vrr", vrr),
  ];
  if (state.unit === null) {
    const evolved = bitsText(bitsForSnr(state, state.k, state.target));
    const formula = bitsForV(state, state.k);
    cards.push(card("Bits that suffice", evolved, `for ${state.target} dB; formula of 2019: ${formula || `over ${WIDEST}`}`, "bits", formula));
  } else if (unitOf(state.unit).intervals.length > 1) {
    const longest = longestPromotion(state);
    cards.push(card("Promote every", longest, `products, to keep ${state.target} dB`, "promote"));
  }
  const cost = costOf(state);
  const whole = baseline(state);
  if (cost !== null && whole !== null) {
    const area = areaOf(cost);
    cards.push(card("Area", `${grouped(area)} GE`, `per multiply-add; ${compared(areaOf(whole) / area)} float32 accumulation`, "area", area));
  }
  document.getElementById("cards").replaceChildren(...cards);
  document.getElementById("verdict").textContent = sentence(state, verdict);
  drawRemedies(state, verdict);
}

function errorWords(snr) {
  const share = 10 ** (-snr / 20);
  return `rms error ${share >= 1e-5 ? sharePercent(share) : powerOfTen(share)} of the sum's spread`;
}

function powerOfTen(share) {
  const [digits, exponent] = share.toExponential(1).split("e-");
  return `${digits}·10⁻${[...exponent].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)]).join("")}`;
}

function sentence(state, { snr, ok, margin, needText }) {
  const products = state.density === 1 ? "products" : `products, ${sharePercent(1 - state.density)} of them zero,`;
  const head = `Sums of ${grouped(state.k)} ${state.inputs} ${products} in ${accumulatorName(state)} ${snr === Infinity ? "show no error" : `keep ${decibels(snr)}`}`;
  if (byFormula(state)) {
    const bits = `${state.bits} mantissa bits`;
    return ok
      ? `${head}. ${bits} satisfy v < 50, which asks ${needText}.`
      : `${head}. ${bits} do not satisfy v < 50, which asks ${needText}.`;
  }
  const beyond = snr === Infinity ? "" : `, ${Math.abs(margin).toFixed(1)} dB ${ok ? "more" : "less"} than asked`;
  return `${head}${beyond}. ${ok ? "It suffices." : "It does not suffice."}`;
}

function longestPromotion(state) {
  const steps = unitOf(state.unit).intervals;
  const enough = (promote) => kept({ ...state, promote }, state.k, "snr") >= state.target;
  if (steps.includes(null) && enough(null)) return "never";
  const found = steps.filter((step) => step !== null && enough(step));
  return found.length ? String(Math.max(...found)) : "–";
}

// Changes of one knob that would suffice, where the setting does not; and narrower ones where it does.
function drawRemedies(state, { ok }) {
  const host = document.getElementById("remedies");
  if (state.by === "v" || state.unit !== null) {
    host.replaceChildren();
    return;
  }
  const suffices = (change) => kept({ ...state, ...change }, state.k, "snr") >= state.target;
  const words = [];
  const need = bitsForSnr(state, state.k, state.target);
  if (!ok) {
    if (need !== null) words.push(`${bitsText(need)} bits`);
    const chunks = data.chunks.filter((chunk) => chunk !== null && chunk !== state.chunk && suffices({ chunk }));
    if (chunks.length) words.push(chunks.length > 1 ? `chunks of ${chunks[0]} to ${chunks[chunks.length - 1]}` : `chunks of ${chunks[0]}`);
    const modes = data.roundings.filter((rounding) => rounding !== state.rounding && suffices({ rounding }));
    if (modes.length) words.push(`${modes.map((mode) => ROUNDING_WORDS[mode]).join(" or ")} rounding`);
    host.replaceChildren(html("p", {}, words.length ? `Enough by itself: ${words.join("; or ")}.` : "No single knob mends it: turn two."));
    return;
  }
  const narrower = narrowest(state);
  const same = need === state.bits;
  const text = same ? "No narrower register with this rounding and chunk does." : `With this rounding and chunk, ${bitsText(need)} bits do.`;
  const best = narrower !== null && narrower.bits < need ? ` The narrowest with any chunk: ${bitsText(narrower.bits)} bits, chunks of ${narrower.chunk}.` : "";
  host.replaceChildren(html("p", {}, text + best));
}

function narrowest(state) {
  const found = data.chunks
    .map((chunk) => ({ chunk, bits: bitsForSnr({ ...state, chunk }, state.k, state.target) }))
    .filter(({ chunk, bits }) => chunk !== null && bits !== null);
  return found.length ? found.reduce((a, b) => (b.bits < a.bits ? b : a)) : null;
}

function drawCost(state) {
  const host = document.getElementById("cost");
  const summary = document.getElementById("cost-summary");
  const whole = baseline(state);
  const own = costOf(state);
  if (own === null || whole === null) {
    const reason = state.unit !== null ? unitOf(state.unit).no_cost : productOf(state.inputs).no_cost;
    summary.textContent = `No cost is known: ${reason || "the unit is not built."}`;
    host.replaceChildren();
    return;
  }
  const rows = [{ name: accumulatorName(state), cost: own }];
  const pinned = state.pin ? costOf(state.pin) : null;
  if (pinned) rows.push({ name: `pinned: ${settingName(state.pin)}`, cost: pinned });
  rows.push({ name: `e${data.exp_bits}m23 (float32), ${state.inputs}`, cost: whole });
  const energies = energyOf(own).map((energy, i) => energyOf(whole)[i] / energy);
  const ends = [Math.min(...energies), Math.max(...energies)];
  const both = ends.every((end) => end >= 1.05) && ratio(ends[0]) !== ratio(ends[1]);
  const words = [...new Set(ends.map(ratio))].join(" to ");
  const band = both ? `${ends[0].toPrecision(2)} to ${ratio(ends[1])}` : words;
  summary.textContent = `Against float32 accumulation, a multiply-add of ${accumulatorName(state)} takes ${ratio(areaOf(whole) / areaOf(own))} area and ${band} energy.`;
  const largest = Math.max(...rows.map(({ cost }) => areaOf(cost)));
  const hottest = Math.max(...rows.map(({ cost }) => Math.max(...energyOf(cost))));
  host.replaceChildren(costTable(rows, largest, hottest), costKey(rows));
}

function costTable(rows, largest, hottest) {
  const head = ["unit", "area per multiply-add (GE)", "energy per multiply-add (pJ)"];
  const body = html("tbody");
  rows.forEach(({ name, cost }) => {
    const bar = html("div", { class: "bar", "aria-hidden": "true" });
    cost.slice(0, AREA_PARTS).forEach((part, i) => {
      if (part > 0) bar.append(html("span", { class: `part part${i}`, style: `width: ${((100 * part) / largest).toFixed(2)}%`, title: `${data.cost.parts[i]}: ${grouped(part)} GE` }));
    });
    const [low, high] = [Math.min(...energyOf(cost)), Math.max(...energyOf(cost))];
    const place = `margin-left: ${((100 * low) / hottest).toFixed(2)}%; width: ${Math.max(1, (100 * (high - low)) / hottest).toFixed(2)}%`;
    const band = html("div", { class: "bar", "aria-hidden": "true" }, html("span", { class: "band", style: place }));
    const energy = low.toPrecision(2) === high.toPrecision(2) ? low.toPrecision(2) : `${low.toPrecision(2)}–${high.toPrecision(2)}`;
    body.append(
      html("tr", {}, html("th", { scope: "row" }, name), html("td", {}, html("b", {}, grouped(areaOf(cost))), bar), html("td", {}, html("b", {}, energy), band)),
    );
  });
  return html("table", { class: "costs" }, html("thead", {}, html("tr", {}, ...head.map((title) => html("th", { scope: "col" }, title)))), body);
}

function costKey(rows) {
  const used = data.cost.parts.map((name, i) => ({ name, i })).filter(({ i }) => rows.some(({ cost }) => cost[i] > 0));
  return html("ul", { class: "key" }, ...used.map(({ name, i }) => html("li", {}, html("span", { class: `swatch part${i}` }), name)));
}
