// Listening: a recording, and chords along its time; reference above the predictions of each run.

const NONE = -1; // root of N and X
const BRIEF = 0.4; // seconds: chords that change a little early or late

function listen(panel) {
  const songs = report.songs;
  const place = element("div");
  let player = null;
  function load(song) {
    player?.stop();
    player = songPlayer(song);
    place.replaceChildren(player.box);
    player.show();
  }
  if (songs.length) {
    const title = (song) => song.name + (song.score == null ? "" : ` · mirex ${number(song.score)}`) + (song.sound ? "" : " · no sound");
    const picker = choice("Song", songs.map((song, at) => [at, title(song)]), (at) => load(songs[at]));
    panel.append(element("div", { class: "controls" }, picker,
      songs.length > 1 ? element("span", { class: "pale" }, "the worst first") : null), place);
    const start = Math.max(0, songs.findIndex((song) => song.sound));
    picker.querySelector("select").value = start;
    load(songs[start]);
    panel.addEventListener("leave", () => player.pause());
    const open = (name) => {
      const at = songs.findIndex((song) => song.name === name);
      if (at < 0) return name;
      return element("button", { type: "button", class: "link", onclick: () => {
        picker.querySelector("select").value = at;
        load(songs[at]);
        place.scrollIntoView({ block: "nearest" });
      } }, name);
    };
    songTables(panel, open);
  } else songTables(panel);
}

function songTables(panel, firstCell) {
  for (const run of runs)
    for (const table of run.tables.filter((table) => table.name === "songs"))
      panel.append(element("h2", {}, dot(run), ` Songs of ${run.name}, worst first`), csvTable(table, run, firstCell));
}

// Chords are [start, end, label, root], in seconds.
const chordAt = (chords, time) => chords.find(([start, end]) => start <= time && time < end);

const isJudged = (chord) => chord && chord[2] !== "X";

// Spans in which two lists of chords have different labels; where the reference is X, nobody knows.
function disagreements(reference, chords, seconds) {
  const times = [...new Set([0, seconds, ...[...reference, ...chords].flatMap(([start, end]) => [start, end])])]
    .filter((time) => time <= seconds).sort((a, b) => a - b);
  const spans = [];
  times.slice(1).forEach((end, at) => {
    const middle = (times[at] + end) / 2;
    const wanted = chordAt(reference, middle);
    if (!isJudged(wanted) || wanted[2] === (chordAt(chords, middle)?.[2] ?? "N")) return;
    if (spans.length && spans.at(-1)[1] === times[at]) spans.at(-1)[1] = end;
    else spans.push([times[at], end]);
  });
  return spans;
}

// A song's player: the sound, and lanes of chords that move with it.
function songPlayer(song) {
  const { seconds, reference } = song;
  const lanes = song.lanes.map((lane) => ({
    ...lane, run: runs[lane.run], wrong: reference ? disagreements(reference, lane.chords, seconds) : [],
  }));
  const all = [...(reference ? [{ name: "reference", chords: reference, wrong: [] }] : []), ...lanes.map((lane) => ({ ...lane, name: lane.run.name }))];
  let pixels = 64; // a second

  const strips = lanes.map((lane) => element("div", { class: `strip ${reference ? "" : "unjudged"}` }, lane.wrong.map(([start, end]) => {
    const mark = element("i");
    if (end - start < BRIEF) mark.style.opacity = 0.45;
    mark.style.left = `${(100 * start) / seconds}%`;
    mark.style.width = `${(100 * (end - start)) / seconds}%`;
    return mark;
  })));
  const player = makePlayer({ sound: song.sound ? report.sounds[song.sound] : null, seconds, over: strips, draw });
  const tracks = all.map((lane) => track(lane));
  const zoomed = element("div", { class: "lanes" }, element("div", { class: "head" }),
    all.map((lane, at) => element("div", { class: "lane" }, element("span", {}, lane.name), tracks[at])));
  const labels = all.map((lane) => {
    const label = element("b", {}, "–");
    const box = element("div", {}, element("span", {}, lane.name), label);
    return { lane, label, box: lane.run ? colored(box, lane.run) : box };
  });
  const next = element("button", { class: "plain", type: "button", disabled: !lanes.some((lane) => lane.wrong.length), onclick: nextMistake }, "Next mistake");
  const box = element("div", { class: "player" },
    element("h3", {}, song.name),
    element("p", { class: "pale" }, describe()), player.trouble,
    element("div", { class: "controls" }, player.button, next, player.time, song.sound ? player.speed : null,
      choice("Zoom", [["64", "near"], ["28", "far"], ["130", "very near"]], (size) => { pixels = +size; placeChords(); player.show(); })),
    element("div", { class: "now" }, labels.map(({ box }) => box)),
    player.slider, zoomed, player.audio);

  function describe() {
    const parts = lanes.filter(() => reference).map((lane) => {
      const off = lane.wrong.reduce((sum, [start, end]) => sum + end - start, 0);
      const judged = reference.filter(isJudged).reduce((sum, [start, end]) => sum + end - start, 0);
      return `${lane.run.name}: ${percent(judged ? 1 - off / judged : 0)} of the time the same chord`;
    });
    if (!reference) parts.push("no reference labels were kept with this run");
    if (!song.sound) parts.push(song.silence);
    return parts.join(" · ");
  }

  function track(lane) {
    return element("div", { class: "track" }, lane.chords.map(([start, end, label, root]) => {
      const middle = (start + end) / 2;
      const wrong = lane.wrong.some(([from, to]) => from <= middle && middle < to) ? " wrong" : "";
      const made = element("div", { class: `chord${root === NONE ? " none" : ""}${wrong}`, title: `${label}, ${clock(start)}–${clock(end)}` }, label);
      made.style.setProperty("--hue", (root * 7 * 30) % 360);
      return made;
    }));
  }

  function placeChords() {
    all.forEach((lane, at) => lane.chords.forEach(([start, end], number) => {
      const style = tracks[at].children[number].style;
      style.left = `${start * pixels}px`;
      style.width = `${Math.max(1, (end - start) * pixels - 1)}px`;
    }));
  }

  function draw(at) {
    tracks.forEach((one) => { one.style.transform = `translateX(${-at * pixels}px)`; });
    const chord = reference && chordAt(reference, at);
    const wanted = isJudged(chord) && chord[2];
    labels.forEach(({ lane, label, box }) => {
      const found = chordAt(lane.chords, at)?.[2] ?? "–";
      if (label.textContent !== found) label.textContent = found;
      box.classList.toggle("wrong", Boolean(wanted) && lane.name !== "reference" && found !== wanted);
    });
  }

  function nextMistake() {
    const at = player.now() + 1.01;
    const starts = lanes.flatMap((lane) => lane.wrong.filter(([start, end]) => end - start >= BRIEF).map(([start]) => start)).sort((a, b) => a - b);
    player.seek((starts.find((start) => start > at) ?? starts[0] ?? 0) - 1);
  }

  zoomed.addEventListener("click", (event) => {
    const edge = zoomed.getBoundingClientRect();
    player.seek(player.now() + (event.clientX - edge.left - 0.3 * edge.width) / pixels);
  });
  placeChords();
  return { box, show: player.show, pause: player.pause, stop: player.stop };
}
