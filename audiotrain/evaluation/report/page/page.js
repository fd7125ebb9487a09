// What all parts of the page share: numbers, tables, tabs.

const report = JSON.parse(document.getElementById("data").textContent);
const runs = report.runs; // those of a recipe one after another
const recipes = [...new Set(runs.map((run) => run.recipe))];
const listeners = []; // called when the runs shown change

function colored(made, run) {
  made.style.setProperty("--run", `var(--run-${runs.indexOf(run) % 8})`);
  return made;
}

const dot = (run) => colored(element("span", { class: "dot" }), run);

function number(value) {
  if (value == null || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size >= 2) return value.toLocaleString("en");
  if (size !== 0 && size < 0.001) return value.toExponential(2);
  if (size < 10) return value.toFixed(4);
  if (size < 1000) return value.toFixed(2);
  return Math.round(value).toLocaleString("en");
}

// A part of the page for the runs of each recipe, below its name where there are several.
function byRecipe(panel, draw) {
  for (const recipe of recipes) {
    const title = element("h2", { class: "recipe" }, recipe);
    if (recipes.length > 1) panel.append(title);
    draw(panel, runs.filter((run) => run.recipe === recipe), recipe);
    if (panel.lastElementChild === title) title.remove();
  }
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;
// A table whose columns sort: columns {name, number, cell(row) -> node or text, value(row)}.
function sortable(columns, rows, caption) {
  const body = element("tbody");
  const headers = columns.map((column, place) =>
    element(
      "th",
      { scope: "col", class: column.number ? "number" : null },
      element("button", { type: "button", onclick: () => sort(place) }, column.name)
    )
  );
  function fill(ordered) {
    body.replaceChildren(
      ...ordered.map((row) =>
        element(
          "tr",
          {},
          columns.map((column, place) =>
            element(
              place ? "td" : "th",
              { class: column.number ? "number" : null, scope: place ? null : "row" },
              (column.cell ?? column.value)(row) ?? "–"
            )
          )
        )
      )
    );
  }
  function sort(place) {
    const up = headers[place].getAttribute("aria-sort") === "ascending";
    headers.forEach((header) => header.removeAttribute("aria-sort"));
    headers[place].setAttribute("aria-sort", up ? "descending" : "ascending");
    const value = columns[place].value;
    const ordered = [...rows].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a == null || b == null) return (a == null) - (b == null);
      return (a < b ? -1 : a > b ? 1 : 0) * (up ? -1 : 1);
    });
    fill(ordered);
  }
  fill(rows);
  return element(
    "div",
    { class: "scroll tall", tabindex: 0, role: "region", "aria-label": caption },
    element("table", {}, element("thead", {}, element("tr", {}, headers)), body)
  );
}

// Rows of a CSV: columns of numbers are aligned and sorted as such.
function csvTable(table, run, firstCell) {
  const columns = table.columns.map((name, place) => {
    const numeric = table.rows.every((row) => row[place] == null || typeof row[place] === "number");
    return {
      name,
      number: numeric,
      value: (row) => row[place],
      cell: (row) =>
        place === 0 && firstCell ? firstCell(row[0]) : numeric ? number(row[place]) : row[place],
    };
  });
  return sortable(columns, table.rows, `${table.name} of ${run.name}`);
}

// Tabs by the pattern of WAI-ARIA: arrows, Home and End move, and what has the focus is shown.
function makeTabs(parts) {
  const list = document.getElementById("tabs");
  const panels = document.getElementById("panels");
  const tabs = parts.map(([name, build], place) => {
    const id = name.toLowerCase();
    const panel = element("section", {
      id: `panel-${id}`, role: "tabpanel", "aria-labelledby": `tab-${id}`, hidden: true,
    });
    const tab = element(
      "button",
      { id: `tab-${id}`, role: "tab", type: "button", "aria-controls": panel.id, onclick: () => open(place) },
      name
    );
    list.append(tab);
    panels.append(panel);
    return { tab, panel, build, id };
  });
  function open(place, focus = false) {
    tabs.forEach(({ tab, panel, build }, number) => {
      const chosen = number === place;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
      panel.hidden = !chosen;
      if (chosen && !panel.hasChildNodes()) build(panel);
      if (!chosen) panel.dispatchEvent(new Event("leave"));
    });
    if (focus) tabs[place].tab.focus();
    tabs[place].tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    history.replaceState(null, "", `#${tabs[place].id}`);
  }
  list.addEventListener("keydown", (event) => {
    const place = tabs.findIndex(({ tab }) => tab === document.activeElement);
    const last = tabs.length - 1;
    const moves = {
      ArrowRight: place === last ? 0 : place + 1, ArrowLeft: place === 0 ? last : place - 1,
      Home: 0, End: last,
    };
    if (place < 0 || !(event.key in moves)) return;
    event.preventDefault();
    open(moves[event.key], true);
  });
  open(Math.max(0, tabs.findIndex(({ id }) => `#${id}` === location.hash)));
}

// Boxes that choose which runs the curves show, where there are several.
function makeChips() {
  if (runs.length < 2) return;
  for (const run of runs) {
    const box = element("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      run.hidden = !box.checked;
      listeners.forEach((listener) => listener());
    });
    const chip = element("label", { class: "chip" }, box, element("span", {}, run.name));
    document.getElementById("runs").append(colored(chip, run));
  }
}
