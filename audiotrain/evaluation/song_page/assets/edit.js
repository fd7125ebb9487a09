// Corrections by hand: a chord at a beat, kept in this browser, saved as a .lab file.

const STORE = `audiotrain song ${data.id}`;
const recognised = segments; // as they are without corrections
const history = []; // lists of segments before each correction
let isCorrecting = false;

function kept() {
  try {
    return JSON.parse(localStorage.getItem(STORE));
  } catch {
    return null; // a page inside another one has no storage
  }
}

function keep() {
  try {
    if (segments === recognised) localStorage.removeItem(STORE);
    else localStorage.setItem(STORE, JSON.stringify(segments));
  } catch {
    // nothing is kept
  }
}

function replaceSegments(list) {
  segments = list;
  fillChart();
  keep();
}

// The chord from a beat on, up to the next change.
function setChord(beat, chord) {
  const number = owners[beat];
  const old = segments[number];
  const made = { ...old, label: harte(chord), chord, confidence: null, isCorrected: true };
  const list = [...segments];
  if (begins[number] === beat) list[number] = made;
  else {
    const at = beats[beat];
    list.splice(number, 1, { ...old, end: at }, { ...made, start: at });
  }
  history.push(segments);
  replaceSegments(list);
}

// No change at a beat: the chord of the beat before goes on, over chords too short for a beat, too.
function removeChange(beat) {
  const number = owners[beat];
  if (beat < 1 || begins[number] !== beat) return false;
  const before = owners[beat - 1];
  const list = [...segments];
  list.splice(before, number - before + 1, { ...list[before], end: list[number].end, isCorrected: true });
  history.push(segments);
  replaceSegments(list);
  return true;
}

function undo() {
  if (!history.length) return false;
  replaceSegments(history.pop());
  return true;
}

// Start, end and label in the recording's own pitch; neighbours of one label are one.
function labText() {
  const rows = [];
  for (const { start, end, label } of segments) {
    if (rows.length && rows.at(-1)[2] === label) rows.at(-1)[1] = end;
    else rows.push([start, end, label]);
  }
  return rows.map(([start, end, label]) => `${start.toFixed(6)}\t${end.toFixed(6)}\t${label}\n`).join("");
}

// A name without what file systems refuse: the recording's own wherever it can be, so that the
// annotation is found beside it.
const fileName = (name) => [...name.replace(/[\\/:*?"<>|\p{Cc}]/gu, "_")].slice(0, 120).join("") || "song";

function saveLab() {
  const link = element("a", {
    href: URL.createObjectURL(new Blob([labText()], { type: "text/plain" })),
    download: `${fileName(data.name)}.lab`,
  });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// ---- the dialog

const dialog = document.getElementById("correct");
const form = { beat: 0, bar: 0 };

function openCorrection(beat) {
  form.beat = Math.min(beat, beats.length - 1);
  form.bar = barAt(form.beat);
  drawCorrection();
  if (!dialog.open) dialog.showModal();
}

function drawCorrection() {
  const count = data.bars[form.bar].length;
  const from = firstBeats[form.bar];
  const [type, root, bass] = segments[owners[form.beat]].chord;
  const by = shift();
  const names = letters(by, view.naming === "german" ? "german" : "letters");
  const pitches = Array.from({ length: 12 }, (_, pitch) => [pitch, names[mod(pitch + by)]]);
  const types = theory.types.map((name, number) => [number, number ? theory.suffixes[number] || "major" : "no chord"]);
  const preview = element("div", { class: "preview" });
  const note = choice("Root", pitches, draw);
  const kind = choice("Chord", types, draw);
  const low = choice("Bass", [[-1, "as the root"], ...pitches], draw);
  const value = (label) => +label.querySelector("select").value;
  note.querySelector("select").value = Math.max(0, root);
  kind.querySelector("select").value = Math.max(0, type);
  low.querySelector("select").value = bass === root ? -1 : bass;
  const chosen = () => {
    const number = value(kind);
    if (!number) return [0, -1, -1];
    return [number, value(note), value(low) < 0 ? value(note) : value(low)];
  };
  function draw() {
    preview.replaceChildren(element("b", {}, ...written(chosen())), diagram(chosen()) ?? "");
  }
  draw();
  const beatChoice = element("div", { class: "segmented", role: "group", "aria-label": "Beat" },
    data.bars[form.bar].map((_, at) => element("button", {
      type: "button", "aria-pressed": String(from + at === form.beat),
      onclick: () => { form.beat = from + at; drawCorrection(); dialog.querySelector(".segmented [aria-pressed=true]").focus(); },
    }, `${at + 1}`)));
  const isStart = begins[owners[form.beat]] === form.beat && owners[form.beat] > 0;
  dialog.replaceChildren(element("form", { method: "dialog" },
    element("h2", {}, `Bar ${barName(form.bar)}`),
    element("p", { class: "pale" }, count > 1 ? "From which beat, and which chord up to the next change?" : "Which chord up to the next change?"),
    beatChoice, element("div", { class: "fields" }, note, kind, low), preview,
    element("div", { class: "row" },
      element("button", { class: "primary", id: "set", type: "button", onclick: () => { setChord(form.beat, chosen()); finish("Corrected."); } }, "Set chord"),
      element("button", { class: "plain", type: "button", disabled: !isStart, onclick: () => { removeChange(form.beat); finish("Change removed."); } }, "No change here"),
      element("button", { class: "plain", type: "button", disabled: !history.length, onclick: () => { undo(); finish("Undone."); } }, "Undo"),
      element("button", { class: "plain", type: "submit" }, "Cancel"))));
}

function finish(text) {
  dialog.close();
  corrected(text);
}
