// Win rates of a transform if quantiles are estimated from K reference samples of each prompt.
//
// The samples cut the axis into K + 1 cells, whose widths are Dirichlet(1, …, 1) and unknown to
// training: every reply in cell j gets the reward Φ(j / K), or Φ((j + 1/2) / (K + 1)) if Φ is infinite
// at 0 or 1. The tilt is constant within a cell. Win rates are means over simulated prompts, the same
// for every transform, so differences are more precise than the win rates themselves.

// A small generator of uniform numbers (Marsaglia's xorshift, 32 bits): the same page, same numbers.
function makeRandom(seed) {
  let x = seed | 0 || 1;
  return () => {
    x ^= x << 13; x ^= x >>> 17; x ^= x << 5;
    return ((x >>> 0) + 0.5) / 4294967296;
  };
}

// Cell edges of `count` prompts: rows of K + 2 numbers from 0 to 1.
function drawCells(random, count, samples) {
  const width = samples + 2, edges = new Float64Array(count * width);
  for (let row = 0; row < edges.length; row += width) {
    let sum = 0;
    for (let j = 1; j < width; j++) edges[row + j] = sum -= Math.log(random());
    for (let j = 1; j < width; j++) edges[row + j] /= sum;
  }
  return edges;
}

// The training reward of each cell.
function onCells(samples, transform) {
  return Float64Array.from({ length: samples + 1 }, (_, j) => transform.bounded
    ? transform.phi(j / samples, 1 - j / samples)
    : transform.phi((j + 0.5) / (samples + 1), (samples - j + 0.5) / (samples + 1)));
}

// Mean KL of the tilt over the prompts of `edges`.
function cellKl(edges, phi, beta) {
  const cells = phi.length, top = phi.reduce((a, b) => Math.max(a, b)), width = cells + 1;
  const lift = phi.map((value) => (value - top) / beta), weight = lift.map(Math.exp);
  let total = 0;
  for (let row = 0; row < edges.length; row += width) {
    let z = 0, mean = 0;
    for (let j = 0; j < cells; j++) {
      const mass = (edges[row + j + 1] - edges[row + j]) * weight[j];
      z += mass; mean += mass * lift[j];
    }
    total += mean / z - Math.log(z);
  }
  return (total * width) / edges.length;
}

// Gauss's rules of 2 and 4 points on [0, 1].
const RULES = [
  { at: [0.5 - Math.sqrt(1 / 12), 0.5 + Math.sqrt(1 / 12)], weight: [0.5, 0.5] },
  (() => {
    const far = Math.sqrt(3 / 7 + (2 / 7) * Math.sqrt(6 / 5)), near = Math.sqrt(3 / 7 - (2 / 7) * Math.sqrt(6 / 5));
    const light = (18 - Math.sqrt(30)) / 72, heavy = (18 + Math.sqrt(30)) / 72;
    return { at: [-far, -near, near, far].map((x) => (1 + x) / 2), weight: [light, heavy, heavy, light] };
  })(),
];

// Win rate prompt by prompt: within a cell F is linear, and 1 - W = ∫ H(F) g du is a sum of rules.
function cellWins({ law, against }, edges, phi, beta) {
  const cells = phi.length, top = phi.reduce((a, b) => Math.max(a, b)), width = cells + 1;
  const weight = phi.map((value) => Math.exp((value - top) / beta));
  const wins = new Float64Array(edges.length / width), density = new Float64Array(cells);
  for (let prompt = 0, row = 0; row < edges.length; prompt++, row += width) {
    let z = 0;
    for (let j = 0; j < cells; j++) z += (edges[row + j + 1] - edges[row + j]) * weight[j];
    let lost = 0, below = 0;
    for (let j = 0; j < cells; j++) {
      const from = edges[row + j], wide = edges[row + j + 1] - from, mass = (wide * weight[j]) / z;
      // Both laws must be nearly polynomials of low degree within a piece.
      const reach = Math.max(wide * against.peak, mass * law.peak);
      const rule = RULES[reach > 0.2 ? 1 : 0], pieces = Math.ceil(reach / 2) || 1;
      for (let p = 0; p < pieces; p++) {
        for (let q = 0; q < rule.at.length; q++) {
          const t = (p + rule.at[q]) / pieces;
          lost += (rule.weight[q] / pieces) * wide * law.cdf(below + t * mass) * against.density(from + t * wide);
        }
      }
      below += mass;
    }
    wins[prompt] = 1 - lost;
  }
  return wins;
}

// β at which the mean KL over `edges` is `kl`, or null if not even the sharpest tilt reaches it.
function cellBeta(edges, phi, kl, start) {
  const off = (logBeta) => Math.log(Math.max(cellKl(edges, phi, Math.exp(logBeta)), 1e-300) / kl);
  let a = Math.log(start), fa = off(a), b = a, fb = fa;
  for (let i = 0; fa * fb > 0; i++) {
    if (i > 40) return null;
    a = b; fa = fb; b += Math.sign(fb) * 0.5; fb = off(b);
  }
  return a === b ? start : Math.exp(findRoot(off, a, b, fa, fb, 1e-7));
}
