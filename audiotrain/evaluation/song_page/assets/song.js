// The page: player, present chord, choices, keys.

const byId = (id) => document.getElementById(id);
const status = byId("status");
const report = (text) => { status.textContent = text; };
const NO_CHORD = [0, -1, -1];

const saved = kept();
if (saved) segments = saved;
buildChart();

const player = makePlayer({ sound: data.sound, seconds: data.seconds, draw: drawNow });
let loopBars = null; // [first, last]
let shownSegment = -1;

// ---- the present and the next chord

function drawNow(time) {
  markBeat(time, player && !player.audio.paused);
  const number = lastUpTo(startTimes, time);
  if (number !== shownSegment) {
    shownSegment = number;
    drawChords();
  }
}

function nextDifferent(number) {
  const name = nameOf(segments[number].chord);
  let next = number + 1;
  while (next < segments.length && nameOf(segments[next].chord) === name) next++;
  return segments[next];
}

function drawChords() {
  const present = segments[shownSegment];
  if (!present) return;
  const next = nextDifferent(shownSegment);
  drawChord(byId("present"), present.chord);
  drawChord(byId("next"), next?.chord ?? null);
  byId("sounding").textContent = isFretted() && view.capo && present.chord[0] > 0 && view.naming !== "roman"
    ? `sounds ${nameOf(present.chord, view.transpose)}` : "";
}

function drawChord(place, chord) {
  const name = place.querySelector("b");
  name.replaceChildren(...(chord ? written(chord).filter(Boolean) : ["–"]));
  name.classList.toggle("long", Boolean(chord) && nameOf(chord).length > 6);
  place.querySelector(".shape").replaceChildren(chord ? diagram(chord) ?? "" : "");
}

// ---- all chords of the song

function drawUsed() {
  const seconds = new Map();
  for (const { start, end, chord } of segments)
    if (chord[0] > 0) {
      const name = nameOf(chord);
      const known = seconds.get(name) ?? { chord, time: 0 };
      seconds.set(name, { chord: known.chord, time: known.time + end - start });
    }
  const ordered = [...seconds.entries()].sort((one, other) => other[1].time - one[1].time);
  byId("used").replaceChildren(...ordered.map(([name, { chord }]) => {
    const inside = [element("b", {}, ...written(chord).filter(Boolean)), diagram(chord) ?? element("span", { class: "pale" }, "no shape")];
    const shapes = isFretted() ? shapesOf(played(chord)).length : 0;
    if (shapes < 2) return element("div", { class: "shape-card" }, inside);
    return element("button", {
      class: "shape-card", type: "button", "aria-label": `${name}: another shape`, title: "Another shape",
      onclick: (event) => {
        nextShape(chord);
        const at = [...byId("used").children].indexOf(event.currentTarget);
        drawUsed();
        drawChords();
        byId("used").children[at].focus();
      },
    }, inside);
  }));
}

// ---- choices

const KEYS = Array.from({ length: 24 }, (_, number) => number);
const keyName = (number, naming = "letters") => {
  const names = theory[naming][number];
  return names[number % 12] + (number < 12 ? " major" : " minor");
};
const keyNumber = () => (view.key ? 12 * view.key[1] + mod(view.key[0] + view.transpose) : null);
const keyNaming = () => (view.naming === "german" ? "german" : "letters");

function select(id, options, value, changed) {
  const made = byId(id);
  made.replaceChildren(...options.map(([at, text, off]) => element("option", { value: at, disabled: off }, text)));
  made.value = value;
  made.onchange = () => { changed(made.value); refresh(); };
}

function drawChoices() {
  const signed = (number) => (number > 0 ? `+${number}` : number < 0 ? `−${-number}` : "0");
  select("transpose", KEYS.slice(0, 13).map((at) => [at - 6, signed(at - 6)]), view.transpose, (value) => { view.transpose = +value; });
  const shares = openShares(segments);
  const best = bestCapo(shares);
  select("capo", shares.map((share, capo) => [capo, `${capo || "none"} · ${Math.round(100 * share)} % open`]), view.capo, (value) => { view.capo = +value; });
  byId("capo").disabled = !isFretted();
  const gain = isFretted() && best !== view.capo && shares[best] > shares[view.capo];
  byId("suggest").hidden = !isFretted();
  byId("suggest").disabled = !gain;
  byId("suggest").textContent = gain
    ? `Suggested: ${best ? `capo ${best}` : "no capo"}, ${Math.round(100 * shares[best])} % open shapes`
    : `Best: ${Math.round(100 * shares[view.capo])} % open shapes`;
  byId("suggest").dataset.capo = best;
  select("instrument", [["guitar", "Guitar"], ["ukulele", "Ukulele"], ["piano", "Piano"]], view.instrument, (value) => { view.instrument = value; });
  select("level", [["all", "Full"], ["sevenths", "Sevenths"], ["triads", "Triads"]], view.level, (value) => { view.level = value; });
  select("naming", [["letters", "Letters"], ["roman", "Roman numerals", !view.key], ["german", "German"]], view.naming, (value) => { view.naming = value; });
  select("key", [...(view.key ? [] : [["", "unknown"]]), ...KEYS.map((number) => [number, keyName(number, keyNaming())])], keyNumber() ?? "", (value) => {
    view.key = [mod(+value - view.transpose), value < 12 ? 0 : 1];
  });
}

function drawAbout() {
  const number = keyNumber();
  const parts = [
    number == null ? null : keyName(number, keyNaming()),
    view.transpose ? `transposed ${view.transpose > 0 ? "+" : "−"}${Math.abs(view.transpose)}` : null,
    isFretted() && view.capo ? `capo ${view.capo}` : null,
    data.counted && data.tempo ? `${Math.round(data.tempo)} bpm` : null,
    data.counted ? `${data.metre} beats a bar` : "no beat found, a bar is two seconds",
    clock(data.seconds),
    !segments.some(({ chord }) => chord[0] > 0) ? "no chords were found"
      : data.littleMusic ? "little music was found, so chords, key and beats are guesses" : null,
  ];
  byId("about").textContent = parts.filter(Boolean).join(" · ");
}

function refresh() {
  renameChart();
  drawChoices();
  drawChords();
  drawUsed();
  drawAbout();
}

function corrected(text) {
  report(text);
  shownSegment = -1;
  markLoop(loopBars);
  drawChoices();
  drawUsed();
  byId("undo").hidden = !history.length;
  byId("revert").hidden = segments === recognised;
  player.show();
}

// ---- loop

function setLoop(span) {
  loopBars = span && [Math.min(...span), Math.max(...span)];
  player.setLoop(loopBars && [barTime(loopBars[0]), barTime(loopBars[1] + 1)]);
  markLoop(loopBars);
  byId("loop").setAttribute("aria-pressed", String(Boolean(loopBars)));
  byId("from").value = loopBars ? barName(loopBars[0]) : "";
  byId("to").value = loopBars ? barName(loopBars[1]) : "";
}

const presentBar = () => barAt(beatAt(player.now()));
const toggleLoop = () => setLoop(loopBars ? null : [presentBar(), presentBar()]);

// The number typed last holds; the other one gives way.
function typedLoop(typed) {
  const bar = (id) => Math.min(Math.max(+byId(id).value - (hasUpbeat ? 0 : 1), 0), data.bars.length - 1);
  if (byId(typed).value === "") return setLoop(null);
  const other = typed === "from" ? "to" : "from";
  const at = bar(typed);
  const there = byId(other).value === "" ? at : bar(other);
  setLoop(typed === "from" ? [at, Math.max(at, there)] : [Math.min(at, there), at]);
}

const extendLoop = (bar) => setLoop(loopBars ? [Math.min(loopBars[0], bar), Math.max(loopBars[1], bar)] : [presentBar(), bar]);

// ---- actions

function changeTranspose(by) {
  view.transpose = Math.min(6, Math.max(-6, view.transpose + by));
  refresh();
}

function changeCapo(by) {
  if (!isFretted()) return;
  view.capo = Math.min(9, Math.max(0, view.capo + by));
  refresh();
}

function setCorrecting(on) {
  isCorrecting = on;
  byId("correcting").setAttribute("aria-pressed", String(on));
  document.body.classList.toggle("correcting", on);
  report(on ? "Choose a bar to correct it." : "");
}

function nextTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? "";
  const order = dark ? ["", "light"] : ["", "dark"];
  document.documentElement.dataset.theme = now === order[0] ? order[1] : order[0];
}

function beatUnder(event, bar) {
  const box = barBoxes[bar].querySelector(".beats").getBoundingClientRect();
  const share = (event.clientX - box.left) / box.width;
  const count = data.bars[bar].length;
  return firstBeats[bar] + Math.min(count - 1, Math.max(0, Math.floor(share * count)));
}

chart.addEventListener("click", (event) => {
  const box = event.target.closest(".bar");
  if (!box) return;
  const bar = +box.dataset.bar;
  const beat = beatUnder(event, bar);
  focusBar(bar);
  if (isCorrecting) openCorrection(beat);
  else if (event.shiftKey) extendLoop(bar);
  else {
    player.seek(beats[beat]);
    player.play();
  }
});
chart.addEventListener("mousedown", (event) => { if (event.shiftKey) event.preventDefault(); });

chart.addEventListener("keydown", (event) => {
  const bar = focused;
  const across = getComputedStyle(barBoxes[bar].parentElement).gridTemplateColumns.split(" ").length;
  const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, Home: -bar, End: data.bars.length };
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key in moves) {
    if (event.shiftKey && !loopBars) setLoop([bar, bar]);
    focusBar(bar + moves[event.key]);
    if (event.shiftKey) extendLoop(focused);
  } else if (event.key === "Enter") {
    if (isCorrecting) openCorrection(firstBeats[bar]);
    else {
      player.seek(barTime(bar));
      player.play();
    }
  } else return;
  event.preventDefault();
  event.stopPropagation();
});

const SHORTCUTS = [
  [" ", "Space", "play or pause", () => player.toggle()],
  ["ArrowLeft", "←", "a bar back", () => player.seek(barTime(Math.max(0, presentBar() - 1)))],
  ["ArrowRight", "→", "a bar on", () => player.seek(barTime(Math.min(presentBar() + 1, data.bars.length - 1)))],
  ["Home", "Home", "to the beginning", () => player.seek(0)],
  ["l", "L", "loop the present bar, or end the loop", toggleLoop],
  ["[", "[", "the loop begins here", () => setLoop([presentBar(), Math.max(presentBar(), loopBars?.[1] ?? 0)])],
  ["]", "]", "the loop ends here", () => setLoop([Math.min(presentBar(), loopBars?.[0] ?? presentBar()), presentBar()])],
  ["-", "−", "slower", () => player.changeSpeed(-1)],
  ["+", "+", "faster", () => player.changeSpeed(1)],
  ["t", "T", "a semitone up", () => changeTranspose(1)],
  ["T", "Shift T", "a semitone down", () => changeTranspose(-1)],
  ["c", "C", "capo a fret up", () => changeCapo(1)],
  ["C", "Shift C", "capo a fret down", () => changeCapo(-1)],
  ["e", "E", "correct the present chord", () => openCorrection(document.activeElement.classList.contains("bar") ? firstBeats[focused] : beatAt(player.now()))],
  ["u", "U", "undo a correction", () => { if (undo()) corrected("Undone."); }],
  ["s", "S", "save the .lab", saveLab],
  ["?", "?", "this help", () => byId("help").showModal()],
];

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (!byId("shortcuts").checked) return;
  if (event.target.closest("input, select, textarea, summary, [role=slider]")) return;
  if (event.key === " " && event.target.closest("button, a")) return;
  const found = SHORTCUTS.find(([key]) => key === event.key) ?? (event.key === "=" ? SHORTCUTS.find(([key]) => key === "+") : null);
  if (!found) return;
  event.preventDefault();
  found[3]();
});

// ---- put together

byId("keys").append(...SHORTCUTS.map(([, key, text]) => element("div", {}, element("dt", {}, element("kbd", {}, key)), element("dd", {}, text))),
  element("div", {}, element("dt", {}, element("kbd", {}, "Tab")), element("dd", {}, "to the chart: arrows move, Enter plays from a bar, Shift and arrows choose a loop")));
byId("player").append(player.button, player.time, player.slider, player.speed);
byId("transport").prepend(player.trouble);
byId("transport").append(player.audio);
if (!data.sound) byId("player").append(element("span", { class: "pale" }, "without sound"));
for (const [id, address, text] of [["previous", data.links.previous, "‹ Previous"], ["index", data.links.index, "All songs"], ["following", data.links.next, "Next ›"]])
  if (address) byId("links").append(element("a", { id, href: address, rel: id === "previous" ? "prev" : id === "following" ? "next" : null }, text));

byId("loop").onclick = toggleLoop;
byId("from").onchange = () => typedLoop("from");
byId("to").onchange = () => typedLoop("to");
byId("from").min = byId("to").min = barName(0);
byId("from").max = byId("to").max = barName(data.bars.length - 1);
byId("suggest").onclick = () => { view.capo = +byId("suggest").dataset.capo; refresh(); };
byId("correcting").onclick = () => setCorrecting(!isCorrecting);
byId("undo").onclick = () => { if (undo()) corrected("Undone."); };
byId("revert").onclick = () => {
  history.push(segments);
  replaceSegments(recognised);
  corrected("All is as it was recognised.");
};
byId("save").onclick = saveLab;
byId("print").onclick = () => print();
byId("theme").onclick = nextTheme;
byId("helping").onclick = () => byId("help").showModal();
byId("revert").hidden = segments === recognised;
if (matchMedia("(min-width: 900px)").matches) byId("choices").open = true;
drawChoices();
drawUsed();
drawAbout();
setLoop(null);
player.show();
