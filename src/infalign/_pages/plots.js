// Line plots as SVG with labels on the curves, and a cursor for the mouse and for the keyboard.

function svg(name, attributes, parent, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

// Scales: value to share of the axis and back, and where its ticks go.
const linear = (low, high, ticks, format) => ({
  to: (x) => (x - low) / (high - low), from: (p) => low + p * (high - low), low, high, ticks, format,
});
const logarithmic = (low, high, ticks, format) => ({
  to: (x) => Math.log(x / low) / Math.log(high / low), from: (p) => low * (high / low) ** p, low, high, ticks, format,
});

function evenTicks(low, high, about) {
  const rough = (high - low) / about, unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 2.5, 5, 10].find((f) => f * unit >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

// Heights moved apart until neighbors are `gap` from each other, between `low` and `high`.
function spread(heights, gap, low, high) {
  const order = heights.map((_, i) => i).sort((a, b) => heights[a] - heights[b]);
  const groups = [];
  for (const i of order) {
    groups.push({ members: [i], middle: heights[i] });
    for (;;) {  // groups that overlap become one, around their mean
      const last = groups.at(-1), before = groups.at(-2), reach = (g) => ((g.members.length - 1) * gap) / 2;
      last.middle = clamp(last.middle, low + reach(last), Math.max(low + reach(last), high - reach(last)));
      if (!before || before.middle + reach(before) + gap <= last.middle - reach(last) + 1e-9) break;
      const size = before.members.length + last.members.length;
      before.middle = (before.middle * before.members.length + last.middle * last.members.length) / size;
      before.members.push(...last.members);
      groups.pop();
    }
  }
  const placed = [];
  for (const group of groups) {
    group.members.forEach((i, j) => { placed[i] = group.middle + (j - (group.members.length - 1) / 2) * gap; });
  }
  return placed;
}

// A plot in `host`. `draw(spec)` shows
//   x, y: scales; xLabel, yLabel; description; cursorWord(x);
//   curves: [{ key, label, points: [[x, y]…], at(x), strong }]; labels: "end", "inside" or "none";
//   what `under` and `over` add; `under` may return boxes that labels keep clear of.
// `onPick(x)` is called on clicks and on Enter.
class Plot {
  constructor(host, label, onPick) {
    this.host = host; this.onPick = onPick; this.spec = null; this.cursor = null;
    host.tabIndex = 0;
    host.setAttribute("role", "slider");
    host.setAttribute("aria-label", `${label}: cursor, moved with the arrow keys`);
    this.readout = document.createElement("div");
    this.readout.className = "readout"; this.readout.hidden = true;
    this.readout.setAttribute("aria-hidden", "true");
    host.append(this.readout);
    host.addEventListener("pointermove", (e) => this.point(e));
    host.addEventListener("pointerdown", (e) => this.point(e));
    host.addEventListener("pointerleave", () => this.moveTo(null));
    host.addEventListener("click", (e) => { if (this.onPick && this.point(e)) this.onPick(this.spec.x.from(this.cursor)); });
    host.addEventListener("focus", () => { if (host.matches(":focus-visible")) this.moveTo(this.cursor ?? this.home()); });
    host.addEventListener("blur", () => this.moveTo(null));
    host.addEventListener("keydown", (e) => this.key(e));
    new ResizeObserver(() => this.spec && this.draw(this.spec)).observe(host);
  }

  home() { return this.spec && this.spec.home !== undefined ? clamp(this.spec.x.to(this.spec.home), 0, 1) : 0.5; }

  point(event) {
    if (!this.spec) return false;
    const box = this.host.getBoundingClientRect();
    const share = (event.clientX - box.left - this.left) / this.width;
    if (share < -0.02 || share > 1.02) { this.moveTo(null); return false; }
    this.moveTo(clamp(share, 0, 1));
    return true;
  }

  key(event) {
    const step = event.shiftKey ? 0.1 : 0.01, at = this.cursor ?? this.home();
    const moves = { ArrowLeft: at - step, ArrowRight: at + step, ArrowDown: at - step, ArrowUp: at + step, Home: 0, End: 1 };
    if (event.key in moves) this.moveTo(clamp(moves[event.key], 0, 1));
    else if (event.key === "Enter" && this.onPick) this.onPick(this.spec.x.from(at));
    else if (event.key === "Escape") this.moveTo(null);
    else return;
    event.preventDefault();
  }

  // The cursor at a share of the axis, with the values of the curves there.
  moveTo(share) {
    this.cursor = share;
    if (this.line) this.line.setAttribute("visibility", share === null ? "hidden" : "visible");
    this.readout.hidden = share === null;
    if (share === null || !this.spec) return;
    const { x, curves, cursorWord, format } = this.spec, value = x.from(share);
    const rows = curves.map((c) => [c, c.at(value)]).filter(([, y]) => Number.isFinite(y)).sort((a, b) => b[1] - a[1]);
    this.line.setAttribute("transform", `translate(${this.left + share * this.width} 0)`);
    const title = document.createElement("b");
    title.textContent = cursorWord(value);
    this.readout.replaceChildren(title, ...rows.map(([curve, y]) => {
      const row = document.createElement("span"), name = document.createElement("span"), figure = document.createElement("span");
      name.className = `k-${curve.key}`; name.textContent = curve.label; figure.textContent = format(y);
      row.append(name, figure);
      return row;
    }));
    const room = share * this.width + this.left, wide = this.readout.offsetWidth;
    this.readout.style.left = `${room > wide + 20 ? room - wide - 12 : Math.min(room + 12, this.host.clientWidth - wide - 4)}px`;
    this.host.setAttribute("aria-valuenow", value.toPrecision(4));
    this.host.setAttribute("aria-valuetext", `${cursorWord(value)}: ${rows.map(([c, y]) => `${c.label} ${format(y)}`).join(", ")}`);
  }

  draw(spec) {
    this.spec = spec;
    if (!this.host.clientWidth) return;  // hidden: drawn when it is seen
    const wide = this.host.clientWidth, high = this.host.clientHeight, { x, y } = spec;
    const longest = Math.max(0, ...spec.curves.map((c) => c.label.length));
    this.left = 54; this.top = 14;
    this.width = wide - this.left - (spec.labels === "end" ? Math.min(26 + 7.3 * longest, 0.36 * wide) : 26);
    this.height = high - this.top - 44;
    const px = (v) => this.left + x.to(v) * this.width, py = (v) => this.top + (1 - y.to(v)) * this.height;
    const root = svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": spec.description });
    const bottom = this.top + this.height, right = this.left + this.width;
    for (const tick of y.ticks) {
      svg("line", { class: "grid", x1: this.left, x2: right, y1: py(tick), y2: py(tick) }, root);
      svg("text", { x: this.left - 7, y: py(tick) + 4, "text-anchor": "end" }, root, y.format(tick));
    }
    for (const tick of x.ticks) {
      svg("line", { class: "axis-line", x1: px(tick), x2: px(tick), y1: bottom, y2: bottom + 5 }, root);
      svg("text", { x: px(tick), y: bottom + 18, "text-anchor": "middle" }, root, x.format(tick));
    }
    svg("line", { class: "axis-line", x1: this.left, x2: right, y1: bottom, y2: bottom }, root);
    svg("text", { x: this.left + this.width / 2, y: bottom + 37, "text-anchor": "middle" }, root, spec.xLabel);
    const clip = `clip-${this.host.id}`;
    const region = svg("clipPath", { id: clip }, svg("defs", {}, root));
    svg("rect", { x: this.left - 3, y: this.top - 3, width: this.width + 6, height: this.height + 6 }, region);
    const inside = svg("g", { "clip-path": `url(#${clip})` }, root);
    const taken = spec.under && spec.under({ svg, px, py, inside, root, left: this.left, right, top: this.top, bottom });
    for (const curve of [...spec.curves].reverse()) {
      const points = curve.points.map(([a, b]) => `${px(a).toFixed(1)} ${py(b).toFixed(1)}`);
      if (points.length > 1) {
        svg("path", { class: `curve k-${curve.key}${curve.strong ? " strong" : ""}`, d: `M${points.join("L")}` }, inside);
      }
    }
    if (spec.over) spec.over({ svg, px, py, inside, root, left: this.left, right, top: this.top, bottom });
    this.tags(root, px, py, taken || []);
    this.line = svg("line", { class: "cursor", y1: this.top, y2: bottom, x1: 0, x2: 0, visibility: "hidden" }, root);
    if (this.drawn) this.drawn.replaceWith(root); else this.host.append(root);
    this.drawn = root;
    this.host.setAttribute("aria-valuemin", x.low.toPrecision(4));
    this.host.setAttribute("aria-valuemax", x.high.toPrecision(4));
    this.moveTo(this.cursor);
    if (this.cursor === null) this.host.setAttribute("aria-valuenow", x.from(this.home()).toPrecision(4));
  }

  // Names on the curves: at their right ends, or inside, where a curve is farthest from the others.
  tags(root, px, py, taken) {
    const { curves, labels, x, y } = this.spec, bottom = this.top + this.height;
    const named = curves.filter((c) => c.points.length > 1);
    if (labels === "none") return;
    if (labels === "end") {
      const ends = named.map((c) => clamp(py(c.points.at(-1)[1]), this.top, bottom));
      const starts = named.map((c) => px(c.points.at(-1)[0]));
      spread(ends, 15, this.top + 2, bottom - 2).forEach((height, i) => {
        const from = Math.min(starts[i], this.left + this.width);
        svg("line", { class: `leader k-${named[i].key}`, x1: from + 2, y1: ends[i], x2: this.left + this.width + 12, y2: height }, root);
        svg("text", { class: `tag k-${named[i].key}`, x: this.left + this.width + 15, y: height + 4 }, root, named[i].label);
      });
      return;
    }
    const boxes = [...taken];
    for (const curve of named) {
      const size = 6.9 * curve.label.length;
      let best = null;
      for (let i = 2; i <= 38; i++) {
        const share = i / 40, cx = this.left + share * this.width, value = x.from(share), cy = py(curve.at(value));
        if (!(cy > this.top && cy < bottom)) continue;
        for (const [anchor, dx, dy] of [["end", -7, -6], ["start", 7, 14], ["start", 7, -6], ["end", -7, 14]]) {
          const from = anchor === "end" ? cx + dx - size : cx + dx, base = cy + dy;
          const box = [from, base - 11, from + size, base + 3];
          if (box[0] < this.left + 2 || box[2] > this.left + this.width - 2 || box[1] < this.top || box[3] > bottom - 2) continue;
          let room = 60;
          for (const other of named) {
            for (const part of [0, 0.25, 0.5, 0.75, 1]) {
              const oy = py(clamp(other.at(x.from((box[0] + part * size - this.left) / this.width)), y.low, y.high));
              const away = oy < box[1] ? box[1] - oy : oy > box[3] ? oy - box[3] : -20;
              room = Math.min(room, other === curve ? away + 12 : away);
            }
          }
          for (const b of boxes) if (box[0] < b[2] + 6 && b[0] < box[2] + 6 && box[1] < b[3] && b[1] < box[3]) room -= 80;
          const score = Math.min(room, 25) - 4 * Math.abs(share - 0.55);
          if (!best || score > best.score) best = { score, box, anchor, tx: cx + dx, ty: base };
        }
      }
      if (!best) continue;
      boxes.push(best.box);
      svg("text", { class: `tag k-${curve.key}`, x: best.tx, y: best.ty, "text-anchor": best.anchor }, root, curve.label);
    }
  }
}
