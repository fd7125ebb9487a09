// Overview, Scores and Settings.

const overview = (panel) => byRecipe(panel, overviewOf);
const scores = (panel) => byRecipe(panel, scoresOf);

function overviewOf(panel, runs, recipe) {
  panel.append(
    element("div", { class: "cards" }, runs.map((run) => {
      const facts = Object.entries(run.headlines).map(([key, text]) => [text, withDeviation(run, key)]);
      facts.push(
        ["state", run.state], ["trained", run.took ?? "–"],
        ["steps", run.step == null ? "–" : number(run.step)], ["written", run.written]
      );
      return colored(element("article", { class: "card" },
        element("h3", {}, run.name),
        element("p", { class: "pale" }, run.kind),
        run.problems.map((text) => element("p", { class: "problem" }, text)),
        element("dl", {}, facts.map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]))
      ), run);
    }))
  );
  const names = [...new Set(runs.flatMap((run) => Object.values(run.headlines)))];
  const scoreOf = (run, text) => run.scores[Object.keys(run.headlines).find((key) => run.headlines[key] === text)];
  if (runs.length > 1 && names.length) {
    const columns = [
      { name: "run", value: (run) => run.name, cell: (run) => [dot(run), " ", run.name] },
      ...names.map((name) => ({ name, number: true, value: (run) => scoreOf(run, name), cell: (run) => number(scoreOf(run, name)) })),
    ];
    const table = sortable(columns, runs, "Scores of all runs");
    panel.append(element("h2", {}, "Side by side"), table);
  }
  const different = report.differing[recipe];
  if (different.length) panel.append(element("h2", {}, "What was set differently"), settingsTable(runs, different, []));
}

// A mean over folds has its deviation beside it.
function withDeviation(run, key) {
  const deviation = run.scores[key.replace(/^mean\./, "deviation.")];
  return number(run.scores[key]) + (key.startsWith("mean.") && deviation != null ? ` ± ${number(deviation)}` : "");
}

function scoresOf(panel, runs) {
  const groups = new Map();
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.scores)))];
  const main = new Set(runs.flatMap((run) => Object.keys(run.headlines)).map(groupOf));
  for (const name of names) {
    if (!groups.has(groupOf(name))) groups.set(groupOf(name), []);
    groups.get(groupOf(name)).push(name);
  }
  const ordered = [...groups].sort(([one], [other]) => main.has(other) - main.has(one));
  const first = runs[0];
  const head = element("thead", {}, element("tr", {},
    element("th", { scope: "col" }, "score"),
    runs.map((run) => element("th", { scope: "col", class: "number" }, dot(run), " ", run.name))
  ));
  const bodies = ordered.map(([group, members], place) => {
    const rows = members.map((name) => element("tr", { hidden: place > 0 && !main.has(group) },
      element("th", { scope: "row" }, name.slice(group.length).replace(/^\./, "") || name),
      runs.map((run) => scoreCell(run, first, name))
    ));
    if (!group) return element("tbody", {}, rows);
    const button = element("button", { type: "button", "aria-expanded": !rows[0].hidden, onclick: () => {
      rows.forEach((row) => { row.hidden = !row.hidden; });
      button.setAttribute("aria-expanded", !rows[0].hidden);
    } }, group.replaceAll(".", " · "));
    const title = element("tr", { class: "group" }, element("th", { colspan: runs.length + 1, scope: "rowgroup" }, button));
    return element("tbody", {}, title, rows);
  });
  if (names.length) {
    if (runs.length > 1) panel.append(element("p", { class: "pale" }, `Differences are to ${first.name}.`));
    panel.append(element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Scores" }, element("table", {}, head, bodies)));
  }
  for (const run of runs) {
    for (const table of run.tables.filter((table) => table.name !== "songs")) {
      const count = table.rows.length < table.total ? `${table.rows.length} of ${table.total} rows` : table.total === 1 ? "1 row" : `${table.total} rows`;
      panel.append(element("details", {}, element("summary", {}, dot(run), ` ${run.name}: ${table.name} (${count})`), csvTable(table, run)));
    }
  }
}

const groupOf = (name) => name.slice(0, Math.max(0, name.lastIndexOf(".")));

function scoreCell(run, first, name) {
  const value = run.scores[name];
  const cell = element("td", { class: "number" }, number(value));
  if (run === first || value == null || first.scores[name] == null) return cell;
  const difference = value - first.scores[name];
  const better = (difference > 0) !== report.lower.includes(name);
  const text = difference === 0 ? "same" : `${difference > 0 ? "+" : "−"}${number(Math.abs(difference))}`;
  const kind = difference === 0 || report.neutral.includes(name) ? "same" : better ? "better" : "worse";
  cell.append(element("span", { class: `difference ${kind}` }, text));
  return cell;
}

function settingsTable(runs, names, marked) {
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Settings" },
    element("table", {},
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "setting"),
        runs.map((run) => element("th", { scope: "col" }, dot(run), " ", run.name)))),
      element("tbody", {}, names.map((name) =>
        element("tr", { class: marked.includes(name) ? "differs" : null },
          element("th", { scope: "row" }, name),
          runs.map((run) => element("td", { class: "setting" }, run.settings[name] ?? "–")))))
    ));
}

function settings(panel) {
  const search = element("input", { type: "search", placeholder: "name or value", oninput: fill });
  const only = element("input", { type: "checkbox", onchange: fill });
  const place = element("div");
  function fill() {
    place.replaceChildren();
    byRecipe(place, fillOf);
  }
  function fillOf(place, runs, recipe) {
    const wanted = search.value.toLowerCase();
    const different = report.differing[recipe];
    const found = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))].filter((name) =>
      (!only.checked || different.includes(name)) &&
      [name, ...runs.map((run) => run.settings[name] ?? "")].some((text) => text.toLowerCase().includes(wanted)));
    place.append(found.length ? settingsTable(runs, found, different) : element("p", { class: "pale" }, "No setting is like that."));
  }
  panel.append(element("div", { class: "controls" },
    element("label", {}, "Find", search),
    runs.length > 1 ? element("label", {}, only, "only those that differ") : null), place);
  fill();
}
