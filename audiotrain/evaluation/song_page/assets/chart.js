// The chart: bars of beats, four bars a line, with each chord at the beat nearest to its beginning.

const LINE = 4; // bars
const MANY = 400; // bars: more are laid out only where they are seen

// Chords in time: {start, end, label, chord, confidence}; a correction replaces the list.
let segments = data.segments.map(([start, end, label, type, root, bass, confidence]) => ({
  start, end, label, chord: [type, root, bass], confidence,
}));
const beats = data.bars.flat();
const firstBeats = []; // of each bar, and the number of beats after the last
data.bars.reduce((count, bar) => { firstBeats.push(count); return count + bar.length; }, 0);
firstBeats.push(beats.length);
const hasUpbeat = data.bars.length > 1 && data.bars[0].length < data.metre;
const barName = (bar) => String(bar + (hasUpbeat ? 0 : 1));
const barTime = (bar) => (bar < data.bars.length ? beats[firstBeats[bar]] : data.seconds);

// The last place of a rising list whose value is at most `value`.
function lastUpTo(values, value) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return Math.max(0, low - 1);
}

function nearestBeat(time) {
  const at = lastUpTo(beats, time);
  const next = at + 1 < beats.length ? beats[at + 1] : data.seconds;
  return time - beats[at] > next - time ? at + 1 : at;
}

const beatAt = (time) => lastUpTo(beats, time);
const barAt = (beat) => lastUpTo(firstBeats, Math.min(beat, beats.length - 1));

let owners = []; // of each beat: the number of its segment
let begins = []; // of each segment: its first beat; of one shorter than half a beat -1
let startTimes = [];

function placeSegments() {
  owners = new Array(beats.length).fill(0);
  startTimes = segments.map((segment) => segment.start);
  begins = segments.map(({ start, end }, number) => {
    const from = number ? nearestBeat(start) : 0;
    const to = number === segments.length - 1 ? beats.length : nearestBeat(end);
    for (let beat = from; beat < to; beat++) owners[beat] = number;
    return to > from ? from : -1;
  });
}

const labelAt = (beat) => segments[owners[beat]]?.label;

// Runs of one chord in a bar: {beat in the bar, count, segment, isNew}.
function runsOf(bar) {
  const found = [];
  for (let beat = firstBeats[bar]; beat < firstBeats[bar + 1]; beat++) {
    const isSame = beat > 0 && labelAt(beat) === labelAt(beat - 1);
    if (found.length && isSame) found.at(-1).count++;
    else found.push({ beat: beat - firstBeats[bar], count: 1, segment: owners[beat], isNew: !isSame });
  }
  return found;
}

const isUnsure = ({ confidence }) => confidence != null && confidence < data.unsure;

const chart = document.getElementById("chart");
const barBoxes = [];
let names = []; // of the chords on the chart: {node, segment, share}
let focused = 0; // the bar that Tab reaches

const pen = document.createElement("canvas").getContext("2d");
pen.font = `650 100px ${getComputedStyle(document.body).fontFamily}`;
const widths = new Map(); // of texts in bold at 1 px

function textWidth(text) {
  if (!widths.has(text)) widths.set(text, pen.measureText(text).width / 100);
  return widths.get(text);
}

// How wide a name is at a font size of 1 px; the suffix is as small as in song.css.
function widthOf(chord) {
  const [note, suffix, bass] = nameParts(chord);
  return textWidth(note) + 0.72 * (textWidth(suffix) + textWidth(bass));
}

function writeName({ node, segment, share }) {
  const { chord, confidence } = segments[segment];
  node.replaceChildren(element("span", {}, written(chord)));
  // What the font size follows from: share of the bar's width, and the name's width at 1 px.
  node.style.setProperty("--share", share);
  node.style.setProperty("--wide", widthOf(chord).toFixed(3));
  if (node.classList.contains("unsure")) node.append(element("small", {}, `${Math.round(100 * confidence)} %`));
}

function fillBar(bar) {
  const box = barBoxes[bar];
  const count = data.bars[bar].length;
  const line = element("div", { class: "cells" });
  line.style.gridTemplateColumns = `repeat(${count}, minmax(0, 1fr))`;
  for (const { beat, count: length, segment, isNew } of runsOf(bar)) {
    if (segment < 0) continue;
    const unsure = isUnsure(segments[segment]);
    const node = element("span", { class: `chord${isNew ? "" : " held"}${unsure && isNew ? " unsure" : ""}${segments[segment].isCorrected ? " corrected" : ""}` });
    node.style.gridColumn = `${beat + 1} / span ${length}`;
    const name = { node, segment, share: length / count };
    names.push(name);
    writeName(name);
    line.append(node);
  }
  const dots = element("div", { class: "beats", "aria-hidden": "true" }, data.bars[bar].map(() => element("i")));
  box.replaceChildren(element("span", { class: "number", "aria-hidden": "true" }, barName(bar)), line, dots);
  describeBar(bar);
}

function describeBar(bar) {
  const parts = runsOf(bar).filter(({ segment }) => segment >= 0).map(({ beat, segment, isNew }) => {
    const sure = isNew && isUnsure(segments[segment]) ? `, unsure, ${Math.round(100 * segments[segment].confidence)} percent` : "";
    return nameOf(segments[segment].chord) + (beat ? ` on beat ${beat + 1}` : "") + sure;
  });
  barBoxes[bar].setAttribute("aria-label", `Bar ${barName(bar)}: ${parts.join(", ") || "nothing"}`);
}

function buildChart() {
  const starts = hasUpbeat ? [0] : [];
  for (let bar = hasUpbeat ? 1 : 0; bar < data.bars.length; bar += LINE) starts.push(bar);
  const lines = starts.map((from, at) => {
    const to = starts[at + 1] ?? data.bars.length;
    const boxes = [];
    for (let bar = from; bar < to; bar++) {
      barBoxes[bar] = element("div", { class: "bar", role: "gridcell", tabindex: bar ? -1 : 0 });
      barBoxes[bar].dataset.bar = bar;
      boxes.push(barBoxes[bar]);
    }
    return element("div", { class: "line", role: "row" }, boxes);
  });
  chart.classList.toggle("many", data.bars.length > MANY);
  chart.setAttribute("aria-rowcount", lines.length);
  fillChart();
  chart.append(...lines);
}

function fillChart() {
  placeSegments();
  names = [];
  data.bars.forEach((_, bar) => fillBar(bar));
  shownBeat = shownBar = -1;
}

// After a change of names alone.
function renameChart() {
  names.forEach(writeName);
  data.bars.forEach((_, bar) => describeBar(bar));
}

function focusBar(bar) {
  const to = Math.min(Math.max(bar, 0), data.bars.length - 1);
  barBoxes[focused].tabIndex = -1;
  barBoxes[to].tabIndex = 0;
  focused = to;
  barBoxes[to].focus();
}

// ---- what moves with the sound

let shownBeat = -1;
let shownBar = -1;
const still = matchMedia("(prefers-reduced-motion: reduce)");

function markBeat(time, follow) {
  const beat = beatAt(time);
  if (beat === shownBeat) return;
  const bar = barAt(beat);
  if (shownBar >= 0) barBoxes[shownBar].querySelector(".beats .on")?.classList.remove("on");
  if (bar !== shownBar) {
    barBoxes[shownBar]?.classList.remove("now");
    barBoxes[shownBar]?.removeAttribute("aria-current");
    barBoxes[bar].classList.add("now");
    barBoxes[bar].setAttribute("aria-current", "true");
    if (follow) scrollToBar(bar);
  }
  barBoxes[bar].querySelectorAll(".beats i")[beat - firstBeats[bar]].classList.add("on");
  [shownBeat, shownBar] = [beat, bar];
}

// Keep the bar between what covers the window's upper and lower edge.
function scrollToBar(bar) {
  const box = barBoxes[bar].getBoundingClientRect();
  const covered = getComputedStyle(document.getElementById("now")).position === "sticky" && innerWidth < 900
    ? document.getElementById("now").offsetHeight : 0;
  const lowest = innerHeight - document.getElementById("transport").offsetHeight;
  if (box.top >= covered + 8 && box.bottom + box.height <= lowest) return;
  scrollTo({ top: scrollY + box.top - covered - (lowest - covered) * 0.25, behavior: still.matches ? "auto" : "smooth" });
}

function markLoop(span) {
  barBoxes.forEach((box, bar) => {
    const inside = span !== null && bar >= span[0] && bar <= span[1];
    if (box.classList.contains("looped") !== inside) box.classList.toggle("looped", inside);
  });
}
