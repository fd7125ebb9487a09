// Confusion matrices as heat maps, and what they say of each class.

const LIGHT = {
  shades: [[255, 255, 255], [219, 234, 254], [147, 197, 253], [59, 130, 246], [30, 64, 175], [15, 31, 75]],
  fall: [185, 28, 28], rise: [4, 120, 87], pale: "#22272e", strong: "#ffffff",
};
const DARK = {
  shades: [[27, 33, 42], [28, 52, 100], [34, 78, 168], [59, 130, 246], [147, 197, 253], [226, 238, 255]],
  fall: [249, 128, 128], rise: [74, 222, 128], pale: "#e6e9ee", strong: "#14181e",
};
const darkness = matchMedia("(prefers-color-scheme: dark)");

function confusion(panel) {
  const having = runs.filter((run) => run.confusions.length);
  const chosen = { run: having[0], name: having[0].confusions[0].name, values: "share" };
  const place = element("div");
  const firstOf = (run) => having.find((other) => other.recipe === run.recipe);
  const show = () => place.replaceChildren(...matrixAndClasses(chosen, firstOf(chosen.run), panel.clientWidth));
  const names = [...new Set(having.flatMap((run) => run.confusions.map((matrix) => matrix.name)))];
  const values = [["share", "share of the reference"], ["count", "counts"]];
  const same = having.every((run) => firstOf(run) === having[0]);
  if (having.length > 1) values.push(["difference", `difference to ${same ? having[0].name : "the recipe's first run"}`]);
  panel.append(
    element("div", { class: "controls" },
      having.length > 1 ? choice("Run", having.map((run, at) => [at, run.name]), (at) => { chosen.run = having[at]; show(); }) : null,
      names.length > 1 ? choice("Of", names.map((name) => [name, name.replaceAll("_", " ")]), (name) => { chosen.name = name; show(); }) : null,
      choice("Colours", values, (value) => { chosen.values = value; show(); })),
    place);
  darkness.addEventListener("change", show);
  show();
}

// Dense counts (classes, classes) of the sparse cells [reference, predicted, count].
function dense(matrix) {
  const counts = matrix.classes.map(() => new Float64Array(matrix.classes.length));
  matrix.cells.forEach(([row, column, count]) => { counts[row][column] = count; });
  return counts;
}

const total = (row) => row.reduce((sum, count) => sum + count, 0);
const named = (run, name) => run.confusions.find((matrix) => matrix.name === name);

function matrixAndClasses(chosen, first, width) {
  const matrix = named(chosen.run, chosen.name);
  if (!matrix) return [element("p", { class: "pale" }, `${chosen.run.name} has none of ${chosen.name}.`)];
  const base = named(first, chosen.name);
  const same = base && base.classes.join("\n") === matrix.classes.join("\n");
  const counts = dense(matrix);
  const before = same && first !== chosen.run ? dense(base) : null;
  const right = counts.reduce((sum, row, at) => sum + row[at], 0);
  const all = counts.reduce((sum, row) => sum + total(row), 0);
  const readout = element("p", { class: "readout pale", "aria-live": "polite" }, "Point at a cell.");
  const note = chosen.values === "difference" && !before ? " There is nothing else to compare with." : "";
  return [
    element("p", {}, all ? `${percent(right / all)} of ${all.toLocaleString("en")} right.${note}` : "It is empty."),
    element("div", { class: "confusion" },
      element("div", {}, element("div", { class: "matrix" }, heatMap(matrix.classes, counts, before, chosen.values, readout, width)), readout),
      classTable(matrix.classes, counts, before)),
  ];
}

function mixed(colors, place) {
  const at = Math.min(Math.max(place, 0), 1) * (colors.length - 1);
  const low = Math.min(Math.floor(at), colors.length - 2);
  return `rgb(${colors[low].map((part, index) => Math.round(part + (at - low) * (colors[low + 1][index] - part)))})`;
}

function heatMap(classes, counts, before, values, readout, width) {
  const palette = darkness.matches ? DARK : LIGHT;
  const canvas = element("canvas", { role: "img", "aria-label": `Confusion of ${classes.length} classes; the table has the numbers.` });
  const size = classes.length;
  const free = Math.min(width, 620) - 40;
  const cell = size > 120 ? 5 : size > 60 ? 9 : Math.max(15, Math.min(44, Math.floor(free / size)));
  const font = Math.min(13, Math.max(8, cell * 0.72));
  const lettered = cell >= 9;
  const longest = lettered ? Math.max(...classes.map((name) => Math.min(name.length, 16))) * font * 0.6 + 10 : 4;
  const room = Math.ceil(longest);
  const side = room + cell * size + 1;
  const scale = Math.min(window.devicePixelRatio || 1, 4096 / side);
  canvas.width = canvas.height = Math.ceil(side * scale);
  canvas.style.width = canvas.style.height = `${side}px`;
  const draw = canvas.getContext("2d");
  const ink = getComputedStyle(document.body).color;
  draw.scale(scale, scale);
  draw.font = `${font}px system-ui, sans-serif`;
  draw.fillStyle = ink;
  draw.textBaseline = "middle";
  const cut = (name) => (name.length > 16 ? `${name.slice(0, 15)}…` : name);
  if (lettered) classes.forEach((name, at) => {
    draw.textAlign = "right";
    draw.fillText(cut(name), room - 5, room + cell * (at + 0.5));
    draw.save();
    draw.translate(room + cell * (at + 0.5), room - 5);
    draw.rotate(-Math.PI / 2);
    draw.textAlign = "left";
    draw.fillText(cut(name), 0, 0);
    draw.restore();
  });
  const sums = counts.map(total), sumsBefore = before?.map(total);
  const most = Math.max(...counts.map((row) => Math.max(...row)), 1);
  const share = (rows, of, row, column) => (of[row] ? rows[row][column] / of[row] : 0);
  counts.forEach((row, r) => row.forEach((count, c) => {
    const rise = before ? share(counts, sums, r, c) - share(before, sumsBefore, r, c) : 0;
    let color = values === "count" ? mixed(palette.shades, Math.sqrt(count / most)) : mixed(palette.shades, Math.sqrt(share(counts, sums, r, c)));
    if (values === "difference") color = mixed([palette.shades[0], rise > 0 === (r === c) ? palette.rise : palette.fall], Math.sqrt(Math.abs(rise)));
    draw.fillStyle = color;
    draw.fillRect(room + cell * c, room + cell * r, cell - (cell > 8 ? 1 : 0), cell - (cell > 8 ? 1 : 0));
    if (cell >= 26 && count && values !== "difference") {
      draw.fillStyle = Math.sqrt(values === "count" ? count / most : count / sums[r]) > 0.5 ? palette.strong : palette.pale;
      draw.font = `${Math.min(11, cell / 3)}px system-ui, sans-serif`;
      draw.textAlign = "center";
      draw.fillText(short(count), room + cell * (c + 0.5), room + cell * (r + 0.5));
    }
  }));
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const [c, r] = [event.clientX - box.left, event.clientY - box.top].map((at) => Math.floor((at - room) / cell));
    if (!(counts[r]?.[c] >= 0)) return;
    const was = before ? `, was ${percent(share(before, sumsBefore, r, c))}` : "";
    readout.textContent = `${classes[r]} recognised as ${classes[c]}: ${counts[r][c].toLocaleString("en")}, ${percent(share(counts, sums, r, c))} of ${sums[r].toLocaleString("en")}${was}`;
  });
  return canvas;
}

function classTable(classes, counts, before) {
  const recalls = (rows) => rows.map((row, at) => (total(row) ? row[at] / total(row) : null));
  const old = before && recalls(before);
  const recall = recalls(counts);
  const rows = classes.map((name, at) => {
    const support = total(counts[at]);
    const predicted = counts.reduce((sum, row) => sum + row[at], 0);
    const others = [...counts[at]].map((count, other) => [count, other]).filter(([count, other]) => count && other !== at)
      .sort(([one], [other]) => other - one).slice(0, 3);
    return {
      name, support, recall: recall[at], precision: predicted ? counts[at][at] / predicted : null,
      change: old && old[at] != null && recall[at] != null ? recall[at] - old[at] : null,
      others: others.map(([count, other]) => `${classes[other]} ${percent(count / support)}`).join(", "),
    };
  }).filter((row) => row.support || row.precision != null);
  const share = (value) => (value == null ? "–" : percent(value));
  const signed = (row) => row.change == null ? "–" : element("span", { class: row.change < 0 ? "worse" : row.change > 0 ? "better" : "same" },
    `${row.change < 0 ? "−" : "+"}${percent(Math.abs(row.change))}`);
  const columns = [
    { name: "class", value: (row) => row.name },
    { name: "support", number: true, value: (row) => row.support, cell: (row) => row.support.toLocaleString("en") },
    { name: "recall", number: true, value: (row) => row.recall, cell: (row) => share(row.recall) },
    ...(old ? [{ name: "change", number: true, value: (row) => row.change, cell: signed }] : []),
    { name: "precision", number: true, value: (row) => row.precision, cell: (row) => share(row.precision) },
    { name: "confused with", value: (row) => row.others },
  ];
  return sortable(columns, rows.sort((one, other) => other.support - one.support), "Classes");
}
