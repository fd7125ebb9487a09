// Curves: one chart a metric, all runs in it; training thin, validation strong.

const WORDS = { loss: 0, acc: 1, accuracy: 1 };

function curves(panel) {
  const options = { log: false, share: false };
  const charts = element("div");
  const drawn = [];
  byRecipe(charts, (panel, runs) => {
    const made = metricsOf(runs).map((metric) => makeChart(metric, runs, options));
    drawn.push(...made);
    if (made.length) panel.append(element("div", { class: "charts" }, made.map((chart) => chart.figure)));
  });
  const redraw = () => drawn.forEach((chart) => chart.draw());
  panel.append(
    element("div", { class: "controls" },
      choice("Values", [["linear", "linear"], ["log", "logarithmic"]], (value) => { options.log = value === "log"; redraw(); }),
      choice("Along", [["step", "steps"], ["share", "share of the run"]], (value) => { options.share = value === "share"; redraw(); }),
      element("span", { class: "pale" }, "thin: training, strong: validation")),
    charts);
  listeners.push(redraw);
  new ResizeObserver(redraw).observe(charts);
}

// Metrics by their name without val_ or train_: those of validation first, losses before others.
function metricsOf(all) {
  const names = [...new Set(all.flatMap((run) => Object.keys(run.series)))];
  const bases = [...new Set(names.map((name) => name.replace(/^(val|train)_/, "")))];
  const rank = (base) => {
    const validated = names.includes(`val_${base}`) ? 0 : 10;
    return validated + (base === "loss" ? -1 : WORDS[base.split("_").at(-1)] ?? 2);
  };
  return bases.sort((one, other) => rank(one) - rank(other));
}

// A run's lines in a chart; the log's rows show more of training than the epochs' averages.
function linesOf(run, metric) {
  const training = run.series[metric] ?? run.series[`train_${metric}`];
  const found = [];
  if (training) found.push({ run, kind: "training", ...training });
  if (run.series[`val_${metric}`]) found.push({ run, kind: "validation", ...run.series[`val_${metric}`] });
  return found;
}

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at++) found.push(at * step);
  return found;
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const factor of [1, 2, 5]) if (factor * 10 ** power >= low && factor * 10 ** power <= high) found.push(factor * 10 ** power);
  return found.length > 7 ? found.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9) : found.length > 1 ? found : ticks(low, high, 4);
}

const short = (value) => {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return size && size < 1e-3 ? value.toExponential(0) : String(+value.toPrecision(4));
};

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text != null) made.textContent = text;
  return made;
}

function makeChart(metric, runs, options) {
  const picture = svg("svg", { tabindex: 0, role: "img" });
  const tip = element("div", { class: "tip", hidden: true });
  const figure = element("figure", { class: "chart" }, element("figcaption", {}, metric.replaceAll("_", " ")), picture, tip);
  const edge = { left: 46, right: 10, top: 10, bottom: 24 };
  const height = 230;
  let view = null;

  function draw() {
    tip.hidden = true;
    const width = picture.clientWidth;
    const lines = runs.filter((run) => !run.hidden).flatMap((run) => linesOf(run, metric));
    figure.hidden = !lines.length;
    if (!width || !lines.length) return;
    const along = (line, step) => (options.share ? (100 * step) / Math.max(1, line.run.step) : step);
    const usable = (value) => !options.log || value > 0;
    const values = lines.flatMap((line) => line.y.filter(usable));
    picture.replaceChildren();
    if (!values.length) return;
    const most = Math.max(...lines.map((line) => along(line, line.x.at(-1))));
    const least = Math.min(0, ...lines.map((line) => along(line, line.x[0])));
    let [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
    if (low === high) [low, high] = options.log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
    if (!options.log) [low, high] = [low - 0.04 * (high - low), high + 0.04 * (high - low)];
    const bend = options.log ? Math.log10 : (value) => value;
    const x = (value) => edge.left + ((value - least) / (most - least || 1)) * (width - edge.left - edge.right);
    const y = (value) => height - edge.bottom - ((bend(value) - bend(low)) / (bend(high) - bend(low))) * (height - edge.top - edge.bottom);
    for (const tick of options.log ? logTicks(low, high) : ticks(low, high, 5)) {
      picture.append(svg("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: y(tick), y2: y(tick) }),
        svg("text", { x: edge.left - 6, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
    }
    for (const tick of ticks(least, most, width < 350 ? 3 : 5))
      picture.append(svg("text", { x: x(tick), y: height - 6, "text-anchor": x(tick) > width - 24 ? "end" : "middle" }, short(tick) + (options.share ? "%" : "")));
    for (const line of lines) {
      const points = line.x.map((step, at) => [x(along(line, step)), line.y[at]]).filter(([, value]) => usable(value)).map(([px, value]) => [px, y(value)]);
      const path = points.map(([px, py], at) => `${at ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
      const strong = line.kind === "validation" || !lines.some((other) => other.kind === "validation");
      picture.append(colored(svg("path", { d: path, class: strong ? "validation" : "training" }), line.run));
      if (points.length === 1 || (strong && points.length <= 30))
        points.forEach(([cx, cy]) => picture.append(colored(svg("circle", { cx, cy, r: 2.6 }), line.run)));
    }
    const cross = svg("line", { class: "hover", y1: edge.top, y2: height - edge.bottom, visibility: "hidden" });
    picture.append(cross);
    const places = [...new Set(lines.flatMap((line) => line.x.map((step) => along(line, step))))].sort((a, b) => a - b);
    view = { width, lines, along, x, cross, places, at: -1 };
    const last = lines.map((line) => `${line.run.name} ${line.kind} ends at ${number(line.y.at(-1))}`).join(", ");
    picture.setAttribute("aria-label", `${metric}: ${last}`);
  }

  function point(place) {
    view.at = Math.min(Math.max(place, 0), view.places.length - 1);
    const where = view.places[view.at];
    const px = view.x(where);
    view.cross.setAttribute("x1", px);
    view.cross.setAttribute("x2", px);
    view.cross.setAttribute("visibility", "visible");
    const rows = view.lines.map((line) => {
      const steps = line.x.map((step) => Math.abs(view.along(line, step) - where));
      const near = steps.indexOf(Math.min(...steps));
      const name = `${runs.length > 1 ? `${line.run.name} ` : ""}${line.kind}`;
      return element("div", {}, dot(line.run), element("span", {}, name), element("b", {}, number(line.y[near])));
    });
    const title = options.share ? `${where.toFixed(1)}% of the run` : `step ${number(where)}`;
    tip.replaceChildren(element("div", { class: "pale" }, title), ...rows);
    tip.hidden = false;
    const room = view.width - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(px > view.width / 2 ? px - tip.offsetWidth - 12 : px + 12, room))}px`;
    tip.style.top = "34px";
  }

  function leave() {
    tip.hidden = true;
    view?.cross.setAttribute("visibility", "hidden");
  }

  const follow = (event) => {
    if (!view) return;
    const px = event.clientX - picture.getBoundingClientRect().left;
    const gaps = view.places.map((place) => Math.abs(view.x(place) - px));
    point(gaps.indexOf(Math.min(...gaps)));
  };
  picture.addEventListener("pointermove", follow);
  picture.addEventListener("pointerdown", follow);
  picture.addEventListener("pointerleave", leave);
  picture.addEventListener("blur", leave);
  picture.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: 10, PageDown: -10 };
    if (!view || !(event.key in moves)) return;
    event.preventDefault();
    point(view.at + moves[event.key]);
  });
  return { figure, draw };
}
