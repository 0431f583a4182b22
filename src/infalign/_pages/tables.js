// Tables sort by a click on a column's head: numbers from the largest, words by the alphabet; a
// second click reverses. Where tables are cards, a list of the columns takes the place of heads.

function numberIn(text) {
  const found = /[-−+]?\d[\d,]*(\.\d+)?/.exec(text);
  return found ? Number(found[0].replace("−", "-").replaceAll(",", "")) : NaN;
}

function sortRows(table, index, up) {
  const body = table.tBodies[0], words = table.tHead.rows[0].cells[index].classList.contains("words") || index === 0;
  const keyed = [...body.rows].map((row) => [row, row.cells[index].textContent.trim()]);
  const value = (text) => (words ? text : numberIn(text));
  keyed.sort(([, a], [, b]) => {
    const x = value(a), y = value(b);
    if (!words && (Number.isNaN(x) || Number.isNaN(y))) return Number.isNaN(x) - Number.isNaN(y);  // unknown ones last
    return (up ? 1 : -1) * (words ? x.localeCompare(y) : x - y);
  });
  body.append(...keyed.map(([row]) => row));
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    if (i === index) head.setAttribute("aria-sort", up ? "ascending" : "descending"); else head.removeAttribute("aria-sort");
  });
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], choice = element("select");
  choice.append(new Option("Sort by …", ""), ...heads.map((head, i) => new Option(head.textContent, String(i))));
  choice.setAttribute("aria-label", `Sort: ${table.getAttribute("aria-label")}`);
  const sort = (i) => {
    const words = heads[i].classList.contains("words") || i === 0;
    const now = heads[i].getAttribute("aria-sort");
    sortRows(table, i, now ? now === "descending" : words);
    choice.value = String(i);
  };
  choice.addEventListener("change", () => choice.value && sort(Number(choice.value)));
  heads.forEach((head, i) => {
    const button = element("button", "sort", head.textContent);
    button.type = "button";
    button.addEventListener("click", () => sort(i));
    head.replaceChildren(button);
  });
  if (table.tBodies[0].rows.length > 1) table.before(element("p", "sorting", null, choice));
}
