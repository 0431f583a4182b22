// The policy that wins most at a KL or at a strength, by shooting.
//
// At the optimum (log f)' = h(F) g / β with F(0) = 0 and F(1) = 1 (InfAlign, arXiv:2412.19792,
// theorem 1, on the quantile axis). Along the curve (v, s = F(v)), x = v + s is a parameter in which
// neither a spike of f nor a gap is steep; with y = log f,
//     dv/dx = 1 / (1 + e^y),   ds/dx = 1 / (1 + e^-y),   dy/dx = h(s) g(v) / (β (1 + e^y)).
// From v = s = 1 with a guess for y it is followed down to x = 0, where s must be 0 as well; or, with
// H convex, from v = s = 0 up to x = 2: f(0) is then next to 1 and f(1) may be huge, and on the way
// down their difference would be lost.

// Dormand and Prince's pair of orders 5 and 4.
const STAGES = [
  [1 / 5],
  [3 / 40, 9 / 40],
  [44 / 45, -56 / 15, 32 / 9],
  [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
  [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
  [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
];
const ERROR = [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40];

// Follow the curve with log f(1) = y down to x = 0, or with log f(0) = y up to x = 2. A state is v, s,
// y; with `path`, which collects the states, also H(s), and ∫ f log f and 1 - W so far. Null where it
// stalls.
function follow({ law, against }, beta, y, { tolerance = 1e-9, longest = 0.25, path } = {}) {
  const way = law.convex ? 1 : -1, start = law.convex ? 0 : 1;
  const size = path ? 6 : 3;
  const rates = Array.from({ length: 7 }, () => new Float64Array(size));
  const derive = (z, out) => {
    const small = 1 / (1 + Math.exp(Math.abs(z[2]))), large = 1 - small;
    const dv = z[2] > 0 ? small : large, ds = z[2] > 0 ? large : small;
    const g = against.density(z[0]), h = law.density(z[1]);
    out[0] = way * dv; out[1] = way * ds; out[2] = (way * h * g * dv) / beta;
    if (path) { out[3] = way * h * ds; out[4] = z[2] * ds; out[5] = z[3] * g * dv; }
  };
  let left = 2, step = 1e-3 / Math.max(law.peak, against.peak);
  let state = Float64Array.of(start, start, y, start, 0, 0).slice(0, size), trial = new Float64Array(size);
  const stage = new Float64Array(size);
  derive(state, rates[0]);
  if (path) path.push(state.slice());
  for (let count = 0; left > 0 && count < 4000; count++) {
    step = Math.min(step, left, longest);
    for (let k = 0; k < 6; k++) {
      const row = STAGES[k], out = k === 5 ? trial : stage;
      for (let j = 0; j < size; j++) {
        let sum = 0;
        for (let m = 0; m <= k; m++) sum += row[m] * rates[m][j];
        out[j] = state[j] + step * sum;
      }
      derive(out, rates[k + 1]);
    }
    let worst = 0;
    for (let j = 0; j < size; j++) {
      let error = 0;
      for (let m = 0; m < 7; m++) error += ERROR[m] * rates[m][j];
      // A spike of f at 1 is narrow in v: there it is the digits of 1 - v that count.
      const scale = j === 0 ? clamp(1 - state[0], 1e-7, 1) : j === 2 ? 1 + Math.abs(state[2]) : 1;
      worst = Math.max(worst, Math.abs(step * error) / (tolerance * scale));
    }
    if (worst <= 1) {
      left = left - step < 1e-15 ? 0 : left - step;
      [state, trial] = [trial, state];
      rates[0].set(rates[6]);
      if (path) path.push(state.slice());
    } else if (!(worst < Infinity)) worst = 1e6;
    step *= clamp(0.9 * worst ** -0.2, 0.1, 5);
    if (step < 1e-16) return null;
  }
  return left > 0 ? null : state;
}

// The measures of a curve whose ends are both right; null if it misses the other end. `first` is log f
// where it starts, `top` is log f(1), and `path` is listed from the top.
function measured(game, beta, first) {
  const path = [], end = follow(game, beta, first, { longest: 0.02, path });
  if (!end) return null;
  const miss = missAt(game, end);
  if (Math.abs(miss) > 2e-4) return null;
  if (game.law.convex) path.reverse();
  return { beta, first, top: path[0][2], kl: end[4], win: 1 - end[5], miss, path };
}

// s at the lower end, where it should be 0, positive if the curve met too little mass; or what v at
// the upper end lacks to 1.
const missAt = (game, end) => (game.law.convex ? 1 - end[0] : end[1]);
function missBy(game, beta, first) {
  const end = follow(game, beta, first);
  return end ? missAt(game, end) : NaN;
}

// f falls by at most e^-m from its top, so that log f(1) cannot be larger.
function highestTop({ law, against }, beta) {
  const m = (law.peak * against.peak) / beta;
  return Math.log(m / -Math.expm1(-m)) + 1e-9;
}

// A bracket of the root of `f` around `start`, widened until it holds one: [a, b, fa, fb] or null.
function bracket(f, start, width, low = -Infinity, high = Infinity) {
  for (let half = width; half < 1e4 * width; half *= 4) {
    const a = clamp(start - half, low, high), b = clamp(start + half, low, high), fa = f(a), fb = f(b);
    if (fa * fb <= 0) return [a, b, fa, fb];
    if (a === low && b === high) break;
  }
  return null;
}

// The optimum at β. With H convex or G concave there is one stationary point; elsewhere a net is cast
// for all roots in log f(1), and the best is selected. Roots that slip through the net are lost.
function optimumAt(game, beta, near) {
  const miss = (first) => missBy(game, beta, first), most = highestTop(game, beta);
  const polish = ([a, b, fa, fb]) => measured(game, beta, findRoot(miss, a, b, fa, fb, 1e-13));
  if (game.law.convex) {  // log f(0) is at most 0
    const range = near ? bracket(miss, near.first, 0.01, -Infinity, 0) : bracket(miss, 0, 0.01, -Infinity, 0);
    return range && polish(range);
  }
  if (game.unique && near) {
    const range = bracket(miss, near.top, 0.1, 0, most);
    return range && polish(range);
  }
  const parts = game.unique ? 1 : 60;
  let best = null, a = 0, fa = miss(0);
  for (let i = 1; i <= parts; i++) {
    const b = (most * i) / parts, fb = miss(b);
    const candidate = fa * fb <= 0 ? polish([a, b, fa, fb]) : null;
    if (candidate && (!best || candidate.win - best.win > beta * (candidate.kl - best.kl))) best = candidate;
    a = b; fa = fb;
  }
  return best;
}

// The stationary point with a given log f(1): the root in log β. Where there are several at one β,
// as where the curve of W against KL is not concave, this still tells them apart.
function stationaryAt(game, top, near) {
  const miss = (logBeta) => missBy(game, Math.exp(logBeta), top);
  const range = bracket(miss, Math.log(near.beta), 0.2);
  return range && measured(game, Math.exp(findRoot(miss, ...range, 1e-13)), top);
}

// Where to start for a small KL: the tilt of the gradient at the reference, Φ' = h g.
function firstGuess({ law, grid, against }, kl) {
  const slope = Float64Array.from(grid.u, (u) => law.density(u) * against.density(u));
  const phi = cumulate(grid, slope), flat = tilt(grid, phi, 1e12);
  const beta = Math.sqrt(flat.variance / (2 * kl));
  return { beta, top: phi.at(-1) / beta - tilt(grid, phi, beta).logZ };
}

// The optimum whose KL is `kl`, or null. `near` is one with another KL. In log β the logarithm of KL
// is nearly straight, and so it is in log of log f(1).
function optimumWithKl(game, kl, near) {
  let last = near || null;
  const guess = near || firstGuess(game, kl);
  const solve = game.unique
    ? (x) => optimumAt(game, Math.exp(-x), last)
    : (x) => stationaryAt(game, Math.exp(x), last || guess);
  const off = (x) => {
    const solution = solve(x);
    if (!solution || !(solution.kl > 0)) return NaN;
    last = solution;
    return Math.log(solution.kl / kl);
  };
  let a = game.unique ? -Math.log(guess.beta) : Math.log(guess.top), fa = off(a);
  if (Number.isNaN(fa)) return null;
  let b = a - clamp(fa / 2, -2, 2) + 1e-4, fb = off(b);
  for (let i = 0; fa * fb > 0; i++) {
    if (i > 60) return null;
    const newton = (-1.3 * fb * (b - a)) / (fb - fa);
    const next = b + (newton * fb < 0 ? clamp(newton, -2, 2) : -Math.sign(fb));
    a = b; fa = fb; b = next; fb = off(b);
  }
  if (!(fa * fb <= 0)) return null;
  findRoot(off, a, b, fa, fb, 1e-10);
  return Math.abs(last.kl / kl - 1) < 1e-5 ? last : null;
}

// Whether no other stationary point at its β has a larger W - β KL, as far as the net of
// `optimumAt` finds them: then nothing with this KL wins more.
function isBest(game, optimum) {
  if (game.unique) return true;
  const best = optimumAt(game, optimum.beta);
  return !best || best.win - optimum.win - optimum.beta * (best.kl - optimum.kl) < 1e-6;
}

// Points of the curve of W against KL from `start` on, up (`way` 1) or down (-1), until `last` nats.
function* frontierFrom(game, start, way, last) {
  let here = start, stride = 0.2;
  for (let i = 0; i < 80 && (last - here.kl) * way > 0; i++) {
    const next = game.unique
      ? optimumAt(game, here.beta * Math.exp(-way * stride), here)
      : stationaryAt(game, here.top * Math.exp(way * stride), here);
    if (!next || !((next.kl - here.kl) * way > 0)) return;
    yield next;
    stride *= clamp(0.4 / Math.abs(Math.log(next.kl / here.kl)), 0.4, 2.5);
    here = next;
  }
}

// The optimum as a transform: β log f, by cubics through the solution's own slopes h(F) g / β.
function optimumTransform({ law, against }, { beta, path }) {
  const nodes = path.slice().reverse().filter((z, i, all) => i === 0 || z[0] > all[i - 1][0] + 1e-13);
  const v = nodes.map((z) => z[0]), y = nodes.map((z) => z[2]);
  const slope = nodes.map((z) => (law.density(z[1]) * against.density(z[0])) / beta);
  const logDensity = hermite(v, y, slope);
  return { phi: (u) => beta * logDensity(u), logDensity, bounded: true, nodes };
}

// The cubic through points (x, y) with slopes, x rising; level beyond its ends.
function hermite(x, y, slope) {
  return (at) => {
    const end = x.length - 1;
    if (at <= x[0]) return y[0];
    if (at >= x[end]) return y[end];
    let low = 0, high = end;
    while (high - low > 1) { const mid = (low + high) >> 1; if (x[mid] <= at) low = mid; else high = mid; }
    const d = x[high] - x[low], t = (at - x[low]) / d, s = 1 - t;
    return s * s * (1 + 2 * t) * y[low] + t * t * (1 + 2 * s) * y[high]
      + d * s * t * (s * slope[low] - t * slope[high]);
  };
}
