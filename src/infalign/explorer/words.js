// A computed view in words: sentences, table rows, and code to copy.

const GOOD = 0.005;  // half a point of win rate

const rate = (x) => (x > 0.9995 && x < 1 ? `over ${percent(0.999)}` : percent(x));
const points = (x) => { const text = (100 * x).toFixed(1); return minus(text === "-0.0" ? "0.0" : text); };

function ordinal(k) {
  const ending = [11, 12, 13].includes(k % 100) ? "th" : ["th", "st", "nd", "rd"][k % 10] || "th";
  return `${k}${ending}`;
}

function procedureWords(spec) {
  const { procedure, n, k, mu } = readProcedure(spec);
  if (Object.hasOwn(TABLES, procedure)) return TABLES[procedure].words;
  return {
    "sampling": "plain sampling", "best-of-n": `best-of-${n}`, "worst-of-n": `worst-of-${n}`,
    "order-statistic": k === 1 ? `best-of-${n}` : `${ordinal(k)}-best-of-${n}`,
    "best-of-poisson": `best-of-Poisson(${figure(mu || 0)})`,
  }[procedure];
}

const rowWords = (row) => ({ probit: "raw reward", best: row.spec, exponential: row.spec, power: row.spec }[row.name] || row.name);
// The win rate that rows are compared by: with K samples if they are chosen and computed.
function judged(view, row) {
  if (view.state.counted !== "samples") return row.win;
  return row.counted && !row.counted.unreachable ? row.counted.win : NaN;
}

function sentences(view) {
  const { state, rows, optimum, kl } = view, said = [];
  if (view.problem) return [view.problem];
  const played = procedureWords(playedSpec(state)), against = procedureWords(againstSpec(state));
  const simple = rows.filter((row) => row.name !== "optimal" && Number.isFinite(row.win));
  const where = `At ${figure(kl, 3)} nats${state.spend === "beta" ? ` (β = ${figure(state.beta, 3)})` : ""}`;
  const raw = rows.find((row) => row.name === "probit"), plain = rows.find((row) => row.name === "identity");
  if (optimum) {
    const others = [[raw, "a normally distributed raw reward"], [plain, "the quantile itself"]]
      .filter(([row]) => row && Number.isFinite(row.win)).map(([row, words]) => `on ${words} it wins ${rate(row.win)}`);
    said.push(`${where}, ${played} of a model trained on the optimal transform beats the reference’s ${against} in ${rate(optimum.win)} of comparisons.${
      others.length ? ` Trained ${others.join(", ")}.` : ""}`);
    const best = simple.slice().sort((a, b) => b.win - a.win)[0];
    if (best) {
      const short = optimum.win - best.win, gap = `${points(short)} points short of the optimum`;
      said.push(short <= GOOD
        ? `Good enough: ${rowWords(best)} is ${short < 0.0005 ? "less than a tenth of a point" : `${points(short)} points`} short of the optimum.`
        : `No simple transform shown is good enough: the best, ${rowWords(best)}, is ${gap}.`);
    }
  } else {
    const best = simple.slice().sort((a, b) => b.win - a.win)[0];
    said.push(`${where}, the optimum for ${played}${state.versus === "same" ? "" : ` against ${against}`} is beyond what this page computes.`
      + (best ? ` It wins at least as much as ${rowWords(best)}, ${rate(best.win)}${best.win > 0.995 ? ": almost nothing is left to gain" : ""}.` : "")
      + " Lower the budget or n to see it.");
  }
  if (state.counted === "samples") {
    const done = rows.filter((row) => Number.isFinite(judged(view, row)));
    if (!view.countedReady) said.push(`Simulating prompts with ${state.samples} samples each…`);
    else if (done.length) {
      const top = done.slice().sort((a, b) => judged(view, b) - judged(view, a))[0];
      const first = rows.find((row) => row.name === "optimal");
      const lost = first && Number.isFinite(judged(view, first)) ? first.win - judged(view, first) : NaN;
      said.push(`Estimating quantiles from ${state.samples} samples per prompt`
        + (Number.isFinite(lost) ? ` costs the optimal transform ${points(lost)} points; ` : "; ")
        + `the best transform shown is then ${top.name === "optimal" ? "still the optimal one" : rowWords(top)}, with ${rate(judged(view, top))}.`);
    }
  }
  return said;
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function warnings(view) {
  const said = [];
  if (!view.proven) {
    said.push("The win rate has several stationary points here. The optimal curve is followed from the reference. It is not proven that nothing wins more at this KL.");
  }
  const failed = view.rows.filter((row) => row.counted && row.counted.unreachable);
  if (failed.length) {
    said.push(`With ${view.state.samples} samples per prompt, ${failed.map(rowWords).join(", ")} cannot spend ${figure(view.kl, 3)} nats: even the sharpest tilt stays within the top cell.`);
  }
  const unreached = view.rows.filter((row) => !row.policy);
  if (unreached.length) said.push(`${capital(unreached.map(rowWords).join(", "))} cannot be computed at ${figure(view.kl, 3)} nats: the density of the model would be too steep.`);
  return said;
}

// The table's rows, best first. With exact quantiles a row is good enough within half a point of the
// optimum; with K samples, which nothing can make up for, within half a point of the best shown.
function tableRows(view) {
  const order = view.rows.slice().sort((a, b) => (judged(view, b) || b.win || 0) - (judged(view, a) || a.win || 0));
  const counts = view.state.counted === "samples", target = view.optimum ? view.optimum.win : NaN;
  const best = counts ? Math.max(...order.map((row) => judged(view, row)).filter(Number.isFinite)) : target;
  const mark = (row) => {
    const win = judged(view, row);
    if (!Number.isFinite(win) || !Number.isFinite(best)) return "";
    if (!counts && row.name === "optimal") return "the optimum";
    return win === best ? "best shown" : best - win <= GOOD ? "yes" : "no";
  };
  return order.map((row) => {
    const short = target - judged(view, row), itself = !counts && row.name === "optimal";
    return {
      row, mark: mark(row), win: Number.isFinite(row.win) ? percent(row.win, 2) : "–",
      counted: !row.counted ? "…" : row.counted.unreachable ? "out of reach"
        : `${percent(row.counted.win, 2)} ± ${(100 * row.counted.error).toFixed(2)}`,
      beta: Number.isFinite(row.beta) ? figure(row.beta) : "–",
      short: itself || !Number.isFinite(short) ? "–" : `${points(short)}`,
    };
  });
}

// ---- code -------------------------------------------------------------------------------------

function procedureCode(spec) {
  const { procedure, n, k, mu } = readProcedure(spec);
  if (Object.hasOwn(TABLES, procedure)) return `ia.parse_procedure(${JSON.stringify(procedure)})`;
  return {
    "sampling": "ia.Sampling()", "best-of-n": `ia.BestOfN(${n})`, "worst-of-n": `ia.WorstOfN(${n})`,
    "order-statistic": `ia.OrderStatistic(${n}, ${k})`, "best-of-poisson": `ia.BestOfPoisson(${mu})`,
  }[procedure];
}

const transformCode = (row, state) => ({
  identity: "ia.Identity()", probit: "ia.Probit()", log: "ia.Log()", power: `ia.Power(${state.a})`,
}[row.name] || `ia.Exponential(${row.spec.split(":")[1]})`);

function pythonCode(view, row) {
  const { state, kl } = view, against = state.versus === "same" ? "" : `, against=${procedureCode(againstSpec(state))}`;
  const played = procedureCode(playedSpec(state)), lines = ["import infalign as ia", ""];
  if (row.name === "optimal") {
    const spend = state.spend === "beta" ? `beta=${state.beta}` : `kl=${state.kl}`;
    lines.push(`best = ia.design(${played}, ${spend}${against})`, "best.transform, best.beta  # train on these",
      `best.win_rate  # ${row.win.toFixed(4)}`);
  } else {
    lines.push(`transform = ${transformCode(row, state)}`, `beta = ${Number(row.beta.toPrecision(6))}  # KL ${Number(kl.toPrecision(4))} nats`,
      `policy = ia.TiltedPolicy(transform, beta)`,
      `policy.win_rate(${played}${against})  # ${row.win.toFixed(4)}`);
  }
  return lines.join("\n");
}

// Samples per prompt that an evaluation needs. For a random number of draws: the number that is exceeded
// less than once in 10¹² times.
function drawsOf(spec) {
  const { procedure, n, mu } = readProcedure(spec);
  if (Object.hasOwn(TABLES, procedure)) return TABLES[procedure].draws;
  if (procedure !== "best-of-poisson") return n || 1;
  let log = -mu, sum = Math.exp(log), count = 0;
  while (1 - sum > 1e-13 && count < mu + 60 * Math.sqrt(mu + 1)) { count++; log += Math.log(mu / count); sum += Math.exp(log); }
  return count + 2;
}

function yamlCode(view, row) {
  const { state, kl } = view, needed = Math.max(drawsOf(playedSpec(state)), drawsOf(againstSpec(state)));
  const lines = [`procedure: ${playedSpec(state)}`];
  if (state.versus !== "same") lines.push(`against: ${againstSpec(state)}`);
  lines.push(`kl: ${Number(kl.toPrecision(4))}`, `transform: ${row.spec}`);
  if (state.counted === "samples") lines.push(`calibration: {samples: ${state.samples}}`);
  if (needed > 32) lines.push(`evaluate: {samples: ${needed}}`);
  return lines.join("\n");
}
