// Line charts over the length of the sum, drawn as SVG at the width there is.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 54, right: 14, top: 12, bottom: 40 };

function element(name, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
  if (text !== null) node.textContent = text;
  return node;
}

function html(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  Object.entries(attributes).forEach(([key, value]) => {
    if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null) node.setAttribute(key, value);
  });
  node.append(...children);
  return node;
}

// `lines`: {name, at(k) → number or null, say(k) → text, look, step}; `levels`: {y, text}; `stops`: {k, text}.
class Chart {
  constructor(host, choose) {
    this.host = host;
    this.hovered = null;
    this.svg = element("svg", { role: "img" });
    this.key = html("ul", { class: "key" });
    host.append(this.svg, this.key);
    this.svg.addEventListener("pointermove", (event) => this.hover(this.lengthAt(event)));
    this.svg.addEventListener("pointerleave", () => this.hover(null));
    this.svg.addEventListener("click", (event) => choose(this.lengthAt(event)));
  }

  x(k) {
    const [first, last] = [LOGS[0], LOGS[LOGS.length - 1]];
    return MARGIN.left + ((Math.log2(k) - first) / (last - first)) * (this.width - MARGIN.left - MARGIN.right);
  }

  y(value) {
    const [low, high] = this.spec.range;
    return this.height - MARGIN.bottom - ((value - low) / (high - low)) * (this.height - MARGIN.top - MARGIN.bottom);
  }

  lengthAt(event) {
    const box = this.svg.getBoundingClientRect();
    const share = (event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
    const [first, last] = [LOGS[0], LOGS[LOGS.length - 1]];
    return Math.round(2 ** Math.min(last, Math.max(first, first + share * (last - first))));
  }

  hover(k) {
    this.hovered = k;
    this.readOut();
  }

  draw(spec) {
    this.spec = spec;
    this.width = Math.max(300, this.host.clientWidth);
    this.height = Math.round(Math.min(340, Math.max(230, this.width * 0.46)));
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.svg.setAttribute("aria-label", spec.label);
    this.svg.replaceChildren();
    this.axes();
    (spec.ticks || []).forEach(({ k, look }) => {
      const bottom = this.height - MARGIN.bottom;
      this.svg.append(element("line", { x1: this.x(k), x2: this.x(k), y1: bottom, y2: bottom - 9, class: `rug ${look}` }));
    });
    (spec.stops || []).forEach((stop) => this.stop(stop));
    (spec.levels || []).forEach((level) => this.level(level));
    this.plot = this.window();
    this.svg.append(this.plot);
    [...spec.lines].reverse().forEach((line) => this.line(line));
    this.hair = element("g", { class: "hair" });
    this.svg.append(this.hair);
    this.readOut();
  }

  // An SVG of its own, which cuts off what leaves the range.
  window() {
    const [x, y] = [MARGIN.left, MARGIN.top - 3];
    const [width, height] = [this.width - x - MARGIN.right, this.height - y - MARGIN.bottom + 3];
    return element("svg", { x, y, width, height, viewBox: `${x} ${y} ${width} ${height}` });
  }

  axes() {
    const { range, every, unit } = this.spec;
    const bottom = this.height - MARGIN.bottom;
    for (let value = Math.ceil(range[0] / every) * every; value <= range[1] + 1e-9; value += every) {
      const y = this.y(value);
      this.svg.append(element("line", { x1: MARGIN.left, x2: this.width - MARGIN.right, y1: y, y2: y, class: "grid" }));
      const text = String(Math.round(value * 100) / 100).replace("-", "−");
      this.svg.append(element("text", { x: MARGIN.left - 7, y: y + 4, class: "tick end" }, text));
    }
    const stride = this.width < 520 ? 4 : 2;
    for (let power = LOGS[0]; power <= LOGS[LOGS.length - 1]; power += stride) {
      const x = this.x(2 ** power);
      this.svg.append(element("line", { x1: x, x2: x, y1: bottom, y2: bottom + 4, class: "axis" }));
      this.svg.append(element("text", { x, y: bottom + 17, class: "tick middle" }, short(2 ** power)));
    }
    this.svg.append(element("line", { x1: MARGIN.left, x2: this.width - MARGIN.right, y1: bottom, y2: bottom, class: "axis" }));
    const middle = (MARGIN.left + this.width - MARGIN.right) / 2;
    this.svg.append(element("text", { x: middle, y: this.height - 5, class: "title middle" }, "k, length of the sum (products; Ki = 1,024)"));
    const up = element("text", { class: "title middle", transform: `translate(13 ${bottom / 2 + 6}) rotate(-90)` }, unit);
    this.svg.append(up);
  }

  level({ y, text }) {
    if (y < this.spec.range[0] || y > this.spec.range[1]) return;
    const height = this.y(y);
    this.svg.append(element("line", { x1: MARGIN.left, x2: this.width - MARGIN.right, y1: height, y2: height, class: "level" }));
    this.svg.append(element("text", { x: this.width - MARGIN.right, y: height - 4, class: "tick end halo" }, text));
  }

  stop({ k, text }) {
    if (k < KNOTS[0] || k >= KNOTS[KNOTS.length - 1]) return;
    const x = this.x(k);
    this.svg.append(element("line", { x1: x, x2: x, y1: MARGIN.top, y2: this.height - MARGIN.bottom, class: "stop" }));
    const left = x > this.width * 0.6;
    const place = { x: x + (left ? -5 : 5), y: MARGIN.top + 10, class: `tick halo ${left ? "end" : ""}` };
    this.svg.append(element("text", place, text));
  }

  line({ at, look, step }) {
    const parts = [];
    let open = false;
    let before = null;
    const lengths = step ? fineLengths() : KNOTS;
    lengths.forEach((k) => {
      const value = at(k);
      if (value === null || !Number.isFinite(value)) {
        open = false;
        return;
      }
      const [x, y] = [this.x(k).toFixed(1), this.y(value).toFixed(1)];
      if (!open) parts.push(`M${x} ${y}`);
      else if (!step) parts.push(`L${x} ${y}`);
      else if (value !== before) parts.push(`H${x}V${y}`);
      else if (k === lengths[lengths.length - 1]) parts.push(`H${x}`);
      open = true;
      before = value;
    });
    this.plot.append(element("path", { d: parts.join(""), class: `line ${look}` }));
  }

  // The hair at the chosen (or hovered) length, and what each line says there.
  readOut() {
    if (!this.spec) return;
    const k = this.hovered || this.spec.k;
    const x = this.x(Math.min(Math.max(k, KNOTS[0]), KNOTS[KNOTS.length - 1]));
    this.hair.replaceChildren(element("line", { x1: x, x2: x, y1: MARGIN.top, y2: this.height - MARGIN.bottom }));
    this.key.replaceChildren(html("li", { class: "at" }, `k = ${grouped(k)}`));
    this.spec.lines.forEach((line) => {
      const value = line.at(k);
      if (value !== null && Number.isFinite(value) && !line.step && value <= this.spec.range[1]) {
        this.hair.append(element("circle", { cx: x, cy: this.y(value), r: 4, class: line.look }));
      }
      const swatch = element("svg", { width: 26, height: 10, "aria-hidden": "true" });
      swatch.append(element("line", { x1: 1, x2: 25, y1: 5, y2: 5, class: `line ${line.look}` }));
      this.key.append(html("li", {}, swatch, `${line.name} `, html("b", {}, line.say(k))));
    });
  }
}

// Where steps are looked for: forty lengths to the octave.
let fine = null;
function fineLengths() {
  if (fine === null) {
    const all = [];
    for (let x = LOGS[0]; x <= LOGS[LOGS.length - 1] + 1e-9; x += 0.025) all.push(Math.round(2 ** x));
    fine = [...new Set(all)];
  }
  return fine;
}
