// Numbers and small things that every page shares.

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const minus = (text) => text.replace("-", "−");
const figure = (x, digits = 4) => minus(String(Number(x.toPrecision(digits))));
const percent = (x, digits = 1) => `${(100 * x).toFixed(digits)} %`;

// A new element: its class, its text, which is never markup, and what it contains.
function element(tag, name, text, ...inside) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined && text !== null) node.textContent = text;
  node.append(...inside);
  return node;
}

// The data that the page carries under an id.
const dataOf = (id) => JSON.parse(document.getElementById(id).textContent);
