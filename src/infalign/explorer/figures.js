// The three figures of a computed view.

const shortLabel = (row) => ({
  optimal: "optimal", identity: "identity", probit: "raw reward", log: "log",
  exponential: `exp t=${minus(row.spec.split(":")[1] || "")}`, best: `exp t=${minus(row.spec.split(":")[1] || "")}`,
  power: `u^${row.spec.split(":")[1]}`,
}[row.name]);

function drawFrontier(view, plot) {
  const { rows, curves, axis, kl, game, state } = view, parts = 90;
  const shown = rows.filter((row) => curves[row.name]).map((row) => {
    const { at, last } = curves[row.name], points = [];
    for (let i = 0; i <= parts; i++) { const x = last * (i / parts) ** 2; points.push([x, at(x)]); }
    return { key: row.name, label: shortLabel(row), points, at, strong: row.name === "optimal", row };
  });
  const all = shown.flatMap((c) => c.points.map((p) => p[1])).concat(rows.map((row) => row.win).filter(Number.isFinite));
  const low = Math.min(game.even, ...all), high = Math.max(game.even + 0.01, ...all), room = 0.04 * (high - low);
  const bottom = Math.max(0, low - room), top = Math.min(1, high + room);
  const digits = top - bottom < 0.04 ? 1 : 0;
  const best = shown.find((c) => c.key === "optimal");
  plot.draw({
    x: linear(0, axis, evenTicks(0, axis, 6), (v) => figure(v)),
    y: linear(bottom, top, evenTicks(bottom, top, 6), (v) => `${(100 * v).toFixed(digits)} %`),
    xLabel: "KL from the reference, nats", curves: shown, labels: "end", home: kl,
    description: `Win rate against KL, from 0 to ${figure(axis)} nats. At ${figure(kl, 3)} nats: ${rows.map((row) => `${rowWords(row)} ${percent(row.win)}`).join(", ")}.`,
    cursorWord: (x) => `${figure(x, 3)} nats`, format: (y) => percent(y),
    under({ svg, px, py, inside, top: y0, bottom: y1, root }) {
      if (best) {
        const edge = best.points.map(([a, b]) => `${px(a)} ${py(b)}`);
        const lower = best.points.map(([a, b]) => `${px(a)} ${py(b - GOOD)}`).reverse();
        svg("path", { class: "band", d: `M${edge.join("L")}L${lower.join("L")}Z` }, inside);
      }
      svg("line", { class: "budget", x1: px(kl), x2: px(kl), y1: y0, y2: y1 }, root);
    },
    over({ svg, px, py, inside }) {
      for (const row of [...rows].reverse()) {
        if (!Number.isFinite(row.win)) continue;
        const finite = state.counted === "samples" && row.counted && !row.counted.unreachable;
        const group = svg("g", { class: `k-${row.name}` }, inside);
        if (finite) svg("line", { class: "drop", x1: px(kl), x2: px(kl), y1: py(row.win), y2: py(row.counted.win) }, group);
        svg("circle", { class: finite ? "dot hollow" : "dot", cx: px(kl), cy: py(row.win), r: finite ? 3.5 : 4.5 }, group);
        if (finite) svg("circle", { class: "dot", cx: px(kl), cy: py(row.counted.win), r: 4.5 }, group);
      }
    },
  });
}

// The quantile axis, even or logarithmic towards one end, and the points to draw at.
function quantileAxis(zoom) {
  const share = (v) => `${figure(100 * v)} %`;
  if (zoom === "even") {
    const at = [0, 0.0005, 0.001, 0.002, 0.004, 0.007];
    const inner = Array.from({ length: 99 }, (_, i) => (i + 1) / 100);
    return {
      scale: linear(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1], (v) => figure(v)),
      points: [...at, ...inner, ...at.map((d) => 1 - d).reverse()].map((u) => [u, u, 1 - u]),
      word: (u) => `u = ${figure(u, 3)}`, label: "quantile u of a reply", split: (u) => [u, 1 - u],
    };
  }
  const top = zoom === "top", ticks = [1, 0.1, 0.01, 0.001, 0.0001];
  const base = logarithmic(1, 1e-4, ticks, share);
  const flipped = { ...logarithmic(1e-4, 1, ticks, share) };
  const points = Array.from({ length: 141 }, (_, i) => 1e-4 ** (i / 140));
  return {
    scale: top ? base : flipped,
    points: (top ? points : points.reverse()).map((d) => (top ? [d, 1 - d, d] : [d, d, 1 - d])),
    word: (d) => `${top ? "top" : "bottom"} ${figure(100 * d, 2)} %`,
    label: top ? "replies from the top: best …" : "… to the bottom", split: (d) => (top ? [1 - d, d] : [d, 1 - d]),
    caption: top ? "share of the reference’s replies that are better" : "share of the reference’s replies that are worse",
  };
}

function drawPaid(view, plot) {
  const axis = quantileAxis(view.state.zoom);
  const shown = view.rows.map((row) => {
    const { phi, bounded } = row.transform, edge = bounded ? 0 : 0.01;
    const low = phi(edge, 1 - edge), high = phi(1 - edge, edge);
    const value = (u, above) => (phi(Math.max(u, 1e-9), Math.max(above, 1e-9)) - low) / (high - low);
    return {
      key: row.name, label: shortLabel(row), strong: row.name === "optimal",
      points: axis.points.map(([x, u, above]) => [x, clamp(value(u, above), -0.3, 1.3)]),
      at: (x) => value(...axis.split(x)),
    };
  });
  plot.draw({
    x: axis.scale, y: linear(-0.08, 1.12, [0, 0.25, 0.5, 0.75, 1], (v) => figure(v)),
    xLabel: axis.caption || axis.label, curves: shown, labels: "inside", home: 0.5,
    description: `Training reward against quantile, for ${view.rows.map(rowWords).join(", ")}.`,
    cursorWord: axis.word, format: (y) => minus(y.toFixed(3)),
  });
}

function drawDensity(view, plot) {
  const axis = quantileAxis(view.state.zoom), even = view.state.zoom === "even";
  const shown = view.rows.filter((row) => row.policy).map((row) => {
    const log = row.name === "optimal" ? row.transform.logDensity
      : (u, above) => row.transform.phi(Math.max(u, 1e-9), Math.max(above, 1e-9)) / row.policy.beta - row.policy.logZ;
    const f = (u, above) => Math.exp(log(u, above));
    return {
      key: row.name, label: shortLabel(row), strong: row.name === "optimal",
      points: axis.points.map(([x, u, above]) => [x, f(u, above)]), at: (x) => f(...axis.split(x)),
    };
  });
  // Factors of two, as far as the curves go within three sensible decades.
  const inner = even ? ([x]) => x > 0.03 && x < 0.99 : () => true;
  const values = shown.flatMap((c) => c.points.filter(inner).map((p) => p[1]));
  const high = 2 ** Math.ceil(Math.log2(clamp(Math.max(...values), 2, even ? 64 : 8192)) + 0.3);
  const low = 2 ** Math.floor(Math.log2(clamp(Math.min(...values), even ? 1 / 16 : 1 / 256, 0.5)) - 0.3);
  const times = (v) => `${figure(v, v < 0.1 ? 2 : 3)}×`, every = Math.log2(high / low) > 9 ? 4 : 2, ticks = [];
  for (let tick = 1; tick <= high; tick *= every) ticks.push(tick);
  for (let tick = 1 / every; tick >= low; tick /= every) ticks.push(tick);
  const words = (v) => (v < 1 ? `1/${1 / v}×` : `${v}×`);
  const y = logarithmic(low, high, ticks, words);
  for (const curve of shown) curve.points = curve.points.map(([a, b]) => [a, clamp(b, low / 4, high * 4)]);
  plot.draw({
    x: axis.scale, y, xLabel: axis.caption || axis.label, curves: shown, labels: "inside", home: 0.5,
    description: `Density of the trained model's replies over the quantile, relative to the reference, for ${view.rows.map(rowWords).join(", ")}.`,
    cursorWord: axis.word, format: (v) => (v < 0.001 ? "under 0.001×" : times(v)),
    under({ svg, py, inside, left, right }) {
      svg("line", { class: "even", x1: left, x2: right, y1: py(1), y2: py(1) }, inside);
      const top = view.state.zoom === "top";  // there the curves leave room below, at the right
      const [x, y, anchor] = top ? [right - 4, py(1) + 14, "end"] : [left + 6, py(1) - 5, "start"];
      svg("text", { x, y, "text-anchor": anchor }, inside, "as often as the reference");
      return [top ? [x - 160, y - 11, x, y + 3] : [x, y - 11, x + 160, y + 3]];
    },
  });
}
