// Names, simpler chords and fingerings, by the tables that come with the page. A chord is
// [type, root, bass]: pitch classes count from C = 0, the type is -1 where it is unknown.

const data = JSON.parse(document.getElementById("data").textContent);
const theory = data.theory;

// What the reader chose; all but the key begins as it is here.
const view = { transpose: 0, capo: 0, instrument: "guitar", level: "all", naming: "letters", key: data.key };

const mod = (number) => ((number % 12) + 12) % 12;
const isFretted = () => view.instrument in theory.strings;
// Semitones from what sounds in the recording to the shapes that are read from the chart.
const shift = () => view.transpose - (isFretted() ? view.capo : 0);

function simplified([type, root, bass]) {
  if (type < 0 || view.level === "all") return [type, root, bass];
  return view.level === "sevenths" ? [theory.sevenths[type], root, bass] : [theory.triads[type], root, root];
}

const moved = ([type, root, bass], by) => (type > 0 ? [type, mod(root + by), mod(bass + by)] : [type, root, bass]);

// The chord to play: transposed, without the capo, as simple as chosen.
const played = (chord, by = shift()) => moved(simplified(chord), by);

// The letters of the twelve notes in the key that is `by` semitones above the recording's.
function letters(by, naming = view.naming) {
  const [tonic, mode] = view.key ?? [0, 0];
  return theory[naming === "german" ? "german" : "letters"][12 * mode + mod(tonic + by)];
}

// A chord's name in three parts: note, suffix, bass.
function nameParts(chord, by = shift(), naming = view.naming) {
  const [type, root, bass] = played(chord, by);
  if (type === 0) return [theory.suffixes[0], "", ""];
  if (type < 0) return ["?", "", ""];
  const slash = bass !== root;
  if (naming === "roman" && view.key) {
    const [tonic, mode] = view.key;
    const numeral = theory.numerals[mode][mod(root - tonic - by)];
    const note = theory.isMinor[type] ? numeral.toLowerCase() : numeral;
    return [note, theory.numeralSuffixes[type], slash ? `/${theory.degrees[mod(bass - root)]}` : ""];
  }
  const names = letters(by, naming);
  return [names[root], theory.suffixes[type], slash ? `/${names[bass]}` : ""];
}

const nameOf = (chord, by, naming) => nameParts(chord, by, naming).join("");

// The name as elements: the note large, its suffix smaller.
function written(chord, by) {
  const [note, suffix, bass] = nameParts(chord, by);
  return [note, suffix ? element("span", { class: "suffix" }, suffix) : null, bass ? element("span", { class: "suffix" }, bass) : null];
}

// Label in Harte's grammar, as in .lab files.
function harte([type, root, bass]) {
  if (type === 0) return "N";
  if (type < 0) return "X";
  const degree = theory.harte.basses[type][mod(bass - root)];
  return `${theory.harte.roots[root]}:${theory.types[type]}${degree ? `/${degree}` : ""}`;
}

// Frets by string of a chord that is played, the easiest shape first: numbers, -1 for no sound.
function shapesOf([type, root, bass], instrument = view.instrument) {
  const table = theory.shapes[instrument];
  const found = table[`${type}.${root}.${bass}`] ?? table[`${type}.${root}.${root}`] ?? [];
  return found.map((text) => [...text].map((sign) => (sign === "x" ? -1 : parseInt(sign, 20))));
}

const isOpen = (frets) => frets.includes(0) && Math.max(...frets) <= 4;

// Share of the time in open shapes, for each capo 0 to 9, when all is `transpose` higher.
function openShares(segments, transpose = view.transpose) {
  const instrument = isFretted() ? view.instrument : "guitar";
  return Array.from({ length: 10 }, (_, capo) => {
    let open = 0;
    let all = 0;
    for (const { start, end, chord } of segments) {
      if (chord[0] <= 0) continue;
      const [shape] = shapesOf(played(chord, transpose - capo), instrument);
      all += end - start;
      if (shape && isOpen(shape)) open += end - start;
    }
    return all ? open / all : 0;
  });
}

// The capo of most open shapes, where each fret further up has to gain four hundredths of the time.
function bestCapo(shares) {
  const gains = shares.map((share, capo) => share - 0.04 * capo);
  return gains.indexOf(Math.max(...gains));
}
