// Win rate and KL of tilted policies.
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

// F at the grid's nodes: each step by the quintic through six neighbors.
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
  const policy = tiltAt(fit.grid, phi, kl, start);
  const win = policy ? winRate(fit, tiltedDensity(phi, policy)) : NaN;
  return Number.isNaN(win) ? null : { ...policy, win };
}

// The exponential transform that wins most at `kl`: a scan, then golden sections in asinh(t).
// Rounded to three digits, since nothing depends on more. Yields between trials.
function* bestExponent(game, kl) {
  const score = (s) => {
    const policy = s < -6 ? null : candidateAt(arena(game, TRANSFORMS.exponential(Math.sinh(s))), kl);
    return policy ? policy.win : -1;
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
