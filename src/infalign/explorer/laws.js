// Procedures as laws on the quantile axis, and transforms of the quantile.
//
// A reference reply has quantile u ~ Uniform(0, 1). A procedure that keeps one reply by rank turns
// a policy with CDF F into one with CDF H(F): `cdf` is H, `density` is h = H'.

const clampUnit = (s) => (s > 0 ? (s < 1 ? s : 1) : 0);

// log of the gamma function: Stirling's series, after the recurrence has moved x above 9.
function logGamma(x) {
  let shift = 0;
  while (x < 9) shift -= Math.log(x++);
  const z = 1 / (x * x);
  const series = (1 / 12 - z * (1 / 360 - z * (1 / 1260 - z * (1 / 1680 - z / 1188)))) / x;
  return shift + (x - 0.5) * Math.log(x) - x + Math.log(2 * Math.PI) / 2 + series;
}

// Regularized incomplete beta I_s(a, b) by its continued fraction (DLMF 8.17.22), from the end
// where it converges fast. `scale` is -log B(a, b).
function incompleteBeta(s, a, b, scale) {
  if (s <= 0) return 0;
  if (s >= 1) return 1;
  if (s > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - s, b, a, scale);
  const tiny = 1e-300;
  let c = 1, d = 1 / (1 - ((a + b) * s) / (a + 1) || tiny), product = d;
  for (let m = 1; m < 400; m++) {
    const even = (m * (b - m) * s) / ((a + 2 * m - 1) * (a + 2 * m));
    const odd = (-(a + m) * (a + b + m) * s) / ((a + 2 * m) * (a + 2 * m + 1));
    let change = 1;
    for (const term of [even, odd]) {
      d = 1 / (1 + term * d || tiny);
      c = 1 + term / c || tiny;
      change = c * d;
      product *= change;
    }
    if (Math.abs(change - 1) < 1e-14) break;
  }
  return (Math.exp(a * Math.log(s) + b * Math.log1p(-s) + scale) * product) / a;
}

// Each law: cdf, density, its largest density, whether H is convex or concave, and `width`, the
// finest scale of h in logit(u), which a grid must resolve.
const fineness = (n) => Math.min(1, Math.sqrt(32 / n));  // many draws also magnify what F lacks
const LAWS = {
  "sampling": () => ({
    cdf: clampUnit, density: () => 1, peak: 1, convex: true, concave: true, width: 1, draws: 1,
  }),
  "best-of-n": ({ n }) => ({
    cdf: (s) => clampUnit(s) ** n,
    density: (s) => n * clampUnit(s) ** (n - 1),
    peak: n, convex: true, concave: n === 1, width: fineness(n), draws: n,
  }),
  "worst-of-n": ({ n }) => ({
    cdf: (s) => 1 - (1 - clampUnit(s)) ** n,
    density: (s) => n * (1 - clampUnit(s)) ** (n - 1),
    peak: n, convex: n === 1, concave: true, width: fineness(n), draws: n,
  }),
  "order-statistic": ({ n, k }) => {
    if (k === 1) return LAWS["best-of-n"]({ n });
    if (k === n) return LAWS["worst-of-n"]({ n });
    const a = n - k + 1;  // the selected reply has a - 1 others below it and k - 1 above
    const scale = logGamma(n + 1) - logGamma(a) - logGamma(k);
    const density = (s) => (s <= 0 || s >= 1 ? 0
      : Math.exp(scale + (a - 1) * Math.log(s) + (k - 1) * Math.log1p(-s)));
    return {
      cdf: (s) => incompleteBeta(s, a, k, scale), density,
      peak: density((a - 1) / (n - 1)), convex: false, concave: false,
      width: Math.min(1, 2 / Math.sqrt(Math.min(a, k))), draws: n,
    };
  },
  "best-of-poisson": ({ mu }) => ({
    cdf: (s) => clampUnit(s) * Math.exp(mu * (clampUnit(s) - 1)),
    density: (s) => (1 + mu * clampUnit(s)) * Math.exp(mu * (clampUnit(s) - 1)),
    peak: 1 + mu, convex: true, concave: mu === 0, width: fineness(mu), draws: 1 + mu,
  }),
};

// The law of a table: H, h and h' at the nodes sin²(πi / 2N), which are close at both ends. Between
// two nodes h is the cubic through h and h', and H is its integral from the lower node.
function tabulated({ cdf, density, slope, draws }) {
  const cells = cdf.length - 1, node = (i) => Math.sin((Math.PI * i) / (2 * cells)) ** 2;
  const place = (s) => {
    const i = Math.min(cells - 1, Math.floor(((2 * cells) / Math.PI) * Math.asin(Math.sqrt(s))));
    const low = node(i), width = node(i + 1) - low;
    return [i, width, (s - low) / width];
  };
  const peak = density.reduce((a, b) => Math.max(a, b)), flat = 1e-9 * peak;
  return {
    cdf: (s) => {
      const [i, width, t] = place(clampUnit(s)), square = t * t;
      return cdf[i] + width * (density[i] * (t + square * t * (t / 2 - 1)) + density[i + 1] * square * t * (1 - t / 2)
        + width * square * (slope[i] * (1 / 2 + t * (t / 4 - 2 / 3)) + slope[i + 1] * t * (t / 4 - 1 / 3)));
    },
    density: (s) => {
      const [i, width, t] = place(clampUnit(s)), rest = 1 - t;
      return density[i] * (1 + 2 * t) * rest * rest + density[i + 1] * t * t * (3 - 2 * t)
        + width * t * rest * (slope[i] * rest - slope[i + 1] * t);
    },
    peak, convex: slope.every((x) => x >= -flat), concave: slope.every((x) => x <= flat),
    width: Math.min(1, Math.sqrt(8 / draws)), draws,
  };
}

// The law of a procedure as `readProcedure` reads it.
const lawOf = (read) => (Object.hasOwn(TABLES, read.procedure) ? tabulated(TABLES[read.procedure]) : LAWS[read.procedure](read));

// log of the upper tail of the standard normal at z >= 0: Laplace's continued fraction, or the
// series of the integral from 0 where that is faster.
function logNormalTail(z) {
  if (z < 2.5) {
    let term = z, sum = z;
    for (let i = 1; term > 1e-17 * sum; i++) sum += term *= (z * z) / (2 * i + 1);
    return Math.log(0.5 - sum * Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI));
  }
  let fraction = z;
  for (let i = 60; i > 0; i--) fraction = z + i / fraction;
  return -z * z / 2 - Math.log(fraction) - Math.log(2 * Math.PI) / 2;
}

// Standard normal quantile, from the smaller of u and 1 - u so that neither tail loses digits.
function probit(u, above) {
  if (u > above) return -probit(above, u);
  const target = Math.log(u);
  let z = u > 0.4 ? 2.5 * (0.5 - u) : Math.sqrt(Math.max(0.1, -2 * target - 1.8));
  for (let i = 0; i < 50; i++) {  // Newton on log tail, which is concave and nearly a parabola
    const tail = logNormalTail(z);
    const step = (tail - target) * Math.exp(tail + z * z / 2) * Math.sqrt(2 * Math.PI);
    z = Math.max(0, z + step);
    if (Math.abs(step) < 1e-13 * (1 + z)) break;
  }
  return -z;
}

// Φ(u, 1 - u) of each family; `bounded` says whether it is finite at both ends. `width` is the finest
// scale of a tilt in logit(u): a steep loss at 0 (t < 0) cuts the axis off as sharply as 1/|t|.
const TRANSFORMS = {
  "identity": () => ({ phi: (u) => u, bounded: true }),
  "log": () => ({ phi: (u, above) => (u < 0.5 ? Math.log(u) : Math.log1p(-above)), bounded: false }),
  "probit": () => ({ phi: probit, bounded: false }),
  "exponential": (t) => {
    if (t === 0) return TRANSFORMS.identity();
    if (t < 0) return { phi: (u) => Math.expm1(t * u) / Math.expm1(t), bounded: true, width: -4 / t };
    return {  // in powers of e^-t, which cannot overflow
      phi: (u, above) => (Math.exp(-t * above) * Math.expm1(-t * u)) / Math.expm1(-t),
      bounded: true,
    };
  },
  "power": (a) => ({
    phi: (u, above) => Math.exp(a * (u < 0.5 ? Math.log(u) : Math.log1p(-above))), bounded: true,
  }),
};
