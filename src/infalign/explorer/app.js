// Controls, plots and texts of the page, all updated from one state.

const $ = (id) => document.getElementById(id);

// Sliders run over the stops of a list; typing gives what lies between.
const span = (low, high, perDecade) => Array.from(
  { length: Math.round(Math.log10(high / low) * perDecade) + 1 },
  (_, i) => Number((low * 10 ** (i / perDecade)).toPrecision(2)));
const SLIDERS = {
  n: [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024],
  samples: [4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024],
  kl: span(0.01, 5, 20), beta: span(0.0001, 10, 12),
};
const FIELDS = { n: "n", k: "k", mu: "mu", kl: "kl", beta: "beta", samples: "samples", t: "t", a: "a", vN: "v-n", vK: "v-k", vMu: "v-mu" };
const SHOWN = ["identity", "probit", "log", "exponential", "best", "power"];

let state, view = null, unread = [], note = "";

// ---- controls ---------------------------------------------------------------------------------

function needs(procedure) {
  if (Object.hasOwn(TABLES, procedure)) return [];
  return { "sampling": [], "order-statistic": ["n", "k"], "best-of-poisson": ["mu"] }[procedure] || ["n"];
}

// The controls as the state has them. A field that is being typed in is left alone.
function showControls() {
  $("procedure").value = state.procedure; $("versus").value = state.versus; $("v-procedure").value = state.vProcedure;
  for (const key in FIELDS) {
    const field = $(FIELDS[key]);
    if (Number(field.value) !== state[key] || field.value === "") field.value = state[key];
    field.removeAttribute("aria-invalid");
  }
  for (const key in SLIDERS) {
    const slider = $(`${key}-slider`), stops = SLIDERS[key];
    const near = stops.reduce((best, stop, i) => (Math.abs(Math.log(stop / state[key])) < Math.abs(Math.log(stops[best] / state[key])) ? i : best), 0);
    slider.value = near;
    slider.setAttribute("aria-valuetext", figure(state[key]));
  }
  for (const name of SHOWN) $(`show-${name}`).checked = state[name];
  for (const name of ["kl", "beta"]) $(`spend-${name}`).checked = state.spend === name;
  for (const name of ["exact", "samples"]) $(`counted-${name}`).checked = state.counted === name;
  $("zoom").value = state.zoom;
  for (const row of document.querySelectorAll("[data-needs]")) row.hidden = !needs(state.procedure).includes(row.dataset.needs);
  for (const row of document.querySelectorAll("[data-versus]")) {
    row.hidden = state.versus !== "other" || (row.dataset.versus !== "" && !needs(state.vProcedure).includes(row.dataset.versus));
  }
  for (const row of document.querySelectorAll("[data-spend]")) row.hidden = row.dataset.spend !== state.spend;
  for (const part of document.querySelectorAll("[data-counted]")) part.hidden = state.counted !== "samples";
  $("k-head").textContent = state.samples;
  tell(unread.length ? `This page cannot read these parts of the address and ignores them: ${unread.join(", ")}.` : note);
}

function tell(message) {
  $("error").hidden = !message;
  if ($("error").textContent !== message) $("error").textContent = message;
}

function change(parts) {
  state = { ...state, ...parts };
  unread = []; note = "";
  for (const [k, n] of [["k", "n"], ["vK", "vN"]]) {
    if (state[k] > state[n]) {
      if (k in parts) { note = `k must be at most n: ${state[k]} was changed to ${state[n]}.`; }
      state[k] = state[n];
    }
  }
  history.replaceState(null, "", `#${toFragment(state)}`);
  showControls();
  recompute();
}

function fromAddress() {
  ({ state, unread } = fromFragment(location.hash));
  showControls();
  recompute();
}

function listen() {
  const choose = (id, key) => $(id).addEventListener("change", (e) => change({ [key]: e.target.value }));
  choose("procedure", "procedure"); choose("versus", "versus"); choose("v-procedure", "vProcedure");
  choose("zoom", "zoom");
  for (const name of ["kl", "beta"]) $(`spend-${name}`).addEventListener("change", () => change({ spend: name, ...carried(name) }));
  for (const name of ["exact", "samples"]) $(`counted-${name}`).addEventListener("change", () => change({ counted: name }));
  for (const name of SHOWN) $(`show-${name}`).addEventListener("change", (e) => change({ [name]: e.target.checked }));
  $("use").addEventListener("change", (e) => change({ use: e.target.value }));
  for (const key in SLIDERS) {
    $(`${key}-slider`).max = SLIDERS[key].length - 1;
    $(`${key}-slider`).addEventListener("input", (e) => change({ [key]: SLIDERS[key][e.target.value] }));
  }
  for (const key in FIELDS) {
    const field = $(FIELDS[key]), [allowed, words] = NUMBERS[key];
    field.addEventListener("input", () => {
      const value = field.value === "" ? NaN : Number(field.value);
      if (allowed(value)) { if (value !== state[key]) change({ [key]: value }); else { field.removeAttribute("aria-invalid"); tell(""); } return; }
      field.setAttribute("aria-invalid", "true");
      tell(`${key.replace(/^v/, "").toLowerCase()} must be ${words}; got ${field.value || "nothing"}. The page still shows ${figure(state[key])}.`);
    });
    field.addEventListener("blur", () => { field.value = state[key]; field.removeAttribute("aria-invalid"); });
  }
  $("controls").addEventListener("submit", (e) => e.preventDefault());
  $("reset").addEventListener("click", () => { change({ ...START }); history.replaceState(null, "", location.pathname + location.search); });
  $("link").addEventListener("click", (e) => {
    history.replaceState(null, "", `#${toFragment(state)}`);
    copy(location.href, e.target);
  });
  for (const name of ["python", "yaml"]) $(`copy-${name}`).addEventListener("click", (e) => copy($(name).textContent, e.target));
  addEventListener("hashchange", fromAddress);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show());
}

// Turning from budget to strength, or back, stays at the same policy.
function carried(to) {
  if (!view || !view.optimum || view.state !== state) return {};
  const value = Number((to === "kl" ? view.kl : view.optimum.beta).toPrecision(3));
  return NUMBERS[to][0](value) ? { [to]: value } : {};
}

async function copy(text, button) {
  const before = button.dataset.label ||= button.textContent;
  let done = true;
  try { await navigator.clipboard.writeText(text); } catch {
    const area = document.createElement("textarea");  // pages from files may not have the clipboard
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = done ? "Copied" : "Select and copy manually";
  setTimeout(() => { button.textContent = before; }, 1600);
}

// ---- computing --------------------------------------------------------------------------------

let round = 0;

// Slices of work with room between them for the page; a change starts afresh.
function recompute() {
  const mine = ++round, task = work(state, view), started = performance.now();
  $("results").setAttribute("aria-busy", "true");
  let shown = 0;
  const slice = () => {
    if (mine !== round) return;
    const until = performance.now() + 12;
    for (;;) {
      const step = task.next();
      if (step.done) {
        show();
        speak();
        $("results").setAttribute("aria-busy", "false");
        $("results").dataset.milliseconds = Math.round(performance.now() - started);
        return;
      }
      view = step.value;
      if (performance.now() > until) break;
    }
    if (performance.now() - shown > 60) {
      if (!shown) $("results").dataset.first = Math.round(performance.now() - started);
      show();
      shown = performance.now();
    }
    later(slice);
  };
  later(slice);
}

// Sooner than a timer, after what the browser has to draw.
const channel = new MessageChannel();
const waiting = [];
channel.port1.onmessage = () => waiting.shift()();
function later(job) { waiting.push(job); channel.port2.postMessage(0); }

// ---- showing ----------------------------------------------------------------------------------

let plots;

function paragraphs(host, texts, className) {
  if ([...host.children].map((p) => p.textContent).join("\n") === texts.join("\n")) return;
  host.replaceChildren(...texts.map((text) => {
    const p = document.createElement("p");
    p.textContent = text.replace(/(\d) (%|nats|points)/g, "$1\u00a0$2");
    if (className) p.className = className;
    return p;
  }));
}

function speak() {
  paragraphs($("sentences"), sentences(view));
  paragraphs($("warnings"), warnings(view), "warning");
}

function show() {
  if (!view) return;
  if (view.problem) speak();
  $("results").hidden = Boolean(view.problem);
  if (view.problem) return;
  if (!$("sentences").childElementCount) speak();
  showTable();
  showCode();
  drawFrontier(view, plots.frontier);
  drawPaid(view, plots.paid);
  drawDensity(view, plots.density);
}

function showTable() {
  const cell = (text, tag = "td", className = "") => {
    const node = document.createElement(tag);
    node.textContent = text;
    if (className) node.className = className;
    return node;
  };
  $("rows").replaceChildren(...tableRows(view).map(({ row, win, counted, beta, short, mark }) => {
    const line = document.createElement("tr"), head = cell("", "th", `c-${row.name}`), swatch = cell("", "span", "swatch");
    line.dataset.transform = row.spec;
    Object.assign(line.dataset, { win: row.win, beta: row.beta });  // unrounded
    if (row.counted) line.dataset.counted = row.counted.win;
    head.scope = "row";
    head.append(swatch, row.spec);
    if (row.name === "probit") head.append(cell(" raw reward", "small"));
    if (row.name === "best") head.append(cell(" best t", "small"));
    line.append(head, cell(win));
    if (view.state.counted === "samples") line.append(cell(counted));
    line.append(cell(short), cell(mark, "td", "words"), cell(beta));
    return line;
  }));
  $("table-note").textContent = view.state.counted === "samples"
    ? `Win rates with samples: mean over ${clamp(Math.round(160000 / view.state.samples), 250, 2000)} simulated prompts ± one standard error, at the β that spends the budget with K samples. Good enough: within half a point of the best transform shown. All other figures, including those of the optimum, use exact quantiles.`
    : "Points short of the optimum: win rate below the optimum at the same KL. Good enough: within half a point.";
}

function showCode() {
  const named = view.rows.filter((row) => row.policy);
  if (!named.length) return;
  const chosen = named.find((row) => row.name === view.state.use) || named.reduce((a, b) => (b.win > a.win ? b : a));
  const options = named.map((row) => `${row.name}\n${row.spec}${row.name === "best" ? " (best t)" : ""}`);
  if ($("use").dataset.options !== options.join()) {
    $("use").dataset.options = options.join();
    $("use").replaceChildren(...options.map((text) => new Option(text.split("\n")[1], text.split("\n")[0])));
  }
  $("use").value = chosen.name;
  const set = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };
  set("python", pythonCode(view, chosen));
  set("yaml", yamlCode(view, chosen));
}

document.addEventListener("DOMContentLoaded", () => {
  plots = {
    frontier: new Plot($("frontier"), "KL budget", (kl) => change({ spend: "kl", kl: clamp(Number(kl.toPrecision(2)), 0.005, 5) })),
    paid: new Plot($("paid"), "Quantile"), density: new Plot($("density"), "Quantile"),
  };
  listen();
  fromAddress();
});
