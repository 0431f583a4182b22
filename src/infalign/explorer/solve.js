// Win rate and KL of tilted policies, and the policy that wins most.
//
// Training on Φ with strength β gives the density f = e^{Φ/β} / Z on the quantile axis. With law H
// for the policy and G for its opponent, W = ∫ G(u) h(F(u)) f(u) du and KL = ∫ f log f.

// Where `f`, with opposite signs at a and b, is zero: Chandrupatla's method, inverse quadratic
// interpolation where it can be trusted and bisection elsewhere.
function findRoot(f, a, b, fa, fb, tolerance) {
  let c = a, fc = fa, t = 0.5;
  for (let i = 0; i < 100; i++) {
    const x = a + t * (b - a), fx = f(x);
    if (Math.sign(fx) === Math.sign(fa)) { c = a; fc = fa; } else { c = b; fc = fb; b = a; fb = fa; }
    a = x; fa = fx;
    const best = Math.abs(fa) < Math.abs(fb) ? a : b;
    const least = tolerance / Math.abs(b - a);
    if (fa === 0 || least > 0.5) return best;
    const xi = (a - b) / (c - b), ratio = (fa - fb) / (fc - fb);
    t = ratio * ratio < xi && (1 - ratio) ** 2 < 1 - xi
      ? (fa / (fb - fa)) * (fc / (fb - fc)) + ((c - a) / (b - a)) * (fa / (fc - fa)) * (fb / (fc - fb))
      : 0.5;
    t = Math.min(1 - least, Math.max(least, t));
  }
  return a;
}

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

// ---- tilts ------------------------------------------------------------------------------------

// Even steps in logit(u), which are fine at both ends; `weight` is du. On this axis integrands
// vanish at the ends, where the trapezoid rule is as good as any.
function makeGrid(step) {
  const reach = 36, size = 2 * Math.round(reach / step) + 1;
  const grid = { step, size, u: new Float64Array(size), above: new Float64Array(size), weight: new Float64Array(size) };
  for (let i = 0; i < size; i++) {
    const x = (i - (size - 1) / 2) * step, small = Math.exp(-Math.abs(x)), below = small / (1 + small);
    grid.u[i] = x < 0 ? below : 1 / (1 + small);
    grid.above[i] = x < 0 ? 1 / (1 + small) : below;
    grid.weight[i] = grid.u[i] * grid.above[i] * step;
  }
  return grid;
}

// A procedure and its opponent, ready for many win rates of tilts no finer than `width` in logit(u).
function makeGame(law, against, width = 1) {
  const grid = makeGrid(Math.min(0.05, 0.1 * law.width, 0.1 * against.width, 0.25 * width));
  return {
    law, against, grid, opponent: Float64Array.from(grid.u, against.cdf),
    unique: law.convex || against.concave,
  };
}

function onGrid(grid, transform) {
  return Float64Array.from(grid.u, (u, i) => transform.phi(u, grid.above[i]));
}

// Moments of the tilt of the values `phi` on the grid: log Z, KL, and the variance of Φ under it.
function tilt(grid, phi, beta) {
  const { size, weight } = grid;
  let top = -Infinity;
  for (let i = 0; i < size; i++) if (phi[i] > top) top = phi[i];
  let z = 0, first = 0, second = 0;
  for (let i = 0; i < size; i++) {
    const d = phi[i] - top, mass = weight[i] * Math.exp(d / beta);
    z += mass; first += mass * d; second += mass * d * d;
  }
  const mean = first / z;
  return {
    beta, logZ: Math.log(z) + top / beta, kl: mean / beta - Math.log(z),
    variance: second / z - mean * mean,
  };
}

// The tilt whose KL is `kl`, or null. Newton's method on log KL as a function of log β, which is
// nearly straight: d KL / d log β = -Var(Φ) / β².
function tiltAt(grid, phi, kl, start) {
  let beta = start, low = 0, high = Infinity;
  if (!start) {
    const flat = tilt(grid, phi, 1e12);
    beta = Math.sqrt(flat.variance / (2 * kl));
  }
  for (let i = 0; i < 80; i++) {
    const now = tilt(grid, phi, beta);
    const off = Math.log(now.kl / kl);
    if (Math.abs(off) < 1e-10) return now;
    if (off > 0 || !(now.kl > 0)) low = beta; else high = beta;
    let next = beta * Math.exp((off * now.kl * beta * beta) / now.variance);
    if (!(next > low && next < high)) next = high < Infinity && low > 0 ? Math.sqrt(low * high) : low > 0 ? 3 * low : high / 3;
    if (next === beta || high / low < 1 + 1e-14) return now;
    beta = next;
  }
  return null;
}

// F at the grid's nodes: each step by the quintic through six neighbours.
function cumulate(grid, density) {
  const { size, weight } = grid, cdf = new Float64Array(size), d = new Float64Array(size + 5);
  for (let i = 0; i < size; i++) d[i + 2] = density[i] * weight[i];
  let sum = 0;
  for (let i = 0; i + 1 < size; i++) {
    sum += (802 * (d[i + 2] + d[i + 3]) - 93 * (d[i + 1] + d[i + 4]) + 11 * (d[i] + d[i + 5])) / 1440;
    cdf[i + 1] = sum;
  }
  return cdf;
}

function tiltedDensity(phi, { beta, logZ }) {
  return phi.map((value) => Math.exp(value / beta - logZ));
}

// nan where the grid is too coarse for the density: its two integrals then disagree.
function winRate({ law, grid, opponent }, density) {
  const cdf = cumulate(grid, density);
  if (!(Math.abs(cdf[grid.size - 1] - 1) < 1e-6)) return NaN;
  let total = 0;
  for (let i = 0; i < grid.size; i++) total += grid.weight[i] * opponent[i] * law.density(cdf[i]) * density[i];
  return total;
}

// A game on a grid fit for `transform`, with Φ on it. Steps are halved, so that few grids are made.
function arena(game, transform) {
  const halvings = Math.max(0, Math.ceil(Math.log2(0.2 / (transform.width || 1))));
  game.finer ||= [game];
  game.finer[halvings] ||= makeGame(game.law, game.against, 0.2 / 2 ** halvings);
  const fit = game.finer[halvings];
  return { fit, phi: onGrid(fit.grid, transform) };
}

// One transform at one KL: { kl, beta, logZ, win }, or null where the KL cannot be reached.
function candidateAt({ fit, phi }, kl, start) {
  const found = tiltAt(fit.grid, phi, kl, start);
  const win = found ? winRate(fit, tiltedDensity(phi, found)) : NaN;
  return Number.isNaN(win) ? null : { ...found, win };
}

// The exponential transform that wins most at `kl`: a scan, then golden sections in asinh(t).
// Rounded to three digits, since nothing depends on more. Yields between trials.
function* bestExponent(game, kl) {
  const score = (s) => {
    const found = s < -6 ? null : candidateAt(arena(game, TRANSFORMS.exponential(Math.sinh(s))), kl);
    return found ? found.win : -1;
  };
  const spacing = 0.8;
  let middle = 0, top = -1;
  for (let s = -5.6; s < 7.3; s += spacing) {
    const value = score(s);
    if (value > top) { top = value; middle = s; }
    yield;
  }
  const golden = (Math.sqrt(5) - 1) / 2;
  let a = middle - spacing, b = middle + spacing;
  let c = b - golden * (b - a), d = a + golden * (b - a), fc = score(c), fd = score(d);
  while (b - a > 2e-3) {
    if (fc > fd) { b = d; d = c; fd = fc; fc = score(c = b - golden * (b - a)); }
    else { a = c; c = d; fc = fd; fd = score(d = a + golden * (b - a)); }
    yield;
  }
  const t = clamp(Math.sinh((a + b) / 2), -200, 1000);
  return Math.abs(t) < 0.01 ? 0 : Number(t.toPrecision(3));
}

// ---- the optimum ------------------------------------------------------------------------------

// At the optimum (log f)' = h(F) g / β with F(0) = 0 and F(1) = 1 (InfAlign, arXiv:2412.19792,
// theorem 1, on the quantile axis). Along the curve (v, s = F(v)), x = v + s is a parameter in which
// neither a spike of f nor a gap is steep; with y = log f,
//     dv/dx = 1 / (1 + e^y),   ds/dx = 1 / (1 + e^-y),   dy/dx = h(s) g(v) / (β (1 + e^y)).
// From v = s = 1 with a guess for y it is followed down to x = 0, where s must be 0 as well.

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

// Follow the curve with log f(1) = y down to x = 0. A state is v, s, y; with `path`, which collects
// the states, also H(s), ∫ f log f and 1 - W, all counted from the upper end. Null where it stalls.
function follow({ law, against }, beta, y, { tolerance = 1e-9, longest = 0.25, path } = {}) {
  const size = path ? 6 : 3;
  const rates = Array.from({ length: 7 }, () => new Float64Array(size));
  const derive = (z, out) => {
    const small = 1 / (1 + Math.exp(Math.abs(z[2]))), large = 1 - small;
    const dv = z[2] > 0 ? small : large, ds = z[2] > 0 ? large : small;
    const g = against.density(z[0]), h = law.density(z[1]);
    out[0] = -dv; out[1] = -ds; out[2] = (-h * g * dv) / beta;
    if (path) { out[3] = -h * ds; out[4] = z[2] * ds; out[5] = z[3] * g * dv; }
  };
  let left = 2, step = 1e-3 / Math.max(law.peak, against.peak);
  let state = Float64Array.of(1, 1, y, 1, 0, 0).slice(0, size), trial = new Float64Array(size);
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

// The curve with both its ends right, measured; null if it misses the lower one.
function measured(game, beta, top) {
  const path = [], end = follow(game, beta, top, { longest: 0.02, path });
  if (!end || Math.abs(end[1]) > 2e-4) return null;
  return { beta, top, kl: end[4], win: 1 - end[5], miss: end[1], path };
}

// s at the end, where it should be 0: positive where too little mass was met on the way.
function missBy(game, beta, top) {
  const end = follow(game, beta, top);
  return end ? end[1] : NaN;
}

// f falls by at most e^-m from its top, so that log f(1) cannot be larger.
function highestTop({ law, against }, beta) {
  const m = (law.peak * against.peak) / beta;
  return Math.log(m / -Math.expm1(-m)) + 1e-9;
}

// A bracket of the root of `f` around `start`, widened until it holds one: [a, b, fa, fb] or null.
function bracket(f, start, width, low = -Infinity, high = Infinity) {
  for (let half = width; half < 1e3 * width; half *= 4) {
    const a = clamp(start - half, low, high), b = clamp(start + half, low, high), fa = f(a), fb = f(b);
    if (fa * fb <= 0) return [a, b, fa, fb];
    if (a === low && b === high) break;
  }
  return null;
}

// The optimum at β. With H convex or G concave there is one stationary point; elsewhere a net is cast
// for all roots in log f(1), the best is kept, and what slips through the net is lost.
function optimumAt(game, beta, near) {
  const miss = (top) => missBy(game, beta, top), most = highestTop(game, beta);
  const polish = ([a, b, fa, fb]) => measured(game, beta, findRoot(miss, a, b, fa, fb, 1e-13));
  if (game.unique && near) {
    const found = bracket(miss, near.top, 0.1, 0, most);
    return found && polish(found);
  }
  const parts = game.unique ? 1 : 60;
  let best = null, a = 0, fa = miss(0);
  for (let i = 1; i <= parts; i++) {
    const b = (most * i) / parts, fb = miss(b);
    const found = fa * fb <= 0 ? polish([a, b, fa, fb]) : null;
    if (found && (!best || found.win - best.win > beta * (found.kl - best.kl))) best = found;
    a = b; fa = fb;
  }
  return best;
}

// The stationary point with a given log f(1): the root in log β. Where there are several at one β,
// as where the curve of W against KL is not concave, this still tells them apart.
function stationaryAt(game, top, near) {
  const miss = (logBeta) => missBy(game, Math.exp(logBeta), top);
  const found = bracket(miss, Math.log(near.beta), 0.2);
  return found && measured(game, Math.exp(findRoot(miss, ...found, 1e-13)), top);
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
    const found = solve(x);
    if (!found || !(found.kl > 0)) return NaN;
    last = found;
    return Math.log(found.kl / kl);
  };
  let a = game.unique ? -Math.log(guess.beta) : Math.log(guess.top), fa = off(a);
  if (Number.isNaN(fa)) return null;
  let b = a - clamp(fa / 2, -1, 1) + 1e-4, fb = off(b);
  for (let i = 0; fa * fb > 0; i++) {
    if (i > 25) return null;
    const newton = (-1.3 * fb * (b - a)) / (fb - fa);
    const next = b + (newton * fb < 0 ? clamp(newton, -1, 1) : -Math.sign(fb));
    a = b; fa = fb; b = next; fb = off(b);
  }
  if (!(fa * fb <= 0)) return null;
  findRoot(off, a, b, fa, fb, 1e-10);
  return Math.abs(last.kl / kl - 1) < 1e-5 ? last : null;
}

// Whether no other stationary point at its β has a larger W - β KL, as far as the net of
// `optimumAt` finds them: then nothing with this KL wins more.
function isBest(game, found) {
  if (game.unique) return true;
  const best = optimumAt(game, found.beta);
  return !best || best.win - found.win - found.beta * (best.kl - found.kl) < 1e-6;
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
