// The player of a recording: play, place, speed, loop. What moves with the sound is drawn by `draw`,
// once a frame while it plays.

const SPEEDS = [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25];

function bytes(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const made = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) made[at] = text.charCodeAt(at);
  return made;
}

// sound: {type, base64}, {file} beside the page, or null. `over` are elements inside the slider.
function makePlayer({ sound, seconds, over = [], draw = () => {} }) {
  const audio = element("audio", { preload: "auto" });
  audio.preservesPitch = true;
  if (sound?.base64) audio.src = URL.createObjectURL(new Blob([bytes(sound.base64)], { type: sound.type }));
  else if (sound) audio.src = encodeURIComponent(sound.file);
  let moved = 0; // where the user went while there was no sound that could be moved there
  let frame = 0;
  let loop = null; // [start, end]
  let second = -1; // that is written
  const button = element("button", { class: "plain play", type: "button", disabled: !sound, onclick: toggle }, "Play");
  const time = element("span", { class: "clock" });
  const trouble = element("p", { class: "problem", role: "status" });
  const cursor = element("div", { class: "cursor" });
  const part = element("div", { class: "part", hidden: true });
  const slider = element("div", {
    class: "overview", role: "slider", tabindex: 0, "aria-label": "Place in the song",
    "aria-valuemin": 0, "aria-valuemax": Math.round(seconds),
  }, over, part, cursor);
  const speed = choice("Speed", SPEEDS.map((rate) => [rate, `${Math.round(100 * rate)} %`]), (rate) => { audio.playbackRate = +rate; });
  speed.querySelector("select").value = 1;
  speed.querySelector("select").disabled = !sound;

  const now = () => (sound && audio.readyState ? audio.currentTime : moved);

  function show() {
    const at = now();
    cursor.style.left = `${(100 * at) / seconds}%`;
    if (Math.floor(at) !== second) {
      second = Math.floor(at);
      slider.setAttribute("aria-valuenow", second);
      slider.setAttribute("aria-valuetext", clock(at));
      time.textContent = `${clock(at)} / ${clock(seconds)}`;
    }
    draw(at);
  }

  function play() {
    if (!sound) return;
    if (loop && (now() < loop[0] - 0.05 || now() >= loop[1] - 0.05)) seek(loop[0]);
    audio.play().catch((error) => {
      if (error.name !== "AbortError" && !trouble.textContent) trouble.textContent = `The browser does not play it: ${error.message}`;
    });
  }

  function toggle() {
    if (audio.paused) play();
    else audio.pause();
  }

  function seek(to) {
    const at = Math.min(Math.max(to, 0), Math.max(0, seconds - 0.05));
    if (sound && audio.readyState) audio.currentTime = at;
    else moved = at;
    show();
  }

  function setLoop(span) {
    loop = span;
    part.hidden = !span;
    if (span) {
      part.style.left = `${(100 * span[0]) / seconds}%`;
      part.style.width = `${(100 * (span[1] - span[0])) / seconds}%`;
    }
  }

  function setSpeed(rate) {
    speed.querySelector("select").value = rate;
    audio.playbackRate = rate;
  }

  // One step slower (-1) or faster (1).
  function changeSpeed(by) {
    const at = SPEEDS.indexOf(audio.playbackRate) + by;
    if (SPEEDS[at]) setSpeed(SPEEDS[at]);
  }

  function again() {
    if (loop && !audio.paused && audio.currentTime >= loop[1] - 0.02) audio.currentTime = loop[0];
  }

  function move() {
    again();
    show();
    frame = audio.paused ? 0 : requestAnimationFrame(move);
  }

  audio.addEventListener("loadedmetadata", () => { if (moved) audio.currentTime = moved; show(); });
  audio.addEventListener("play", () => { button.textContent = "Pause"; cancelAnimationFrame(frame); move(); });
  audio.addEventListener("pause", () => { button.textContent = "Play"; show(); });
  audio.addEventListener("timeupdate", again); // frames are not drawn while the page is hidden
  audio.addEventListener("ended", () => { if (loop) { seek(loop[0]); play(); } });
  audio.addEventListener("seeked", show);
  audio.addEventListener("error", () => {
    trouble.textContent = sound?.file
      ? `The sound ${sound.file} was not found beside this page, or the browser does not play it.`
      : "The browser does not play the sound of this page.";
  });
  const jump = (event) => {
    const edge = slider.getBoundingClientRect();
    seek(((event.clientX - edge.left) / edge.width) * seconds);
  };
  slider.addEventListener("pointerdown", (event) => { slider.setPointerCapture(event.pointerId); jump(event); });
  slider.addEventListener("pointermove", (event) => { if (event.buttons) jump(event); });
  slider.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: 5, ArrowUp: 5, ArrowLeft: -5, ArrowDown: -5, PageUp: 30, PageDown: -30, Home: -seconds, End: seconds };
    if (event.key === " " && sound) toggle();
    else if (event.key in moves) seek(now() + moves[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return {
    audio, button, time, slider, speed, trouble, now, show, seek, play, toggle, setLoop, changeSpeed,
    loop: () => loop,
    pause: () => audio.pause(),
    stop: () => {
      const address = audio.src;
      audio.pause();
      cancelAnimationFrame(frame);
      audio.removeAttribute("src"); // what is still loading ends before its address does
      audio.load();
      URL.revokeObjectURL(address);
    },
  };
}
