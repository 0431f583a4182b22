// The examples, and the browser of all prompts and responses. Texts of models are shown as text.

const labelOf = (method) => (method === "reference" ? "Reference" : (RESULTS.policies.find((p) => p.method === method) || { label: method }).label);
const keyOf = (method) => (method === "reference" ? "" : colorOf(method));
const POLICIES = RESULTS.policies.map((p) => p.method);
const rateWords = (rate) => (rate === null || rate === undefined ? null : `wins ${percent(rate)}`);
const pointsWords = (gain) => `${gain >= 0 ? "+" : "−"}${Math.abs(100 * gain).toFixed(1)} points`;

// The quantiles of all of a policy's responses, from the reference's worst to its best.
function strip(quantiles, chosen) {
  const root = svg("svg", { class: "strip", viewBox: "0 0 200 16", preserveAspectRatio: "none", "aria-hidden": "true" });
  const x = (u) => 6 + 188 * u;
  svg("line", { x1: 6, x2: 194, y1: 8, y2: 8, "vector-effect": "non-scaling-stroke" }, root);
  for (const u of quantiles) svg("rect", { class: "one", x: x(u) - 1, y: 3, width: 2, height: 10 }, root);
  svg("rect", { class: "ring", x: x(chosen) - 2, y: 1, width: 4, height: 14, "vector-effect": "non-scaling-stroke" }, root);
  return root;
}

function answerCard({ policy, text, quantile, quantiles, numbers }) {
  const title = element("h4", "", null, element("i", `mark k-p k-${keyOf(policy)}`), document.createTextNode(labelOf(policy)));
  const graph = strip(quantiles, quantile);
  graph.classList.add(`k-${keyOf(policy) || "p"}`);
  const body = element("p", "text", text || "(empty response)");
  body.dir = "auto"; body.tabIndex = 0;
  return element("section", "answer", null, title, element("p", "numbers", numbers.filter(Boolean).join(" · ")), graph, body);
}

function promptCard(id, prompt, note, answers) {
  const asked = element("p", "prompt", prompt);
  asked.dir = "auto"; asked.tabIndex = 0;
  const top = element("div", "top", null, element("span", "", `prompt ${id}`), element("span", "", note));
  return element("article", "card", null, top, asked, element("div", "answers", null, ...answers.map(answerCard)));
}

function showExamples(host) {
  host.append(...dataOf("examples").map((example) => promptCard(
    example.prompt_id, example.prompt, `at ${100 * example.rank} % of the order${example.gain === null ? "" : `: ${pointsWords(example.gain)}`}`,
    example.responses.map((r) => ({ ...r, numbers: [`quantile ${r.quantile.toFixed(2)}`, rateWords(r.win_rate)] })),
  )));
}

// A prompt of the page's data, with its responses by policy.
function unpack({ id, prompt, rows }, { policies, columns }) {
  const answers = rows.map(([text, pairs, ...values], i) => {
    const own = Object.fromEntries(columns.map((column, c) => [column, values[c]]));
    return { policy: policies[i], text, quantiles: (pairs.match(/../g) || []).map((pair) => Number(pair) / 99), ...own };
  });
  const rates = Object.fromEntries(answers.map((a) => [a.policy, a.win_rate]));
  const known = POLICIES.map((p) => rates[p]).filter((rate) => rate !== null && rate !== undefined);
  return { id, prompt, answers, of: Object.fromEntries(answers.map((a) => [a.policy, a])), rates, spread: known.length ? Math.max(...known) - Math.min(...known) : 0 };
}

// The orders and the filters: what they are called, and what they compute of a prompt.
function orders() {
  const known = (value) => (value === null || value === undefined ? -Infinity : value);
  const list = [["As in the file", null], ...(POLICIES.length > 1 ? [["Policies differ most", (p) => p.spread]] : [])];
  for (const policy of POLICIES) {
    list.push([`${labelOf(policy)}: best first`, (p) => known(p.rates[policy])], [`${labelOf(policy)}: worst first`, (p) => -known(p.rates[policy])]);
    for (const other of POLICIES) {
      if (other !== policy) list.push([`${labelOf(policy)} ahead of ${labelOf(other)}`, (p) => known(p.rates[policy]) - known(p.rates[other])]);
    }
    for (const gold of RESULTS.gold) {
      list.push([`${labelOf(policy)}: reward high, ${gold} low`, (p) => known(p.rates[policy]) - known(p.of[policy][`win_rate_${gold}`])]);
    }
    list.push([`${labelOf(policy)}: longest response`, (p) => p.of[policy].text.length]);
  }
  return list;
}

function filters() {
  const list = [["All prompts", () => true]];
  for (const policy of POLICIES) {
    const rate = (p) => p.rates[policy];
    list.push([`${labelOf(policy)} loses (under 50 %)`, (p) => rate(p) !== null && rate(p) < 0.5], [`${labelOf(policy)} wins (over 50 %)`, (p) => rate(p) !== null && rate(p) > 0.5]);
    for (const gold of RESULTS.gold) {
      const by = (p) => p.of[policy][`win_rate_${gold}`];
      list.push([`${labelOf(policy)} wins, but not by ${gold}`, (p) => rate(p) > 0.5 && by(p) !== null && by(p) < 0.5]);
    }
  }
  list.push(["Some response is empty", (p) => p.answers.some((a) => !a.text.trim())]);
  return list;
}

// The rows as CSV. A spreadsheet would run a text that begins like a formula: it gets a quote sign.
function asCsv(prompts, columns) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const head = ["prompt_id", "prompt", "policy", "response", ...columns];
  const rows = prompts.flatMap((p) => p.answers.map((a) => [p.id, p.prompt, a.policy, a.text, ...columns.map((c) => a[c])]));
  return [head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n");
}

const AT_ONCE = 12;

class Browser {
  constructor(data, form, cards, count, more) {
    this.columns = data.columns; this.prompts = data.prompts.map((own) => unpack(own, data));
    this.cards = cards; this.count = count; this.more = more;
    this.orders = orders(); this.filters = filters();
    this.search = element("input"); this.search.type = "search";
    this.search.placeholder = "Search in prompts and responses";
    const choice = (name, list) => {
      const node = element("select");
      node.append(...list.map(([words], i) => new Option(words, String(i))));
      node.setAttribute("aria-label", name);
      return node;
    };
    this.order = choice("Sort", this.orders); this.filter = choice("Filter", this.filters);
    this.search.setAttribute("aria-label", "Search in prompts and responses");
    const save = element("button", "", "Save as CSV");
    save.type = "button";
    save.addEventListener("click", () => this.save());
    form.append(this.search, this.order, this.filter, save);
    form.addEventListener("submit", (e) => e.preventDefault());
    for (const node of [this.search, this.order, this.filter]) node.addEventListener("input", () => this.show());
    more.addEventListener("click", () => this.add());
    if (POLICIES.length > 1) this.order.value = "1";
    this.show();
  }

  show() {
    const words = this.search.value.trim().toLowerCase(), [, keep] = this.filters[Number(this.filter.value)], [, by] = this.orders[Number(this.order.value)];
    const has = (p) => !words || [p.id, p.prompt, ...p.answers.map((a) => a.text)].some((text) => text.toLowerCase().includes(words));
    this.shown = this.prompts.filter((p) => keep(p) && has(p));
    if (by) this.shown = this.shown.map((p) => [by(p), p]).sort((a, b) => (b[0] > a[0]) - (b[0] < a[0])).map(([, p]) => p);
    this.cards.replaceChildren();
    this.add();
  }

  add() {
    const from = this.cards.children.length;
    this.cards.append(...this.shown.slice(from, from + AT_ONCE).map((p) => this.card(p)));
    this.more.hidden = this.cards.children.length >= this.shown.length;
    this.count.textContent = `${this.shown.length} of ${this.prompts.length} prompts; ${this.cards.children.length} shown.`;
  }

  card(p) {
    const note = POLICIES.length > 1 ? `policies differ by ${(100 * p.spread).toFixed(1)} points` : "";
    return promptCard(p.id, p.prompt, note, p.answers.map((a) => ({
      ...a, numbers: [
        `quantile ${a.quantile.toFixed(2)}`, rateWords(a.win_rate), `reward ${minus(a.reward.toFixed(2))}`,
        ...RESULTS.gold.map((gold) => `${gold} ${minus(a[`reward_${gold}`].toFixed(2))}`), a.tokens === null ? null : `${a.tokens} tokens`,
      ],
    })));
  }

  save() {
    const link = element("a"), file = new Blob(["\ufeff", asCsv(this.shown, this.columns)], { type: "text/csv" });
    link.href = URL.createObjectURL(file);
    link.download = "responses.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}

for (const host of document.querySelectorAll("[data-examples]")) showExamples(host);
const part = (name) => document.querySelector(`[data-${name}]`);
if (part("browse")) new Browser(dataOf("responses"), part("browse"), part("cards"), part("count"), part("more"));
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}
