// Everything a view shows, computed in pieces small enough to leave the page responsive.

const NAMES = ["optimal", "identity", "probit", "log", "exponential", "best", "power"];

const games = new Map();
function gameOf(state) {
  const key = `${playedSpec(state)} ${againstSpec(state)}`;
  if (!games.has(key)) {
    if (games.size > 12) games.clear();
    const build = (spec) => lawOf(readProcedure(spec));
    const game = makeGame(build(playedSpec(state)), build(againstSpec(state)));
    game.even = winRate(game, new Float64Array(game.grid.size).fill(1));  // the reference itself
    games.set(key, game);
  }
  return games.get(key);
}

// The smallest round KL axis on which the budget is not at the edge.
const axisFor = (kl) => [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 7.5].find((top) => top >= 1.4 * kl) || 7.5;

// Win rate as a smooth function of KL, through points in the square root of KL, where it is tame.
function winCurve(points, slopes) {
  const q = points.map((p) => Math.sqrt(p[0])), w = points.map((p) => p[1]);
  const estimated = q.map((_, i) => {
    const a = Math.max(0, i - 1), b = Math.min(q.length - 1, i + 1);
    return (w[b] - w[a]) / (q[b] - q[a]);
  });
  const curve = hermite(q, w, slopes || estimated);
  const last = points.at(-1)[0] * (1 + 1e-9);
  return (kl) => (kl >= 0 && kl <= last ? curve(Math.sqrt(kl)) : NaN);
}

// Yields after each piece what is ready: { state, game, kl, optimum, rows, curves, problem, finite… }.
function* work(state, previous) {
  const game = gameOf(state), near = previous && previous.game === game ? previous.optimum : null;
  const view = { state, game, kl: state.kl, optimum: null, rows: [], curves: {}, problem: null, proven: true };
  if (state.spend === "beta") {
    view.optimum = optimumAt(game, state.beta);
    view.kl = view.optimum ? view.optimum.kl : NaN;
    if (!(view.kl >= 0.002 && view.kl <= 5.5)) {
      view.problem = `At β = ${figure(state.beta)} the optimum ${view.kl < 0.002
        ? "hardly moves: its KL is below 0.002 nats. Use a smaller β"
        : "moves farther than this page computes (5 nats). Use a larger β"}, or give a KL budget.`;
      yield view;
      return;
    }
  } else {
    view.optimum = optimumWithKl(game, state.kl, near) || (near && optimumWithKl(game, state.kl));
  }
  view.axis = axisFor(view.kl);
  const add = (name, spec, transform) => {
    const ground = arena(game, transform), policy = candidateAt(ground, view.kl);
    view.rows.push({ name, spec, transform, ground, policy, beta: policy ? policy.beta : NaN, win: policy ? policy.win : NaN });
  };
  if (view.optimum) {
    const { beta, win } = view.optimum;
    view.rows.push({ name: "optimal", spec: "optimal", transform: optimumTransform(game, view.optimum), beta, win, policy: view.optimum });
  }
  const exponent = (t) => [`exponential:${t}`, TRANSFORMS.exponential(t)];
  for (const name of ["identity", "probit", "log"]) if (state[name]) add(name, name, TRANSFORMS[name]());
  if (state.exponential) add("exponential", ...exponent(state.t));
  if (state.power) add("power", `power:${state.a}`, TRANSFORMS.power(state.a));
  yield view;
  if (state.best) {
    const search = bestExponent(game, view.kl);
    let step = search.next();
    for (; !step.done; step = search.next()) yield view;
    add("best", ...exponent(step.value));
    yield view;
  }
  if (view.optimum) { view.proven = isBest(game, view.optimum); yield view; }
  yield* curves(view);
  view.curvesReady = true;
  yield view;
  if (state.counted === "samples") yield* counted(view);
}

function* curves(view) {
  const { game, axis, optimum } = view;
  if (optimum) {
    const key = "optimal", cached = game.frontier;
    if (cached && cached.axis === axis) view.curves[key] = cached.curve;
    else {
      const optima = [optimum];
      for (const [way, last] of [[-1, axis / 300], [1, axis]]) {
        for (const next of frontierFrom(game, optimum, way, last)) { optima.push(next); yield view; }
      }
      optima.sort((a, b) => a.kl - b.kl);
      // dW/dKL = β along the frontier, so dW/dq = 2 q β with q = sqrt(KL).
      const points = [[0, game.even], ...optima.map((f) => [f.kl, f.win])];
      const slopes = optima.map((f) => 2 * Math.sqrt(f.kl) * f.beta);
      view.curves[key] = { at: winCurve(points, [slopes[0], ...slopes]), last: Math.min(axis, optima.at(-1).kl) };
      game.frontier = { axis, curve: view.curves[key] };
    }
    yield view;
  }
  game.candidates ||= new Map();
  for (const row of view.rows) {
    if (row.name === "optimal") continue;
    const key = `${row.spec} ${axis}`;
    if (!game.candidates.has(key)) {
      const points = [], parts = 30;
      let start;
      for (let i = parts; i > 0; i--) {
        const kl = axis * (i / parts) ** 2, policy = candidateAt(row.ground, kl, start);
        if (policy) { points.unshift([kl, policy.win]); start = policy.beta * (i / Math.max(1, i - 1)); }
        if (i % 6 === 0) yield view;
      }
      points.unshift([0, game.even]);
      if (game.candidates.size > 60) game.candidates.clear();
      game.candidates.set(key, { at: winCurve(points), last: points.at(-1)[0] });
    }
    view.curves[row.name] = game.candidates.get(key);
    yield view;
  }
}

// Win rates with K samples: blocks of simulated prompts, the first of which sets β.
function* counted(view) {
  const { state, game, kl, rows } = view, samples = state.samples;
  const prompts = clamp(Math.round(160000 / samples), 250, 2000), block = Math.max(10, Math.round(6000 / samples));
  const random = makeRandom(20241219), edges = drawCells(random, prompts, samples), width = samples + 2;
  for (const row of rows) {
    if (!row.policy) continue;
    const phi = onCells(samples, row.transform), beta = cellBeta(edges, phi, kl, row.beta);
    yield view;
    if (beta === null) { row.counted = { unreachable: true }; continue; }
    let sum = 0, squares = 0, size = 0;
    for (let from = 0; from < prompts; from += block) {
      const wins = cellWins(game, edges.subarray(from * width, Math.min(prompts, from + block) * width), phi, beta);
      for (const win of wins) { sum += win; squares += win * win; size++; }
      yield view;
    }
    const mean = sum / size;
    row.counted = { win: mean, error: Math.sqrt(Math.max(0, squares / size - mean * mean) / size), prompts, beta };
  }
  view.countedReady = true;
  yield view;
}
