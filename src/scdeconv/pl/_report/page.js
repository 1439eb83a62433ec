"use strict";
// Sorts tables by the column whose heading is pressed: numbers from the largest, text from A, again for the reverse.
const collator = new Intl.Collator(undefined, { numeric: true });

function valueOf(row, column, isNumber) {
  const text = row.cells[column].textContent.trim();
  if (!isNumber) return text;
  return parseFloat(text);
}

function isMissing(value) {
  return value === "" || Number.isNaN(value);
}

function sortRows(table, heading) {
  const column = heading.cellIndex;
  const isNumber = heading.classList.contains("number");
  const first = isNumber ? "descending" : "ascending";
  const other = isNumber ? "ascending" : "descending";
  const order = heading.getAttribute("aria-sort") === first ? other : first;
  for (const cell of heading.parentNode.cells) cell.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => ({ row, value: valueOf(row, column, isNumber) }));
  rows.sort((a, b) => {
    // missing values are last in both directions
    if (isMissing(a.value) || isMissing(b.value)) return isMissing(a.value) - isMissing(b.value);
    return sign * (isNumber ? a.value - b.value : collator.compare(a.value, b.value));
  });
  // tables for paper have the same samples in the same order
  const places = rows.map(({ row }) => Array.prototype.indexOf.call(body.rows, row));
  for (const same of table.closest(".tables").querySelectorAll("tbody")) {
    const before = Array.from(same.rows);
    same.append(...places.map((place) => before[place]));
  }
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortRows(button.closest("table"), button.closest("th")));
}
