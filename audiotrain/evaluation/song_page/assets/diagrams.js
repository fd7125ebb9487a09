// Pictures of fingerings: strings and frets, or the keys of a piano.

const FRETS = 4; // of a diagram at least

function fretDiagram(frets) {
  const strings = frets.length;
  const fretted = frets.filter((fret) => fret > 0);
  const highest = Math.max(0, ...fretted);
  const first = highest <= FRETS ? 1 : Math.min(...fretted);
  const rows = Math.max(FRETS, highest - first + 1);
  const [gap, step, left, top] = [14, 17, 20, 18];
  const width = left + gap * (strings - 1) + 12;
  const height = top + step * rows + 6;
  const x = (string) => left + gap * string;
  const y = (fret) => top + step * (fret - first + 0.5);
  const parts = [];
  for (let string = 0; string < strings; string++)
    parts.push(drawn("line", { class: "string", x1: x(string), x2: x(string), y1: top, y2: top + step * rows }));
  for (let row = 0; row <= rows; row++)
    parts.push(drawn("line", { class: row || first > 1 ? "string" : "nut", x1: x(0), x2: x(strings - 1), y1: top + step * row, y2: top + step * row }));
  if (first > 1) parts.push(drawn("text", { class: "place", x: left - 7, y: top + step / 2 + 4, "text-anchor": "end" }, String(first)));
  const low = Math.min(...fretted);
  const across = frets.flatMap((fret, string) => (fret === low ? [string] : []));
  const inside = frets.slice(across[0], across.at(-1) + 1);
  if (across.length > 1 && fretted.length > 3 && inside.every((fret) => fret >= low))
    parts.push(drawn("line", { class: "barre", x1: x(across[0]), x2: x(across.at(-1)), y1: y(low), y2: y(low) }));
  frets.forEach((fret, string) => {
    if (fret > 0) parts.push(drawn("circle", { class: "dot", cx: x(string), cy: y(fret), r: 5.5 }));
    else parts.push(drawn("text", { class: "open", x: x(string), y: top - 6, "text-anchor": "middle" }, fret ? "×" : "○"));
  });
  const spoken = frets.map((fret) => (fret < 0 ? "x" : fret)).join(" ");
  return drawn("svg", { class: "diagram", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `frets ${spoken}` }, parts);
}

const WHITE = [0, 2, 4, 5, 7, 9, 11];

// Two octaves from C: the bass in the first, the chord's other notes above it.
function pianoDiagram([type, root, bass]) {
  const notes = new Set([bass]);
  for (const step of theory.notes[type]) {
    let note = root + step;
    while (note <= bass) note += 12;
    if (note > 23) note -= 12;
    if (note % 12 !== bass) notes.add(note);
  }
  const [wide, tall] = [11, 52];
  const key = (note) => {
    const black = !WHITE.includes(note % 12);
    const place = 7 * Math.floor(note / 12) + WHITE.filter((white) => white < note % 12).length;
    const x = black ? place * wide - 3.5 : place * wide;
    return drawn("rect", {
      class: `key ${black ? "black" : "white"} ${notes.has(note) ? (note % 12 === bass ? "bass" : "on") : ""}`,
      x: x + 0.5, y: 0.5, width: black ? 7 : wide, height: black ? tall * 0.6 : tall, rx: 1.5,
    });
  };
  const all = Array.from({ length: 24 }, (_, note) => note);
  const isBlack = (note) => !WHITE.includes(note % 12);
  const spoken = [...notes].sort((a, b) => a - b).map((note) => letters(shift())[note % 12]).join(" ");
  return drawn("svg", { class: "diagram piano", viewBox: `0 0 ${14 * wide + 1} ${tall + 1}`, role: "img", "aria-label": `keys ${spoken}` },
    all.filter((note) => !isBlack(note)).map(key), all.filter(isBlack).map(key));
}

const picked = new Map(); // chord as text -> which of its shapes the reader took

// The diagram of a recording's chord for the chosen instrument; null where there is none.
function diagram(chord) {
  const shape = played(chord);
  if (shape[0] <= 0) return null;
  if (!isFretted()) return pianoDiagram(shape);
  const shapes = shapesOf(shape);
  return shapes.length ? fretDiagram(shapes[(picked.get(shape.join()) ?? 0) % shapes.length]) : null;
}

function nextShape(chord) {
  const key = played(chord).join();
  picked.set(key, (picked.get(key) ?? 0) + 1);
}
