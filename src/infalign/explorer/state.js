// A view of the page as a plain object, and as the fragment of its address.

const START = Object.freeze({
  procedure: "best-of-n", n: 8, k: 2, mu: 7,
  versus: "same", vProcedure: "best-of-n", vN: 4, vK: 2, vMu: 3,
  spend: "kl", kl: 0.5, beta: 0.1,
  counted: "exact", samples: 64,
  identity: true, probit: true, log: false, exponential: true, best: true, power: false, t: 10, a: 2,
  zoom: "even", use: "optimal",
});

const whole = (low, high) => (x) => Number.isInteger(x) && x >= low && x <= high;
const within = (low, high) => (x) => Number.isFinite(x) && x >= low && x <= high;

// What each number may be: a test, and how a message words it.
const NUMBERS = {
  n: [whole(1, 1024), "a whole number from 1 to 1024"], vN: [whole(1, 1024), "a whole number from 1 to 1024"],
  k: [whole(1, 1024), "a whole number from 1 to n"], vK: [whole(1, 1024), "a whole number from 1 to n"],
  mu: [within(0, 1024), "a number from 0 to 1024"], vMu: [within(0, 1024), "a number from 0 to 1024"],
  kl: [within(0.005, 5), "a number of nats from 0.005 to 5"],
  beta: [within(1e-5, 100), "a number from 0.00001 to 100"],
  samples: [whole(4, 1024), "a whole number from 4 to 1024"],
  t: [within(-200, 1000), "a number from -200 to 1000"], a: [within(0.01, 1000), "a number from 0.01 to 1000"],
};

// A procedure's text form, as the command line reads it.
function procedureSpec(name, n, k, mu) {
  if (Object.hasOwn(TABLES, name)) return name;
  return { "sampling": "sampling", "order-statistic": `${name}:${n}:${k}`, "best-of-poisson": `${name}:${mu}` }[name]
    || `${name}:${n}`;
}

const playedSpec = (s) => procedureSpec(s.procedure, s.n, s.k, s.mu);
const againstSpec = (s) => (s.versus === "same" ? playedSpec(s)
  : s.versus === "sampling" ? "sampling" : procedureSpec(s.vProcedure, s.vN, s.vK, s.vMu));

// The parts of a procedure's text form, or null if it is not one: { procedure, n, k, mu }.
function readProcedure(text) {
  const [procedure, ...rest] = text.split(":"), numbers = rest.map((part) => (part.trim() ? Number(part) : NaN));
  if (Object.hasOwn(TABLES, text)) return { procedure: text };
  const [first, second] = numbers, ok = (key, x) => NUMBERS[key][0](x);
  if (procedure === "sampling" && !rest.length) return { procedure };
  if (procedure === "best-of-poisson" && rest.length === 1 && ok("mu", first)) return { procedure, mu: first };
  if (/^(best|worst)-of-n$/.test(procedure) && rest.length === 1 && ok("n", first)) return { procedure, n: first };
  if (procedure === "order-statistic" && rest.length === 2 && ok("n", first) && ok("k", second) && second <= first) {
    return { procedure, n: first, k: second };
  }
  return null;
}

function toFragment(s) {
  const shown = ["identity", "probit", "log"].filter((name) => s[name]);
  if (s.exponential) shown.push(`exponential:${s.t}`);
  if (s.best) shown.push("exponential:best");
  if (s.power) shown.push(`power:${s.a}`);
  const parts = [["procedure", playedSpec(s)]];
  if (s.versus !== "same") parts.push(["against", againstSpec(s)]);
  parts.push([s.spend, s[s.spend]]);
  if (s.counted === "samples") parts.push(["samples", s.samples]);
  parts.push(["transforms", shown.join(",")]);
  if (s.zoom !== START.zoom) parts.push(["zoom", s.zoom]);
  if (s.use !== START.use) parts.push(["use", s.use]);
  return parts.map(([key, value]) => `${key}=${value}`).join("&");
}

const READERS = {
  procedure: (text) => readProcedure(text),
  against(text) {
    const read = readProcedure(text);
    if (!read) return null;
    if (read.procedure === "sampling") return { versus: "sampling" };
    const named = { versus: "other", vProcedure: read.procedure };
    if (read.n) named.vN = read.n;
    if (read.k) named.vK = read.k;
    if (read.mu !== undefined) named.vMu = read.mu;
    return named;
  },
  kl: (text) => readNumber("kl", text, { spend: "kl" }),
  beta: (text) => readNumber("beta", text, { spend: "beta" }),
  samples: (text) => readNumber("samples", text, { counted: "samples" }),
  transforms(text) {
    const shown = { identity: false, probit: false, log: false, exponential: false, best: false, power: false };
    for (const word of text.split(",").filter(Boolean)) {
      const [name, value] = word.split(":");
      if (word === "exponential:best") shown.best = true;
      else if (["identity", "probit", "log"].includes(word)) shown[word] = true;
      else if (name === "exponential" || name === "power") {
        const number = readNumber(name === "power" ? "a" : "t", value || "", { [name]: true });
        if (!number || shown[name]) return null;  // one of each
        Object.assign(shown, number);
      } else return null;
    }
    return shown;
  },
  zoom: (text) => (["even", "top", "bottom"].includes(text) ? { zoom: text } : null),
  use: (text) => (NAMES.includes(text) ? { use: text } : null),
};

function readNumber(key, text, also) {
  const value = text.trim() ? Number(text) : NaN;
  return NUMBERS[key][0](value) ? { ...also, [key]: value } : null;
}

// The view that a fragment states, and the parts of it that could not be read.
function fromFragment(fragment) {
  const state = { ...START }, unread = [];
  for (const part of fragment.replace(/^#/, "").split("&").filter(Boolean)) {
    const cut = part.indexOf("="), key = part.slice(0, cut);
    let text = part.slice(cut + 1);
    try { text = decodeURIComponent(text); } catch { /* use the raw text */ }
    const read = cut > 0 && Object.hasOwn(READERS, key) ? READERS[key](text) : null;
    if (read) Object.assign(state, read); else unread.push(part);
  }
  return { state, unread };
}
