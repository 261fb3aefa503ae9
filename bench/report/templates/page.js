"use strict";
// Sorts and filters tables. The page is complete without it, and text is never inserted as HTML.
(() => {
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  function value(row, column, numeric) {
    const cell = row.cells[column];
    return numeric ? parseFloat(cell.dataset.value ?? cell.textContent) : cell.textContent;
  }

  // Rows without a value come last in both directions.
  function compare(a, b, numeric, direction) {
    if (!numeric) return direction * words.compare(a, b);
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return direction * (a - b);
  }

  // The first click sorts in ascending order, the second in descending order, the third restores.
  function sort(table, rows, head) {
    const next = { ascending: "descending", descending: "" };
    const order = next[head.getAttribute("aria-sort")] ?? "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    let sorted = rows;
    if (order) {
      head.setAttribute("aria-sort", order);
      const numeric = head.classList.contains("number");
      const direction = order === "ascending" ? 1 : -1;
      const keyed = rows.map((row) => [value(row, head.cellIndex, numeric), row]);
      keyed.sort(([a], [b]) => compare(a, b, numeric, direction));
      sorted = keyed.map(([, row]) => row);
    }
    table.tBodies[0].append(...sorted);
  }

  function sortable(table) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 2) return;
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, rows, head));
      head.append(button);
    }
  }

  function filterable(table, count) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length <= count) return;
    const bar = document.createElement("div");
    const label = document.createElement("label");
    const input = document.createElement("input");
    const found = document.createElement("output");
    bar.className = "filter";
    input.type = "search";
    input.setAttribute("aria-describedby", table.getAttribute("aria-labelledby"));
    found.setAttribute("aria-live", "polite");
    label.append("Filter rows", input);
    bar.append(label, found);
    const update = () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !wanted.every((word) => text.includes(word));
      }
      const shown = rows.filter((row) => !row.hidden).length;
      bar.classList.toggle("active", shown < rows.length);
      found.value = shown < rows.length ? `${shown} of ${rows.length} rows` : `${shown} rows`;
    };
    input.addEventListener("input", update);
    update();
    table.closest(".wide").before(bar);
  }

  for (const table of document.querySelectorAll("table")) {
    sortable(table);
    filterable(table, 8);
  }

  // Collapsed tables are opened for printing, and closed again afterwards.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const each of folded) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const each of folded) each.open = false;
  });

  // A link to a collapsed table opens it.
  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const around = target?.closest("details");
    if (around) {
      around.open = true;
      target.scrollIntoView();
    }
  }
  addEventListener("hashchange", reveal);
  reveal();
})();
