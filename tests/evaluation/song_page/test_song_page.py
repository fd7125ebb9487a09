"""A song's page: its file, its bars, and what a musician does with it in a browser."""

import json
import re
from dataclasses import replace

import browser as chromium
import numpy as np
import pytest

from audiotrain.evaluation.song_page import index, song, sound
from audiotrain.evaluation.song_page.song import Neighbours, Song
from audiotrain.features import audio
from audiotrain.music.beats import NO_BEATS, Beats, grid
from audiotrain.music.chord_classes import encode
from audiotrain.music.chord_names import chord_name
from audiotrain.music.segments import Segment, read_lab

EVIL = "</script><img src=x onerror=window.hacked=1>"
RATE, BEAT = 22050, 0.5  # Hz, seconds
# Twelve bars of two seconds, two chords in the fourth.
LABELS = "C:maj A:min7 F:maj7 G:7 C:maj/3 D:min9 G:sus4 C:maj E:min A:min D:7/3 G:maj".split()
WIDTHS = (1280, 390)


def segments_of(labels, split=3):
    """A bar of two seconds for each label; the bar numbered `split` has a second chord."""
    found = [Segment(2.0 * n, 2.0 * n + 2, label) for n, label in enumerate(labels)]
    found[split : split + 1] = [
        found[split]._replace(end=2.0 * split + 1),
        Segment(2.0 * split + 1, 2.0 * split + 2, "B:hdim7"),
    ]
    return found


def made(labels=LABELS, key=(0, "major"), title=EVIL, **options):
    segments = segments_of(labels)
    seconds = segments[-1].end
    sure = [0.35 if number == 1 else 0.9 for number in range(len(segments))]
    beats = np.arange(0, seconds, BEAT).tolist()
    return Song(title, segments, seconds, sure, Beats(beats, beats[::4]), key, **options)


def tone(seconds):
    return 0.2 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE)) / RATE)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pages by name."""
    folder = tmp_path_factory.mktemp("songs")
    one = made(artist=EVIL)
    found = sound.for_page(tone(one.seconds), RATE, one.seconds, 20, folder / "none")
    links = Neighbours("a%20b.html", "c.html", "index.html")
    flat = made("Eb:maj Ab:maj Bb:maj C:min Eb:maj Ab:maj Bb:maj Eb:maj".split(), (3, "major"))
    texts = {"song": song.page(one, found, links), "flat": song.page(flat)}
    texts["noise"] = song.page(replace(one, confidences=[0.1] * len(one.segments)))
    texts["none"] = song.page(replace(one, segments=[Segment(0, 24, "N")], confidences=[0.9]))
    texts["silence"] = song.page(Song("x", [Segment(0.0, 9.0, "N")], 9.0, [0.9]))
    texts["frame"] = f"<!doctype html><title>x</title>{song.frame(texts['song'])}"
    paths = {name: folder / f"{name}.html" for name in texts}
    for name, path in paths.items():
        path.write_text(texts[name], encoding="utf-8")
    return paths


# ---------------------------------------------------------------- the file


def test_the_page_loads_nothing_and_keeps_titles_as_text(files):
    text = files["song"].read_text(encoding="utf-8")
    assert "<img" not in text
    assert text.count("<script") == 2
    assert re.findall(r'(?:src|href)="([^"]*)"', text) == ["data:,"]
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|eval\(|innerHTML", text)
    policy = re.search(r'Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_an_index_lists_songs_as_text(tmp_path):
    text = index.page([made(artist=EVIL), made(title="b")], ["a%20b.html", 'c".html'])
    assert "<img" not in text
    assert text.count("<li>") == 2
    assert "C major · 0:24 · 120 bpm" in text
    assert 'href="c&quot;.html"' in text


def test_bars_follow_beats_and_go_on_beyond_them():
    assert grid(Beats([1.0, 1.5, 2.0, 2.5], [1.5]), 4.0) == (
        [[0.0, 0.5, 1.0], [1.5, 2.0, 2.5, 3.0], [3.5]],
        True,
    )
    bars, counted = grid(NO_BEATS, 5.0)
    assert not counted
    assert [bar[0] for bar in bars] == [0.0, 2.0, 4.0]
    bars, _ = grid(Beats(np.arange(0, 60, 0.5).tolist(), [0.0], metre=3), 60.0)
    assert {len(bar) for bar in bars} == {3}
    for seconds in (0.01, 0.5, 1.0):
        assert grid(NO_BEATS, seconds)[0][0][0] == 0.0


def test_speech_and_noise_have_little_music():
    segments = segments_of(LABELS) + [Segment(24.0, 100.0, "N")]
    chords = len(segments) - 1
    assert not song.has_little_music(segments, [*[0.5] * chords, 0.01])
    assert song.has_little_music(segments, [*[0.1] * chords, 0.99])
    assert song.has_little_music([Segment(0.0, 9.0, "N")], [1.0])
    assert not song.has_little_music(segments, ())


def test_sound_is_embedded_or_written_beside(tmp_path, capsys):
    source = tmp_path / "a.wav"
    audio.write(source, tone(4.0).astype(np.float32), RATE)
    inside = sound.for_page(source, sound.RATE, 4.0, 1, tmp_path / "b.mpga")
    size = len(inside["base64"]) * 3 / 4
    assert size == pytest.approx(4 * 96000 / 8, rel=0.1)
    assert list(tmp_path.iterdir()) == [source]
    beside = sound.for_page(source, sound.RATE, 4.0, 0, tmp_path / "b.mpga")
    assert beside == {"file": "b.mpga"}
    assert "b.mpga: 100%" in capsys.readouterr().err
    assert (tmp_path / "b.mpga").stat().st_size == pytest.approx(size, abs=10)
    (tmp_path / "b.mp3").write_bytes((tmp_path / "b.mpga").read_bytes())
    read = audio.read(tmp_path / "b.mp3", RATE)
    assert len(read) == pytest.approx(4 * RATE, abs=0.1 * RATE)
    spectrum = np.abs(np.fft.rfft(read))
    assert spectrum.argmax() * RATE / len(read) == pytest.approx(440, abs=1)


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def window():
    if chromium.PROGRAM is None:
        pytest.skip("no chromium or google-chrome found: apt-get install chromium")
    with chromium.browser() as opened:
        yield opened


@pytest.fixture(params=WIDTHS)
def seen(window, files, request):
    """The song in a window; no complaint and no request may come of what a test does."""
    window.open(files["song"], request.param, 844)
    window.run("localStorage.clear()")
    window.open(files["song"], request.param, 844)
    window.run("document.getElementById('choices').open = true")
    yield window
    window.run("1")
    assert window.complaints == []
    assert {address.partition(":")[0] for address in window.requests} <= {"file", "blob"}


TIME = "document.querySelector('audio').currentTime"
CHART = "[...document.querySelectorAll('.chord:not(.held) > span')].map(name => name.textContent)"


def choose(window, name, value):
    window.run(
        f"(() => {{ const box = document.getElementById('{name}'); box.value = {json.dumps(value)};"
        "box.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


def text(window, selector):
    return window.run(f"document.querySelector({json.dumps(selector)}).textContent")


def test_it_shows_the_chords_as_text(seen):
    expected = [chord_name(encode(one.label)) for one in made().segments]
    assert seen.run(CHART) == expected
    assert text(seen, "h1") == EVIL
    assert seen.run("window.hacked === undefined && !document.querySelector('img')")
    assert text(seen, "#about") == "C major · 120 bpm · 4 beats a bar · 0:24"
    assert text(seen, ".unsure small") == "35 %"
    style = "getComputedStyle(document.querySelector('.chord.unsure')).borderTopStyle"
    assert seen.run(style) == "dashed"
    links = "[...document.querySelectorAll('#links a')].map(a => a.getAttribute('href'))"
    assert seen.run(links) == ["a%20b.html", "index.html", "c.html"]


def test_it_says_when_little_music_was_found(window, files):
    window.open(files["noise"], 390, 844)
    about = text(window, "#about")
    assert about.endswith("little music was found, so chords, key and beats are guesses")
    assert window.run("document.documentElement.scrollWidth") == 390
    window.open(files["none"], 390, 844)
    assert text(window, "#about").endswith("no chords were found")
    window.open(files["song"], 390, 844)
    assert "little music" not in text(window, "#about")
    window.open(files["silence"], 390, 844)
    assert text(window, "#about").endswith("0:09 · no chords were found")


def test_it_plays_seeks_and_follows(seen):
    seen.wait("document.querySelector('audio').readyState >= 2")
    seen.click("[data-bar='3']", 0.8, 0.5)  # the fourth beat of the fourth bar
    seen.wait(f"{TIME} > 7.6 && !document.querySelector('audio').paused")
    assert text(seen, "#present b") in ("Bm7♭5", "C/E")
    seen.click(".play")
    seen.wait("document.querySelector('audio').paused")
    seen.click("[data-bar='9']", 0.05, 0.5)
    seen.wait(f"{TIME} > 18.1")
    assert text(seen, "#present b") == "Am"
    assert text(seen, "#next b") == "D7/F♯"
    assert seen.run("document.querySelector('.bar.now').dataset.bar") == "9"
    box = seen.run(
        "new Promise(done => setTimeout(() => { const box = document.querySelector('.bar.now')"
        ".getBoundingClientRect(); done([box.top, box.bottom]); }, 600))"
    )
    assert 0 < box[0] < box[1] < 844
    seen.press(" ")  # the focus is on a bar
    seen.wait("document.querySelector('audio').paused")
    seen.press("Home")
    assert seen.run("document.activeElement.dataset.bar") == "0"
    assert seen.run("document.querySelector('audio').preservesPitch")
    choose_speed = (
        "(() => { const box = document.querySelector('#player select'); box.value = 0.5;"
        "box.dispatchEvent(new Event('change')); })()"
    )
    seen.run(choose_speed)
    assert seen.run("document.querySelector('audio').playbackRate") == 0.5


def test_a_loop_of_bars_plays_again(seen):
    seen.wait("document.querySelector('audio').readyState >= 2")
    seen.run("document.getElementById('loop').click()")
    choose(seen, "from", "3")
    choose(seen, "to", "4")
    marked = "[...document.querySelectorAll('.looped')].map(bar => bar.dataset.bar)"
    assert seen.run(marked) == ["2", "3"]
    seen.click(".play")
    seen.wait("!document.querySelector('audio').paused")
    seen.run("document.querySelector('audio').currentTime = 7.5")
    assert seen.run(TIME) >= 7.5
    seen.wait(f"{TIME} >= 4 && {TIME} < 5", seconds=10)  # before the song itself begins again
    seen.click(".play")
    seen.run("document.getElementById('loop').click()")
    assert seen.run(marked) == []


@pytest.mark.parametrize("naming", ["letters", "german", "roman"])
def test_two_semitones_up_c_is_d_in_every_view(seen, naming):
    choose(seen, "naming", naming)
    for level in ("all", "sevenths", "triads"):
        choose(seen, "level", level)
        for steps in (0, 2, -6, 5):
            choose(seen, "transpose", str(steps))
            expected = []
            for one in made().segments:
                kind, root, bass = encode(one.label)
                moved = (kind, (root + steps) % 12, (bass + steps) % 12)
                expected.append(chord_name(moved, (steps % 12, "major"), naming, level))
            assert seen.run(CHART) == expected, (level, steps)
    choose(seen, "transpose", "2")
    choose(seen, "level", "all")
    name = "I" if naming == "roman" else "D"
    assert text(seen, "#present b") == name
    assert seen.run(f"{CHART}[0]") == name
    assert seen.run("document.querySelector('#used b').textContent") == name
    assert seen.run("document.querySelector('.bar').getAttribute('aria-label')") == f"Bar 1: {name}"
    shape = "document.querySelector('#present svg').getAttribute('aria-label')"
    assert seen.run(shape) == "frets x x 0 2 3 2"
    assert text(seen, "#about").startswith("D major · transposed +2")


def test_shapes_of_each_instrument(seen):
    shape = "document.querySelector('#present svg').getAttribute('aria-label')"
    assert seen.run(shape) == "frets x 3 2 0 1 0"
    choose(seen, "instrument", "ukulele")
    assert seen.run(shape) == "frets 0 0 0 3"
    choose(seen, "instrument", "piano")
    assert seen.run(shape) == "keys C E G"
    assert seen.run("document.getElementById('capo').disabled")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_capo_is_suggested_for_a_song_in_e_flat(window, files, width):
    window.open(files["flat"], width, 844)
    window.run("document.getElementById('choices').open = true")
    assert "capo 1" in text(window, "#suggest")
    window.click("#suggest")
    # D, G, A, Bm and the split bar's chord are read; E♭ sounds.
    assert window.run(CHART)[:3] == ["D", "G", "A"]
    assert text(window, "#sounding") == "sounds E♭"
    shape = "document.querySelector('#present svg').getAttribute('aria-label')"
    assert window.run(shape) == "frets x x 0 2 3 2"
    assert "capo 1" in text(window, "#about")
    assert window.complaints == []


def saved_lab(window, folder):
    """The file that a click on "Save .lab" writes into an empty folder."""
    window.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    window.click("#save")
    for _ in range(100):
        if found := list(folder.glob("*.lab")):
            return found[0]
        window.run("new Promise(done => setTimeout(done, 100))")
    raise AssertionError("nothing was saved")


def reopen(window, path, state):
    """The page again, once the storage, which another process of the browser may have, is in a
    state."""
    window.open(path)
    window.wait(state)
    window.open(path)


def test_a_correction_is_saved_and_can_be_undone(seen, files, tmp_path):
    choose(seen, "transpose", "2")  # what is read is transposed, what is saved is not
    seen.click("#correcting")
    seen.click("[data-bar='1']", 0.6, 0.5)  # the third beat of the second bar
    assert seen.run("document.getElementById('correct').open")
    seen.run(
        "(() => { const boxes = document.querySelectorAll('#correct select');"
        "boxes[0].value = 2; boxes[1].value = "
        "[...boxes[1].options].find(one => one.textContent === '7').value; boxes[2].value = 6; })()"
    )
    seen.click("#set")
    assert seen.run(CHART)[1:3] == ["Bm7", "E7/G♯"]
    assert text(seen, "#status") == "Corrected."
    annotation = read_lab(saved_lab(seen, tmp_path))
    assert annotation.problems == []
    whole = segments_of(LABELS)
    assert annotation.segments == [
        whole[0],
        Segment(2.0, 3.0, "A:min7"),
        Segment(3.0, 4.0, "D:7/3"),
        *whole[2:],
    ]
    reopen(seen, files["song"], "localStorage.length")
    assert len(seen.run(CHART)) == len(whole) + 1  # kept by the browser
    seen.run("document.getElementById('revert').click()")
    assert len(seen.run(CHART)) == len(whole)
    assert seen.run("document.getElementById('revert').hidden")
    seen.press("u")
    assert len(seen.run(CHART)) == len(whole) + 1
    reopen(seen, files["song"], "localStorage.length")
    assert len(seen.run(CHART)) == len(whole) + 1  # an undone "Revert all" is kept, too
    seen.run("document.querySelector('.bar').focus()")
    seen.press("e")
    seen.click("#set")
    seen.press("u")
    assert not seen.run("document.getElementById('revert').hidden")
    seen.run("document.getElementById('revert').click()")
    reopen(seen, files["song"], "!localStorage.length")
    assert seen.run("document.getElementById('revert').hidden")
    assert len(seen.run(CHART)) == len(whole)


@pytest.mark.parametrize(
    ("recording", "saved"),
    [
        ("No. 1 [live] 50% #2 – Don’t; stop!", "No. 1 [live] 50% #2 – Don’t; stop!"),
        ("U\u0308bung हिन्दी", "U\u0308bung हिन्दी"),  # marks that combine, as macOS has them
        ('a/b\\c:d*e?"<f>|g', "a_b_c_d_e___f__g"),
    ],
)
def test_a_saved_file_has_the_name_of_its_recording(window, tmp_path, recording, saved):
    songs = {"title": made(title=recording), "name": made(title="Tagged", name=recording)}
    for folder, about in songs.items():
        path = tmp_path / folder / "page.html"
        path.parent.mkdir()
        path.write_text(song.page(about), encoding="utf-8")
        window.open(path, 1280, 844)
        assert saved_lab(window, path.parent).name == f"{saved}.lab"
    assert window.complaints == []


def test_no_change_lets_the_chord_on_the_chart_go_on(window, tmp_path):
    """The chord before a change may be too short for a beat, so that nobody saw it."""
    rows = [(0.0, 1.9, "C:maj"), (1.9, 2.05, "F#:dim"), (2.05, 4.0, "G:maj"), (4.0, 8.0, "A:min")]
    beats = np.arange(0, 8, BEAT).tolist()
    short = Song("x", [Segment(*row) for row in rows], 8.0, [0.9] * 4, Beats(beats, beats[::4]))
    path = tmp_path / "page.html"
    path.write_text(song.page(short), encoding="utf-8")
    window.open(path, 1280, 844)
    assert window.run(CHART) == ["C", "G", "Am"]
    window.run("document.querySelector('.bar').focus()")
    window.press("ArrowRight")
    window.press("e")
    window.run(
        "[...document.querySelectorAll('#correct button')]"
        ".find(one => one.textContent === 'No change here').click()"
    )
    assert window.run(CHART) == ["C", "Am"]
    saved = read_lab(saved_lab(window, tmp_path)).segments
    assert saved == [Segment(0.0, 4.0, "C:maj"), Segment(4.0, 8.0, "A:min")]


FOCUSABLE = (
    "[...document.querySelectorAll('a[href], button, select, input, summary, [tabindex=\"0\"]')]"
    ".filter(one => one.offsetWidth && !one.disabled && !one.closest('dialog:not([open])'))"
)


def test_everything_is_reached_by_tab(seen):
    seen.run("document.activeElement.blur()")
    wanted = seen.run(f"{FOCUSABLE}.length")
    assert wanted > 15
    seen.run("window.reached = new Set()")
    for _ in range(wanted + 3):
        seen.press("Tab")
        seen.run("void reached.add(document.activeElement)")
    missed = seen.run(f"{FOCUSABLE}.filter(one => !reached.has(one)).map(one => one.outerHTML)")
    assert missed == []


def test_targets_have_the_size_of_wcag_aa(seen):
    small = ".map(one => [one.getBoundingClientRect(), one.outerHTML.slice(0, 60)])"
    small += ".filter(([box]) => Math.min(box.width, box.height) < 24).map(([_, name]) => name)"
    assert seen.run(FOCUSABLE + small) == []


def test_keys_do_what_buttons_do(seen):
    seen.run("document.activeElement.blur()")
    seen.press("t")
    assert seen.run("document.getElementById('transpose').value") == "1"
    seen.press("T", shift=True)
    assert seen.run("document.getElementById('transpose').value") == "0"
    seen.press("c")
    assert seen.run("document.getElementById('capo').value") == "1"
    for _ in range(10):
        seen.press("c")
    assert seen.run("document.getElementById('capo').value") == "9"  # the last that there is
    seen.press("-")
    assert seen.run("document.querySelector('audio').playbackRate") == 0.9
    seen.press("ArrowRight")
    seen.wait(f"Math.abs({TIME} - 2) < 0.1")
    seen.press("l")
    assert seen.run("document.querySelectorAll('.looped').length") == 1
    seen.press("?")
    assert seen.run("document.getElementById('help').open")
    assert "play or pause" in text(seen, "#keys")
    seen.press("Escape")
    assert not seen.run("document.getElementById('help').open")
    seen.run("document.querySelector('.bar').focus()")
    seen.press("ArrowRight")
    seen.press("e")
    assert text(seen, "#correct h2") == "Bar 2"
    seen.press("Escape")
    seen.run("document.getElementById('shortcuts').checked = false")
    seen.press("t")
    assert seen.run("document.getElementById('transpose').value") == "0"


OVERFLOWING = """
[...document.querySelectorAll('body *')].filter(one => one.offsetWidth && !one.closest('dialog') &&
  getComputedStyle(one).display !== 'inline' && one.textContent.trim() &&
  !one.closest('option') && one.scrollWidth > one.clientWidth + 1 && one.tagName !== 'SELECT' &&
  one.clientWidth).map(one => `${one.tagName} ${one.className} ${one.textContent.slice(0, 40)}`)
"""


# Names that are wider than their beats.
CROWDED = """
[...document.querySelectorAll('.chord')].filter(one => {
  const text = document.createRange();
  text.selectNodeContents(one);
  const [box, room] = [text.getBoundingClientRect(), one.getBoundingClientRect()];
  return box.right > room.right + 0.5;
}).map(one => one.textContent)
"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("sure", [0.35, 0.9])
def test_names_fit_into_their_beats(window, tmp_path, width, sure):
    """A bar with a chord on each beat, and one with a last beat of its own."""
    labels = "F#:min7 Gb:min B:sus2 Db:min F#:min C:maj Bb:maj7 G:sus2".split()
    starts = [0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 6.0, 7.5, 8.0]
    rows = zip(starts[:-1], starts[1:], labels, strict=True)
    beats = np.arange(0, 8, BEAT).tolist()
    crowded = Song("x", [Segment(*row) for row in rows], 8.0, [sure] * 8, Beats(beats, beats[::4]))
    path = tmp_path / "crowded.html"
    path.write_text(song.page(crowded), encoding="utf-8")
    window.open(path, width, 844)
    assert len(window.run(CHART)) == 8
    assert window.run(CROWDED) == []
    size = "parseFloat(getComputedStyle(document.querySelectorAll('.chord')[4]).fontSize)"
    assert window.run(size) > 20  # where there is room


def test_no_text_overflows(seen):
    for transpose in ("0", "1", "6"):
        for naming in ("letters", "roman", "german"):
            choose(seen, "transpose", transpose)
            choose(seen, "naming", naming)
            assert seen.run(OVERFLOWING) == [], (transpose, naming)
    assert seen.run("document.documentElement.scrollWidth <= innerWidth")


# The contrast of each text with what is behind it, by WCAG 2: [text, ratio, large].
CONTRASTS = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => color.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  return [...document.querySelectorAll('body *')].filter((one) => one.offsetWidth &&
    !one.disabled && [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((one) => {
      const style = getComputedStyle(one);
      const [a, b] = [light(rgb(style.color)), light(behind(one))].sort((x, y) => y - x);
      return [one.textContent.slice(0, 30), (a + 0.05) / (b + 0.05)];
    });
})()
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_the_contrast_of_wcag_aa(window, files, dark):
    for width in WIDTHS:
        window.open(files["song"], width, 844, dark=dark)
        window.run("document.getElementById('choices').open = true")
        window.run("document.getElementById('loop').click()")
        window.run("document.querySelectorAll('.bar')[3].classList.add('now')")
        found = window.run(CONTRASTS)
        assert len(found) > 60
        assert [one for one in found if one[1] < 4.5] == []
        window.run("document.getElementById('helping').click()")
        assert [one for one in window.run(CONTRASTS) if one[1] < 4.5] == []


def test_the_theme_can_be_turned(window, files):
    window.open(files["song"], 1280, 844, dark=False)
    color = "getComputedStyle(document.body).backgroundColor"
    before = window.run(color)
    window.click("#theme")
    assert window.run(color) != before
    window.click("#theme")
    assert window.run(color) == before


def test_paper_has_the_chart_alone(window, files):
    window.open(files["song"], 1280, 844)
    window.call("Emulation.setEmulatedMedia", media="print")
    shown = "(name) => getComputedStyle(document.querySelector(name)).display !== 'none'"
    names = ["h1", "#chart", "#used", "#transport", ".tools", "#choices"]
    found = window.run(f"{json.dumps(names)}.map({shown})")
    window.call("Emulation.setEmulatedMedia", media="")
    assert found == [True, True, True, False, False, False]


def test_a_page_inside_a_notebook_draws_and_reaches_nothing(window, files):
    window.open(files["frame"], 1280, 844)
    outer, window.session = window.session, None  # a page apart is a target of its own
    try:
        targets = window.call("Target.getTargets")["targetInfos"]
        (inner,) = [one["targetId"] for one in targets if one["type"] == "iframe"]
        attached = window.call("Target.attachToTarget", targetId=inner, flatten=True)
        window.session = attached["sessionId"]
        window.wait("document.querySelectorAll('.bar').length === 12")
        assert window.run("document.querySelector('audio').src.startsWith('blob:')")
        window.wait("document.querySelector('audio').readyState >= 2")
    finally:
        window.session = outer
    assert window.complaints == []


@pytest.mark.slow
def test_two_hours_of_bars_play_with_the_sound_beside(window, tmp_path):
    """Two hours of bars, the sound beside the page."""
    labels = (LABELS * 300)[:3600]
    long = made(labels)
    source = tmp_path / "a.wav"
    audio.write(source, tone(8.0).astype(np.float32), RATE)
    found = sound.for_page(source, sound.RATE, 8.0, 0, tmp_path / "long.mpga")
    path = tmp_path / "long.html"
    path.write_text(song.page(long, found), encoding="utf-8")
    window.open(path, 1280, 844)
    window.wait("document.querySelector('audio').readyState >= 2")
    assert window.run("document.querySelectorAll('.bar').length") == 3600
    assert text(window, "#about").endswith("2:00:00")
    assert "little music" not in text(window, "#about")
    assert text(window, ".clock") == "0:00 / 2:00:00"
    window.click(".play")
    window.wait(f"{TIME} > 2")
    assert text(window, "#present b") in ("C", "Am7")
    assert window.complaints == []
