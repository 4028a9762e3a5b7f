// Numbers and names in words.

const grouped = (n) => String(Math.round(n)).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
const ROUNDING_WORDS = { nearest_even: "nearest even", toward_zero: "toward zero", stochastic: "stochastic" };
const plural = (n, word) => `${grouped(n)} ${word}${n === 1 ? "" : "s"}`;
const listed = (words) => (words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`);

function short(n) {
  const steps = [[2 ** 20, "Mi"], [2 ** 10, "Ki"]];
  const step = steps.find(([size]) => n >= size);
  return step ? `${Math.round((10 * n) / step[0]) / 10}${step[1]}` : String(n);
}

function decibels(snr) {
  if (snr === Infinity) return "no error";
  return `${snr.toFixed(1).replace("-", "−")} dB`;
}

const sharePercent = (share) => (share > 0.995 && share < 0.9999 ? "over 99 %" : share >= 0.0995 ? `${Math.round(100 * share)} %` : `${(100 * share).toPrecision(2)} %`);

// Noise can make the variance any multiple; the tables hold it up to 3.
const varianceText = (vrr) => (vrr > 3 ? "over 3" : vrr.toFixed(3));

// Tables leave out the widths between the last two; an answer there is a range.
function bitsText(bits) {
  if (bits === null) return `over ${WIDEST}`;
  const place = data.man_bits.indexOf(bits);
  const before = place > 0 ? data.man_bits[place - 1] : bits - 1;
  if (place === 0 && bits > 1) return `${bits} or fewer`;
  return before < bits - 1 ? `${before + 1}–${bits}` : String(bits);
}

// The accumulator as the command line takes it.
function accumulatorName(setting) {
  if (setting.unit !== null) return setting.unit + (setting.promote === null ? "" : `,promote_every=${setting.promote}`);
  const rounding = setting.rounding === "nearest_even" ? "" : `,${setting.rounding}`;
  return `e${data.exp_bits}m${setting.bits}${rounding}${setting.chunk === null ? "" : `,chunk=${setting.chunk}`}`;
}

function settingName(setting) {
  const density = setting.density === 1 ? "" : `, density ${setting.density}`;
  return `${accumulatorName(setting)} · ${setting.inputs}${density}`;
}

function parseLength(text) {
  const factors = text.trim().toLowerCase().replace(/,/g, "").split(/[x*×]/);
  const numbers = factors.map((factor) => (/^\s*\d+(\.\d+)?(e\+?\d+)?\s*$/.test(factor) ? Number(factor) : NaN));
  const product = numbers.reduce((a, b) => a * b, 1);
  return Number.isInteger(product) && product >= 1 ? product : null;
}
