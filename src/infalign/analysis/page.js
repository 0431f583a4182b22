// The curves over n of each measure: estimates, and the bands in which they hold.

const scaled = (plot, y) => (plot.null !== 0 ? percent(y) : `${minus((100 * y).toFixed(1))} points`);

function band(kit, rows, low, high, key, name) {
  const edge = (end) => rows.filter((r) => r[end] !== null).map((r) => `${kit.px(r.n)} ${kit.py(r[end])}`);
  const upper = edge(high), lower = edge(low).reverse();
  if (upper.length < 2) return;
  kit.svg("path", { class: `${name} k-${key}`, d: `M${upper.join("L")}L${lower.join("L")}Z` }, kit.inside);
}

function drawn(plot) {
  const last = plot.curves[0].sizes.at(-1).n, all = plot.curves.flatMap((c) => c.sizes);
  const ends = all.flatMap((r) => [r.joint_low, r.joint_high, r.value]).filter((v) => v !== null);
  if (plot.null !== null) ends.push(plot.null);
  const room = 0.05 * (Math.max(...ends) - Math.min(...ends)) || 0.05;
  const low = Math.min(...ends) - room, high = Math.max(...ends) + room;
  const powers = [];
  for (let n = 1; n <= last; n *= 2) powers.push(n);
  const at = (rows) => (x) => {
    const n = Math.round(x);
    return (rows.find((r) => r.n >= n) ?? rows.at(-1)).value;
  };
  return {
    x: logarithmic(1, Math.max(last, 2), powers.length > 8 ? powers.filter((_, i) => i % 2 === 0) : powers, String),
    y: linear(low, high, evenTicks(low, high, 5), (v) => minus(String(Number((100 * v).toFixed(2))))),
    xLabel: "n", labels: "end", home: 1, description: plot.caption,
    cursorWord: (x) => `n = ${Math.round(x)}`, format: (y) => scaled(plot, y),
    curves: plot.curves.map((c, i) => ({
      key: `p${i % 6}`, label: c.policy, points: c.sizes.map((r) => [r.n, r.value]), at: at(c.sizes), strong: true,
    })),
    under(kit) {
      plot.curves.forEach((c, i) => {
        band(kit, c.sizes, "joint_low", "joint_high", `p${i % 6}`, "outer");
        band(kit, c.sizes, "low", "high", `p${i % 6}`, "inner");
      });
      if (plot.null !== null) kit.svg("line", { class: "even", x1: kit.left, x2: kit.right, y1: kit.py(plot.null), y2: kit.py(plot.null) }, kit.inside);
    },
  };
}

dataOf("plots").forEach((plot, i) => new Plot(document.getElementById(`plot-${i}`), plot.title).draw(drawn(plot)));
