// The figures of a study: policies beside the frontier, and win rates over n.

const study = dataOf("study");
const point = (p, kind) => ({ class: `k-p${p % 6}`, ...kind });

function between(curve) {
  return (x) => {
    const after = curve.findIndex(([a]) => a >= x);
    if (after < 0 || x < curve[0][0]) return NaN;
    if (after === 0) return curve[0][1];
    const [[a, b], [c, d]] = [curve[after - 1], curve[after]];
    return b + ((d - b) * (x - a)) / (c - a);
  };
}

function bounds(values) {
  const known = values.filter((v) => Number.isFinite(v));
  const low = Math.max(0, Math.floor(20 * Math.min(0.5, ...known)) / 20);
  return [low, Math.min(1, Math.ceil(20 * Math.max(0.55, ...known)) / 20)];
}

function frontier(host, task) {
  const largest = task.frontier.at(-1)[0];
  const [low, high] = bounds([...task.frontier.map(([, y]) => y), ...task.points.flatMap((p) => [p.low, p.high])]);
  const x = linear(0, largest, evenTicks(0, largest, 5), (v) => figure(v, 3));
  const y = linear(low, high, evenTicks(low, high, 5), (v) => percent(v, 0));
  const curves = [{ key: "optimal", label: "best possible", points: task.frontier, at: between(task.frontier), strong: true }];
  new Plot(host, `${task.name}: win rate by KL`).draw({
    x, y, curves, labels: "end", xLabel: "KL, nats per sequence", format: (v) => percent(v),
    description: task.points.map((p) => `${p.method}: ${percent(p.value)} at ${figure(p.kl, 3)} nats`).join("; "),
    cursorWord: (v) => `KL ${figure(v, 3)}`,
    over: ({ svg, px, py, inside, root }) => {
      task.points.forEach((p) => {
        const mark = point(p.color, {});
        svg("line", { ...mark, x1: px(p.kl), x2: px(p.kl), y1: py(p.low), y2: py(p.high), stroke: "currentColor", "stroke-width": 1.5 }, inside);
        svg("circle", { class: `dot k-p${p.color % 6}`, cx: px(p.kl), cy: py(p.value), r: 5 }, root);
        svg("text", { class: `tag k-p${p.color % 6}`, x: px(p.kl) + 8, y: py(p.value) + 4 }, root, p.method);
      });
    },
  });
}

function byN(host, task, curves, name) {
  const ns = curves[0].points.map(([n]) => n), last = ns.at(-1);
  const [low, high] = bounds(curves.flatMap((c) => c.points.map(([, y]) => y)));
  const ticks = [1, 2, 4, 8, 16, 32].filter((n) => n <= last);
  new Plot(host, `${task.name}: ${name}`).draw({
    x: logarithmic(1, last, ticks, String), y: linear(low, high, evenTicks(low, high, 5), (v) => percent(v, 0)),
    curves: curves.map((c) => ({ key: `p${c.color % 6}`, label: c.method, points: c.points, at: between(c.points) })),
    labels: "end", xLabel: "n, responses drawn by each side", format: (v) => percent(v),
    description: curves.map((c) => `${c.method}: ${percent(c.points[0][1])} at n = 1, ${percent(c.points.at(-1)[1])} at n = ${last}`).join("; "),
    cursorWord: (v) => `n = ${Math.round(v)}`,
  });
}

study.forEach((task, number) => {
  if (task.points.length && task.frontier.length) frontier(document.getElementById(`frontier-${number}`), task);
  task.families.forEach(({ name, curves }, index) => {
    if (curves.length && curves[0].points.length > 1) byN(document.getElementById(`by-n-${index}-of-${number}`), task, curves, name);
  });
});
