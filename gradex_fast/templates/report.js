"use strict";
// Sorts every table whose headers are buttons; filters the table of sources and caps what it shows at once.

function sorted(table, header) {
  const column = header.cellIndex, body = table.tBodies[0];
  const way = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
  const number = header.classList.contains("right");
  const keyed = Array.from(body.rows, (row) => [number ? parseFloat(key(row)) : key(row), row]);
  keyed.sort(([a], [b]) => {
    if (!number) return way * a.localeCompare(b);
    if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b); // what is not known is last, either way
    return way * (a - b);
  });
  body.append(...keyed.map(([, row]) => row));
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
}

for (const button of document.querySelectorAll("th > button")) {
  button.addEventListener("click", () => {
    sorted(button.closest("table"), button.parentElement);
    show();
  });
}

const sources = document.getElementById("source-table");
const words = document.getElementById("words"), choice = document.getElementById("choice");
const all = document.getElementById("all"), shown = document.getElementById("shown");
let capped = true;

function show() {
  if (!sources) return;
  const wanted = words.value.toLocaleLowerCase();
  let found = 0, visible = 0;
  for (const row of sources.tBodies[0].rows) {
    const fits = (!choice.value || row.className === choice.value) &&
      (!wanted || row.querySelector(".name").textContent.toLocaleLowerCase().includes(wanted));
    if (fits) found++;
    row.hidden = !fits || (capped && found > Number(sources.dataset.cap));
    if (!row.hidden) visible++;
  }
  all.hidden = visible === found;
  all.textContent = `show all ${found.toLocaleString("en")}`;
  shown.textContent = `${visible.toLocaleString("en")} of ${sources.tBodies[0].rows.length.toLocaleString("en")} sources`;
}

if (sources) {
  for (const control of [words, choice]) control.addEventListener("input", show);
  all.addEventListener("click", () => { capped = false; show(); words.focus(); });
  document.getElementById("controls").hidden = false;
  show();
}
