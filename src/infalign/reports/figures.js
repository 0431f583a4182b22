// The figures of a report, drawn from its results.

const RESULTS = dataOf("results");
const colorOf = (method) => `p${RESULTS.policies.findIndex((p) => p.method === method) % 6}`;

// A plot with a title inside a figure.
function panel(name, title) {
  const host = element("div", "plot");
  host.id = `${name}-${document.querySelectorAll(".plot").length}`;
  const heading = title ? [element("h4", "", title)] : [];
  document.querySelector(`[data-figure="${name}"]`).append(element("div", "panel", null, ...heading, host));
  return new Plot(host, title || name);
}

// The legend of a figure: the policies in it, and what else.
function legend(name, entries) {
  const host = document.querySelector(`[data-key="${name}"]`);
  host.append(...entries.map(([key, label]) => {
    const mark = element("i", `mark k-${key}`);
    return element("span", "", null, mark, document.createTextNode(label));
  }));
}

const policyKeys = (among) => RESULTS.policies.filter((p) => !among || among(p)).map((p) => [colorOf(p.method), p.label]);
const share = (v) => `${Math.round(100 * v)} %`;

// A piecewise linear curve through points.
function through(points) {
  return (x) => {
    const i = points.findIndex((p) => p[0] >= x);
    if (i < 0) return points.at(-1)[1];
    if (i === 0) return points[0][1];
    const [a, b] = [points[i - 1], points[i]];
    return a[1] + ((b[1] - a[1]) * (x - a[0])) / (b[0] - a[0] || 1);
  };
}

// A scale of shares between the lowest and the highest of the values, with some room.
function shareScale(values, floor = 0.5) {
  const low = Math.max(0, Math.min(floor, ...values) - 0.02), high = Math.min(1.02, Math.max(floor + 0.1, ...values) + 0.02);
  return linear(low, high, evenTicks(low, Math.min(high, 1), 6), share);
}

const zip = (xs, ys) => xs.map((x, i) => [x, ys[i]]).filter((p) => p[1] !== null && p[1] !== undefined);

function drawKl() {
  const measured = RESULTS.policies.filter((p) => p.kl);
  for (const [spec, words] of Object.entries(RESULTS.words)) {
    const curves = RESULTS.frontier[spec];
    if (!curves) continue;  // a majority vote has no theory
    const seen = [...measured.map((p) => p.kl.value), RESULTS.target_kl || 0];
    const end = Math.min(Math.max(...curves.kl), 2 * Math.max(...seen));
    const lines = [["optimal", "best possible", "optimal"], ["identity", "identity", "theory dash"], ["probit", "probit", "theory dots"]].map(([name, label, key]) => {
      const inRoots = through(zip(curves.kl.map(Math.sqrt), curves[name]));  // there they start straight
      const at = (x) => inRoots(Math.sqrt(x)), points = Array.from({ length: 91 }, (_, i) => end * (i / 90) ** 2).map((x) => [x, at(x)]);
      return { key, label, points, at, strong: name === "optimal" };
    });
    const rates = measured.map((p) => [p, p.win_rates[spec], "dot"]);
    for (const name of RESULTS.gold) rates.push(...measured.map((p) => [p, p.gold[name][spec], "dot hollow"]));
    const ends = rates.flatMap(([, r]) => [r.value, r.low, r.high]).filter((v) => v !== null);
    panel("win_rate", words).draw({
      x: linear(0, end, evenTicks(0, end, 5), (v) => figure(v)),
      y: shareScale([...ends, ...lines.map((c) => c.at(end))]),
      xLabel: "KL from the reference, nats", curves: lines, labels: "end", home: measured.length ? measured[0].kl.value : end / 2,
      description: `Win rate against KL, decoded with ${words}. ${measured.map((p) => `${p.label}: ${figure(p.kl.value, 3)} nats, ${percent(p.win_rates[spec].value)}`).join("; ")}.`,
      cursorWord: (x) => `${figure(x, 3)} nats`, format: (y) => percent(y),
      under({ svg, px, root, top, bottom }) {
        if (RESULTS.target_kl) svg("line", { class: "budget", x1: px(RESULTS.target_kl), x2: px(RESULTS.target_kl), y1: top, y2: bottom }, root);
      },
      over({ svg, px, py, inside }) {
        for (const [policy, rate, look] of rates) {
          const group = svg("g", { class: `k-${colorOf(policy.method)}` }, inside), { kl } = policy;
          const x = px(kl.value), y = py(rate.value);
          if (rate.low !== null) svg("line", { class: "whisker", x1: x, x2: x, y1: py(rate.low), y2: py(rate.high) }, group);
          if (kl.low !== null && look === "dot") svg("line", { class: "whisker", x1: px(kl.low), x2: px(kl.high), y1: y, y2: y }, group);
          svg("circle", { class: look, cx: x, cy: y, r: 5 }, group);
        }
      },
    });
  }
  const hollow = RESULTS.gold.length ? [["hollow", `by ${RESULTS.gold.join(", ")}`]] : [];
  legend("win_rate", [...policyKeys((p) => p.kl), ...hollow]);
}

function drawN() {
  for (const [family, part] of Object.entries(RESULTS.by_n)) {
    Object.entries(part.win_rates).forEach(([reward, rates], row) => {
      const values = Object.values(rates).flat().flatMap((r) => [r.value, r.low, r.high]).filter((v) => v !== null);
      const curves = RESULTS.policies.map((p) => {
        const points = part.n.map((n, i) => [n, rates[p.method][i].value]), logs = points.map(([n, y]) => [Math.log2(n), y]);
        const at = through(logs);
        return { key: colorOf(p.method), label: p.label, points, at: (x) => at(Math.log2(x)), method: p.method };
      });
      const last = part.n.at(-1);
      panel("by_n", `${family}, by ${row ? reward : "the training reward"}`).draw({
        x: logarithmic(1, Math.max(last, 1.01), part.n, String), y: shareScale(values),
        xLabel: "n, responses drawn by each side", curves, labels: "none", home: last,
        description: `Win rate against n, ${family}, by ${row ? reward : "the training reward"}.`,
        cursorWord: (x) => `n = ${figure(x, 3)}`, format: (y) => percent(y),
        under({ svg, px, py, inside, left, right }) {
          svg("line", { class: "even", x1: left, x2: right, y1: py(0.5), y2: py(0.5) }, inside);
          for (const curve of curves) {
            const own = rates[curve.method].map((r, i) => [part.n[i], r]).filter(([, r]) => r.low !== null);
            const edge = [...own.map(([n, r]) => [n, r.high]), ...own.reverse().map(([n, r]) => [n, r.low])];
            if (own.length > 1) svg("path", { class: `reach k-${curve.key}`, d: `M${edge.map(([n, y]) => `${px(n)} ${py(y)}`).join("L")}Z` }, inside);
          }
        },
        over({ svg, px, py, inside }) {
          for (const curve of curves) for (const [n, y] of curve.points) svg("circle", { class: `dot k-${curve.key}`, cx: px(n), cy: py(y), r: 3.5 }, inside);
        },
      });
    });
  }
  legend("by_n", policyKeys());
}

function drawQuantiles() {
  const { edges } = RESULTS.quantile_density, curves = [];
  const steps = (heights) => heights.flatMap((h, i) => [[edges[i], h], [edges[i + 1], h]]);
  const add = (method, key, label) => {
    const heights = RESULTS.quantile_density[method];
    if (heights) curves.push({ key, label, points: steps(heights), at: (u) => heights[clamp(Math.floor(u * heights.length), 0, heights.length - 1)] });
  };
  for (const p of RESULTS.policies) add(p.method, colorOf(p.method), p.label);
  add("optimal", "optimal dash", "best possible");
  const high = Math.max(1.5, ...curves.flatMap((c) => c.points.map((p) => p[1]))) * 1.06;
  panel("quantiles", "").draw({
    x: linear(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1], (v) => figure(v)), y: linear(0, high, evenTicks(0, high, 5), (v) => `${figure(v)}×`),
    xLabel: "quantile among the reference’s responses", curves, labels: "none", home: 0.975,
    description: `Density of the responses' quantiles, relative to the reference: ${curves.map((c) => c.label).join(", ")}.`,
    cursorWord: (u) => `u = ${figure(u, 2)}`, format: (y) => `${y.toFixed(2)}×`,
    under({ svg, py, inside, left, right }) { svg("line", { class: "even", x1: left, x2: right, y1: py(1), y2: py(1) }, inside); },
  });
  legend("quantiles", curves.map((c) => [c.key.split(" ")[0], c.label]));
}

function drawTransform() {
  const { u, phi, raw } = RESULTS.transform, curves = [];
  const shaped = RESULTS.policies.find((p) => p.transform !== "raw reward"), plain = RESULTS.policies.find((p) => p.transform === "raw reward");
  const add = (values, key, label) => { if (values) { const points = zip(u, values); curves.push({ key, label, points, at: through(points) }); } };
  add(phi, shaped ? colorOf(shaped.method) : "optimal", `${shaped ? shaped.transform : "optimal"} transform`);
  add(raw, plain ? colorOf(plain.method) : "raw", "raw reward");
  add(u, "theory dash", "identity");
  panel("transform", "").draw({
    x: linear(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1], (v) => figure(v)), y: linear(-0.05, 1.08, [0, 0.25, 0.5, 0.75, 1], (v) => figure(v)),
    xLabel: "quantile among the reference’s responses", curves, labels: "none", home: 0.5,
    description: `Training reward against quantile: ${curves.map((c) => c.label).join(", ")}.`,
    cursorWord: (x) => `u = ${figure(x, 2)}`, format: (y) => minus(y.toFixed(2)),
  });
  legend("transform", curves.map((c) => [c.key.split(" ")[0], c.label]));
}

// The mean over the last 5 % of the steps, at each step.
function running(points) {
  const window = Math.max(1, Math.floor(points.length / 20));
  return points.map(([x], i) => {
    const own = points.slice(Math.max(0, i - (window >> 1)), i + (window >> 1) + 1);
    return [x, own.reduce((sum, p) => sum + p[1], 0) / own.length];
  });
}

function drawTraining() {
  const records = RESULTS.policies.filter((p) => RESULTS.training[p.method]);
  const last = Math.max(...records.flatMap((p) => RESULTS.training[p.method].step)), end = last * 1.08 + 0.5;
  const show = (series, title, level, word, format, landed) => {
    const own = records.map((p) => [p, zip(RESULTS.training[p.method].step, RESULTS.training[p.method][series])]).filter(([, points]) => points.length);
    const curves = own.map(([p, points]) => {
      const mean = running(points);
      return { key: colorOf(p.method), label: p.label, points: mean, at: through(mean), faint: points };
    });
    const marks = landed ? records.map((p) => [p, RESULTS.landing[p.method], RESULTS.training[p.method]]).filter(([, landing]) => landing) : [];
    const values = [...curves.flatMap((c) => c.faint.map((p) => p[1])), ...marks.map(([, l]) => l.kl), level];
    const low = Math.min(series === "kl" ? 0 : 0.45, ...values), high = Math.max(...values, series === "kl" ? 0 : 0.6) * 1.08;
    panel("training", title).draw({
      x: linear(Math.min(1, last - 1), end, evenTicks(1, last, 5).filter(Number.isInteger), String), y: linear(low, high, evenTicks(low, high, 5), (v) => figure(v)),
      xLabel: "training step", curves, labels: "none", home: last,
      description: `${title} by training step. ${marks.map(([p, l]) => `${p.label} landed at ${figure(l.kl, 3)} nats, α = ${figure(l.alpha, 3)}`).join("; ")}`,
      cursorWord: (x) => `step ${Math.round(x)}`, format,
      under({ svg, px, py, inside, left, right }) {
        svg("line", { class: "even", x1: left, x2: right, y1: py(level), y2: py(level) }, inside);
        svg("text", { x: left + 6, y: py(level) - 5 }, inside, word);
        for (const c of curves) svg("path", { class: `curve faint k-${c.key}`, d: `M${c.faint.map(([x, y]) => `${px(x)} ${py(y)}`).join("L")}` }, inside);
      },
      over({ svg, px, py, inside }) {
        marks.forEach(([p, landing, record], i) => {
          const group = svg("g", { class: `k-${colorOf(p.method)}` }, inside), points = zip(record.step, record.kl);
          const x = px(last + (end - last) * (0.45 + 0.3 * (i % 2))), y = py(landing.kl);
          if (points.length) svg("line", { class: "flight", x1: px(points.at(-1)[0]), y1: py(points.at(-1)[1]), x2: x, y2: y }, group);
          svg("path", { class: "landing", d: `M${x} ${y - 7}l7 7l-7 7l-7 -7Z` }, group);
          const title = svg("title", {}, group);
          title.textContent = `${p.label}: landed at ${figure(landing.kl, 3)} nats, α = ${figure(landing.alpha, 3)}`;
        });
      },
    });
  };
  show("kl", "KL from the reference, nats", RESULTS.target_kl, "target", (y) => figure(y, 3), true);
  show("quantile", "Mean quantile of the responses", 0.5, "reference", (y) => y.toFixed(3), false);
  legend("training", records.map((p) => {
    const landing = RESULTS.landing[p.method];
    return [colorOf(p.method), landing ? `${p.label}: landed at ${figure(landing.kl, 3)} nats, α = ${figure(landing.alpha, 3)}` : p.label];
  }));
}

function drawCalibration() {
  const { shares, band } = RESULTS.calibration, bins = shares.length, high = Math.max(...shares, band[1]) * 1.15;
  const at = (u) => shares[clamp(Math.floor(u * bins), 0, bins - 1)];
  panel("calibration", "").draw({
    x: linear(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1], (v) => figure(v)), y: linear(0, high, evenTicks(0, high, 4), (v) => `${figure(100 * v, 3)} %`),
    xLabel: "quantile of a fresh reference response", curves: [{ key: "optimal", label: "share of responses", points: [], at }], labels: "none", home: 0.5,
    description: `Shares of ${bins} bins of quantiles: ${shares.map((s) => percent(s)).join(", ")}. Band of 95 %: ${percent(band[0])} to ${percent(band[1])}.`,
    cursorWord: (u) => `u = ${figure(u, 2)}`, format: (y) => percent(y),
    under({ svg, px, py, inside, left, right, bottom }) {
      svg("rect", { class: "reach k-p0", x: left, width: right - left, y: py(band[1]), height: py(band[0]) - py(band[1]) }, inside);
      shares.forEach((s, i) => svg("rect", { class: "bar", x: px(i / bins) + 1, width: px(1 / bins) - px(0) - 2, y: py(s), height: bottom - py(s) }, inside));
      svg("line", { class: "even", x1: left, x2: right, y1: py(1 / bins), y2: py(1 / bins) }, inside);
    },
  });
  legend("calibration", [["p0", "95 % band of exact calibration"]]);
}

const DRAW = { win_rate: drawKl, by_n: drawN, quantiles: drawQuantiles, transform: drawTransform, training: drawTraining, calibration: drawCalibration };
for (const host of document.querySelectorAll("[data-figure]")) DRAW[host.dataset.figure]();
