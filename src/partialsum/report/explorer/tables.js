// Tables that Python filled, and how they are read: looked up, and between two lengths linear in log k.

const data = JSON.parse(document.getElementById("data").textContent);
const KNOTS = data.knots;
const LOGS = KNOTS.map(Math.log2);
const QUANTITIES = ["snr", "gain", "vrr"];
const NO_ERROR = data.no_error_db;
const WIDEST = data.man_bits[data.man_bits.length - 1];

function decode(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Int16Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true));
}

const decoded = new Map();
function codesOf(text) {
  if (!decoded.has(text)) decoded.set(text, decode(text));
  return decoded.get(text);
}

// Value at length k of the curve whose codes start at `start`.
function between(codes, start, step, k) {
  const x = Math.log2(k);
  const last = LOGS.length - 1;
  if (x <= LOGS[0]) return codes[start] * step;
  if (x >= LOGS[last]) return codes[start + last] * step;
  let i = Math.min(last - 1, Math.floor((x - LOGS[0]) * (last / (LOGS[last] - LOGS[0]))));
  while (LOGS[i] > x) i -= 1;
  while (LOGS[i + 1] <= x) i += 1;
  const share = (x - LOGS[i]) / (LOGS[i + 1] - LOGS[i]);
  return ((1 - share) * codes[start + i] + share * codes[start + i + 1]) * step;
}

const productOf = (name) => data.inputs.find((input) => input.name === name);
const unitOf = (name) => data.units.find((unit) => unit.name === name);

// What sums of k products keep: `quantity` of snr (dB), gain, vrr.
function kept(setting, k, quantity) {
  const q = QUANTITIES.indexOf(quantity);
  const step = data.steps[q];
  const value = setting.unit === null ? registerAt(setting, k, q, step) : unitAt(setting, k, q, step);
  return quantity === "snr" && value >= NO_ERROR - 0.005 ? Infinity : value;
}

function registerAt(setting, k, q, step) {
  const rounding = data.roundings.indexOf(setting.rounding);
  const size = setting.chunk === null ? null : setting.chunk * setting.density;
  const chunk = data.table_chunks.indexOf(size);
  const bits = data.man_bits.indexOf(setting.bits);
  const curve = (rounding * data.table_chunks.length + chunk) * data.man_bits.length + bits;
  const codes = codesOf(productOf(setting.inputs).registers);
  return between(codes, (curve * QUANTITIES.length + q) * KNOTS.length, step, k * setting.density);
}

function unitAt(setting, k, q, step) {
  const unit = unitOf(setting.unit);
  const curve = unit.intervals.indexOf(setting.promote);
  const codes = codesOf(unit.tables[setting.inputs]);
  return between(codes, (curve * QUANTITIES.length + q) * KNOTS.length, step, k);
}

// Fewest tabulated bits with which a register like `setting` keeps `target` dB; null where none does.
function bitsForSnr(setting, k, target) {
  const found = data.man_bits.find((bits) => kept({ ...setting, unit: null, bits }, k, "snr") >= target);
  return found === undefined ? null : found;
}

function formulaOf(setting) {
  const product = productOf(setting.inputs);
  return product === undefined ? undefined : data.formula[product.product_man_bits];
}

// The formula of 2019 knows registers and their products.
const hasFormula = (setting) => setting.unit === null && formulaOf(setting) !== undefined;

function formulaVrr(setting, k) {
  const size = setting.chunk === null ? null : setting.chunk * setting.density;
  const curve = data.table_chunks.indexOf(size) * data.man_bits.length + data.man_bits.indexOf(setting.bits);
  return between(codesOf(formulaOf(setting).vrr), curve * KNOTS.length, data.steps[2], k * setting.density);
}

function longestLengths(setting) {
  const density = data.densities.indexOf(setting.density);
  return formulaOf(setting).longest[density][data.chunks.indexOf(setting.chunk)];
}

// Fewest bits with v < 50 (exact: Python found the longest sum of each width); null beyond the widest.
function bitsForV(setting, k) {
  const place = longestLengths(setting).findIndex((longest) => k <= longest);
  return place < 0 ? null : data.formula_bits[place];
}

// The longest sum for which the register's own width has v < 50; 0 where it cannot hold a product.
function longestForV(setting) {
  const place = data.formula_bits.indexOf(setting.bits);
  return place < 0 ? 0 : longestLengths(setting)[place];
}

function costOf(setting) {
  if (setting.unit !== null) return unitOf(setting.unit).costs[setting.inputs][String(setting.promote)] || null;
  const product = productOf(setting.inputs);
  if (product.costs === null) return null;
  const rounding = data.roundings.indexOf(setting.rounding);
  return product.costs[rounding][data.chunks.indexOf(setting.chunk)][data.man_bits.indexOf(setting.bits)];
}
