"use strict";
document.documentElement.classList.add("js"); // what needs this script is shown only where it runs
// Sort a table by a click on its head: numbers by their value, words by the alphabet; missing ones always last. A cell
// that shows more than its text (the number of its row) has the text beside.
for (const table of document.querySelectorAll("table[id]")) {
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, i) => {
    const cell = row.cells[i];
    if ("sort" in cell.dataset) return Number(cell.dataset.sort);
    if (cell.classList.contains("number")) return null;
    const text = (cell.dataset.text ?? cell.textContent).trim();
    return text === "" || isNaN(text) ? text : Number(text);
  };
  heads.forEach((head, i) =>
    head.firstChild.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [key(a, i), key(b, i)];
        if (x === null || y === null) return (x === null) - (y === null);
        const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows);
    })
  );
}
// Filter a table: a row stays if it holds every word.
for (const field of document.querySelectorAll("input[data-filters]")) {
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of document.getElementById(field.dataset.filters).tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}
// Point at a row or a mark: its group stands out in every figure and table.
const groupOf = (node) => {
  const found = node.closest ? node.closest("[data-group], .mark") : null;
  return found && (found.dataset.group || [...found.classList].find((name) => name.startsWith("group-")));
};
document.addEventListener("mouseover", (event) => {
  const group = groupOf(event.target);
  document.body.classList.toggle("pointing", Boolean(group));
  for (const node of document.querySelectorAll(".hot")) node.classList.remove("hot");
  if (group) for (const node of document.querySelectorAll(`.mark.${group}, tr[data-group="${group}"]`)) node.classList.add("hot");
});
