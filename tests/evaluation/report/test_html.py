"""The report of runs: what is in the page, and what a browser makes of it."""

import base64
import json
import math
import re
import time
from pathlib import Path

import browser as chromium
import numpy as np
import pytest
from disk import content, full_disk
from run_folders import (
    RATE,
    REFERENCE,
    SECONDS,
    chords_run,
    clap_run,
    tone,
    trainer_run,
    unfinished_run,
)

from audiotrain import __main__ as door
from audiotrain.evaluation.plots.confusion import confusion_csv
from audiotrain.evaluation.report import chord_player, html
from audiotrain.evaluation.report.run_reader import read_run
from audiotrain.features import audio

EVIL = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
TABS = ("overview", "curves", "scores", "confusion", "settings", "listen")


def data_of(page: str) -> dict:
    """The JSON that a page's script draws."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


# ---------------------------------------------------------------- the file


def test_the_page_holds_all_and_asks_for_nothing(tmp_path):
    runs = [read_run(chords_run(tmp_path / "a")), read_run(clap_run(tmp_path / "b"))]
    page = html.page(runs)
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:,"]
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", page)
    addresses = set(re.findall(r"https?://[^\s\"'`]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not a place
    found = data_of(page)
    assert [run["kind"] for run in found["runs"]] == ["chords", "clap"]
    assert found["runs"][0]["series"]["val_loss"] == {
        "x": [10, 20, 30, 40],
        "y": [2.0, 1.5, 1.0, 1.25],
    }
    assert found["runs"][1]["series"] == found["runs"][0]["series"]  # each run has its curves
    cells = found["runs"][0]["confusions"][0]["cells"]
    assert cells == [[0, 0, 6], [0, 1, 2], [1, 1, 4]]
    assert found["runs"][1]["tables"][0]["rows"] == [["dog.wav", 3]]
    assert found["lower"] == [
        "best.val_loss",
        "last.val_loss",
        "retrieval.text_to_audio_median_rank",
    ]


def test_the_overview_of_a_trainers_run_is_its_scores(tmp_path):
    run = read_run(trainer_run(tmp_path / "a", best=1.5, val_loss=2.0, val_accuracy=0.0))
    found = data_of(html.page([run]))
    told = [
        (text, found["runs"][0]["scores"][key])
        for key, text in found["runs"][0]["headlines"].items()
    ]
    assert told == [("val_loss", 1.5), ("val_accuracy", 0.0)]
    assert "best.val_loss" in found["lower"]  # less of it is better


def test_what_files_say_cannot_become_markup(tmp_path):
    page = html.page([read_run(chords_run(tmp_path / "a", words=EVIL))], title=EVIL)
    assert page.count("<script") == 2
    assert "<img" not in page
    assert data_of(page)["runs"][0]["settings"]["data"] == EVIL


def test_recordings_are_compressed_and_still_sound_alike(tmp_path):
    runs = [read_run(chords_run(tmp_path / "a"))]
    songs, sounds = chord_player.songs_and_sounds(runs, 1_000_000)
    assert [song["name"] for song in songs] == ["first", "plain"]  # the worst first
    assert [song["sound"] for song in songs] == ["sound 0", None]
    content = base64.b64decode(sounds["sound 0"]["base64"])
    assert len(content) == pytest.approx(5000 * SECONDS, rel=0.1)  # 40 kbit/s
    (tmp_path / "sound.mp3").write_bytes(content)
    decoded = audio.read(tmp_path / "sound.mp3", RATE)
    assert len(decoded) == pytest.approx(SECONDS * RATE, abs=0.1 * RATE)
    spectrum = np.abs(np.fft.rfft(decoded))
    assert spectrum.argmax() * RATE / len(decoded) == pytest.approx(440, abs=1)
    loudness = np.sqrt(np.mean(decoded**2)) / np.sqrt(np.mean(tone() ** 2))
    assert loudness == pytest.approx(1, abs=0.1)


def test_sound_that_does_not_fit_or_cannot_be_read_is_left_out(tmp_path):
    runs = [read_run(chords_run(tmp_path / "a"))]
    songs, sounds = chord_player.songs_and_sounds(runs, 1000)
    assert sounds == {}
    assert songs[0]["silence"] == "its sound was left out to keep the page small"
    (tmp_path / "a" / "example.wav").write_bytes(b"RIFF")
    songs, sounds = chord_player.songs_and_sounds(runs, 1_000_000)
    assert sounds == {}
    assert songs[0]["silence"].startswith("no sound: ")


def test_a_full_disk_takes_nothing_that_was_there(tmp_path, capsys):
    chords_run(tmp_path / "a")
    words = ["report", str(tmp_path / "a"), "--output", str(tmp_path / "page.html")]
    assert door.main(words) == 0
    before = content(tmp_path)
    capsys.readouterr()
    with full_disk(2000):
        assert door.main(words) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {tmp_path / 'page.html'}: cannot write: File too large"
    )
    assert content(tmp_path) == before


def test_runs_share_the_songs_of_both(tmp_path):
    runs = [read_run(chords_run(tmp_path / name)) for name in "ab"]
    songs, sounds = chord_player.songs_and_sounds(runs, 1_000_000)
    assert [[lane["run"] for lane in song["lanes"]] for song in songs] == [[0, 1], [0, 1]]
    assert len(sounds) == 1


def test_an_older_run_has_the_song_that_it_showed(tmp_path):
    run = chords_run(tmp_path / "a")
    (run / "timelines.json").unlink()
    (run / "example.lab").write_text("0.0\t4.0\tC:maj\n4.0\t8.0\tA:min7/b3\n")
    (song,), sounds = chord_player.songs_and_sounds([read_run(run)], 1_000_000)
    assert song["lanes"][0]["chords"] == [[0.0, 4.0, "C", 0], [4.0, 8.0, "Am7/b3", 9]]
    assert song["reference"] is None
    assert len(sounds) == 1


@pytest.mark.parametrize(
    "text", ["", "[3]", '[{"song": 1}]', '{"a": 1}', "[" * 5000, "[[0, NaN]]", '[{"song": null}]']
)
def test_odd_timelines_are_none(tmp_path, text):
    run = chords_run(tmp_path / "a", sound=False)
    (run / "timelines.json").write_text(text)
    assert chord_player.songs_and_sounds([read_run(run)], 1000) == ([], {})


@pytest.mark.parametrize("text", ["reference,a\n", "reference,a,b\na,1\n", "", "\n\n", "x", "\0"])
def test_odd_tables_are_left_out(tmp_path, text):
    run = chords_run(tmp_path / "a")
    (run / "confusion-root.csv").write_text(text)
    (run / "songs.csv").write_text(text)
    described = html.describe_run(read_run(run))
    assert described["confusions"] == []


def test_long_curves_are_thinned_and_keep_their_ends():
    rows = [{"step": step, "loss": float(step)} for step in range(10_000)]
    curve = html.series(rows)["loss"]
    assert len(curve["x"]) <= html.MOST_POINTS + 1
    assert (curve["x"][0], curve["x"][-1]) == (0, 9999)


def test_the_command_writes_a_page_and_only_over_its_own(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chords_run(tmp_path / "runs" / "a")
    unfinished_run(tmp_path / "runs" / "b")
    for _ in range(2):
        assert door.main(["report", "runs"]) == 0
    assert "report.html: 2 runs" in capsys.readouterr().out
    Path("mine.html").write_text("<p>mine</p>")
    assert door.main(["report", "runs/a", "--output", "mine.html"]) == 2
    assert "mine.html: holds something else than a report" in capsys.readouterr().err
    assert Path("mine.html").read_text() == "<p>mine</p>"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required"),
        (["nowhere"], "nowhere: no such folder"),
        (["."], ".: no run in it"),
        ([".", "--sound-megabytes", "-1"], "--sound-megabytes=-1.0, expected 0 to 100"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    assert door.main(["report", *words]) == 2
    assert said in capsys.readouterr().err


def test_an_evaluation_is_reported_as_a_run_is(tmp_path):
    folder = chords_run(tmp_path / "run" / "evaluation-songs")
    for name in ("config.yaml", "history.json"):
        (folder / name).unlink()
    (run,) = html.chosen_runs([folder])
    assert (run.name, run.kind, run.state) == ("evaluation-songs", "chords", "finished")


def test_a_cross_validation_brings_its_folds(tmp_path):
    for name in ("second", "cv/fold-1", "cv/fold-0", "cv"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "history.json").write_text('{"rows": [{"step": 1, "loss": 2.0}]}')
    (tmp_path / "cv" / "folds.json").write_text("{}")
    found = html.chosen_runs([tmp_path / "cv", tmp_path / "second"])
    assert [run.name for run in found] == ["cv", "fold-0", "fold-1", "second"]
    assert found[0].kind == "trainer cv"


def test_of_many_classes_those_that_occur_are_drawn(tmp_path):
    names = [f"class {number}" for number in range(20)]
    counts = np.zeros((20, 20), int)
    counts[3, 3], counts[3, 17] = 4, 1
    confusion_csv(counts, names, tmp_path / "confusion.csv")
    (matrix,) = html.confusions(tmp_path)
    assert matrix["classes"] == ["class 3", "class 17"]
    assert matrix["cells"] == [(0, 0, 4.0), (0, 1, 1.0)]


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [chords_run(tmp_path / name / "run", sound=False) for name in "ab"]
    names = [run.name for run in html.chosen_runs([*folders, folders[0]])]
    assert names == [str(folder) for folder in folders]


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two chord runs and one of CLAP; the second one's root is right a tenth more often."""
    folder = tmp_path_factory.mktemp("report")
    wrong = [[0.0, 2.0, "C:maj"], [2.0, 4.0, "A:min"], [4.0, 6.0, "D:min"], REFERENCE[3]]
    runs = [
        chords_run(folder / "one", root=0.8),
        chords_run(folder / "<img src=x onerror=alert(1)>", 0.9, 0.01, wrong, words=EVIL),
        clap_run(folder / "clap"),
    ]
    path = folder / "report.html"
    path.write_text(html.page(html.chosen_runs(runs)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def window():
    if chromium.PROGRAM is None:
        pytest.skip("no chromium or google-chrome found: apt-get install chromium")
    with chromium.browser() as made:
        yield made


@pytest.fixture
def seen(window, report):
    """The report in a wide window; no complaint and no request may come of what a test does."""
    window.open(report)
    yield window
    window.run("1")  # what the page has said by now is noted
    assert window.complaints == []
    assert {address.partition(":")[0] for address in window.requests} <= {"file", "blob"}


def text(window, selector):
    return window.run(f"document.querySelector({json.dumps(selector)}).textContent")


def visible(window):
    """Ids of the panels that are shown."""
    return window.run(
        "[...document.querySelectorAll('[role=tabpanel]:not([hidden])')].map(p=>p.id)"
    )


def test_tabs_open_by_click(seen):
    assert visible(seen) == ["panel-overview"]
    for name in (*TABS[1:], TABS[0]):
        seen.click(f"#tab-{name}")
        assert visible(seen) == [f"panel-{name}"]
        assert seen.run(f"document.querySelector('#panel-{name}').textContent.length") > 40
        assert text(seen, "[aria-selected=true]").lower() == name


def test_tabs_open_by_keys(seen):
    seen.run("document.querySelector('#tab-overview').focus()")
    for key, name in [
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("Home", 0),
        ("ArrowLeft", 5),
        ("ArrowRight", 0),
        ("End", 5),
    ]:
        seen.press(key)
        assert visible(seen) == [f"panel-{TABS[name]}"]
        assert seen.run("document.activeElement.id") == f"tab-{TABS[name]}"
    assert seen.run("document.querySelectorAll('[role=tab][tabindex=\"0\"]').length") == 1


def test_text_of_files_stays_text(seen):
    for name in TABS:
        seen.click(f"#tab-{name}")
    assert seen.run("window.hacked === undefined")
    assert seen.run("document.querySelectorAll('img').length") == 0
    assert "<img src=x onerror=alert(1)>" in text(seen, "header")
    assert EVIL in text(seen, "#panel-settings")
    assert EVIL in text(seen, "#panel-listen")


def test_scores_are_compared_with_the_first_run(seen):
    seen.click("#tab-scores")
    rows = seen.run(
        "[...document.querySelectorAll('#panel-scores tr')].map(row => [...row.cells].map("
        "cell => cell.textContent + (cell.querySelector('.better') ? ' better' : '')))"
    )
    (root,) = [row for row in rows if row[0] == "root"]
    assert root == ["root", "0.8000", "0.9000+0.1000 better"]
    losses = [row for row in rows if row[0] == "val_loss" and row[1] == "1.0000"]
    assert losses == [["val_loss", "1.0000", "1.0000same"], ["val_loss", "1.0000"]]
    hidden = "document.querySelectorAll('#panel-scores tr[hidden]').length"
    before = seen.run(hidden)
    seen.click("#panel-scores tr.group button[aria-expanded=true]")
    assert seen.run(hidden) > before


@pytest.mark.parametrize("name", ["overview", "curves", "scores", "settings"])
def test_runs_of_several_recipes_are_in_groups(seen, name):
    seen.click(f"#tab-{name}")
    names = f"[...document.querySelectorAll('#panel-{name} h2.recipe')].map(one=>one.textContent)"
    assert seen.run(names) == ["chords", "clap"]
    panel = seen.run(f"document.querySelector('#panel-{name}').innerText").lower()
    chords, clap = panel[panel.index("chords") :].split("\nclap\n", 1)
    for text, own, other in ((chords, "majmin", "t2a"), (clap, "t2a", "majmin")):
        if name == "overview":
            assert own in text
            assert other not in text
    if name == "settings":
        assert "pretrained" in clap
        assert "pretrained" not in chords


def test_runs_are_ordered_by_recipe(tmp_path):
    makers = {"a": chords_run, "b": clap_run, "c": chords_run}
    page = html.page([read_run(make(tmp_path / name)) for name, make in makers.items()])
    found = data_of(page)
    assert [(run["name"], run["recipe"]) for run in found["runs"]] == [
        ("a", "chords"), ("c", "chords"), ("b", "clap"),
    ]  # fmt: skip
    assert found["differing"] == {"chords": [], "clap": []}
    assert [lane["run"] for lane in found["songs"][0]["lanes"]] == [0, 1]


def test_settings_that_differ_are_marked(seen):
    seen.click("#tab-settings")
    marked = seen.run("[...document.querySelectorAll('tr.differs th')].map(cell=>cell.textContent)")
    assert "optimization.learning_rate" in marked
    assert "output" not in marked
    seen.run(
        "(() => { const box = document.querySelector('#panel-settings [type=search]');"
        "box.value = 'RATE'; box.dispatchEvent(new Event('input')); })()"
    )
    rows = "[...document.querySelectorAll('#panel-settings tbody th')].map(cell=>cell.textContent)"
    assert seen.run(rows) == ["optimization.learning_rate"]


def test_classes_have_their_recall_and_confusions(seen):
    seen.click("#tab-confusion")
    rows = (
        "[...document.querySelectorAll('#panel-confusion tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert seen.run(rows) == [
        ["C", "8", "75.0%", "100.0%", "plain 25.0%"],
        ["plain", "4", "100.0%", "66.7%", ""],
    ]
    assert "83.3% of 12 right" in text(seen, "#panel-confusion")
    size = seen.run("document.querySelector('canvas').getBoundingClientRect().width")
    assert size > 50
    seen.click("#panel-confusion canvas", 0.98, 0.98)
    assert text(seen, ".readout") == "plain recognised as plain: 4, 100.0% of 4"


def test_curves_show_their_values_and_can_be_hidden(seen):
    seen.click("#tab-curves")
    paths = "document.querySelectorAll('.chart:first-child path').length"
    seen.wait(f"{paths} === 6")  # training and validation of three runs
    seen.click(".chart svg", 0.99, 0.5)
    assert "step 40" in text(seen, ".tip")
    assert "one validation1.2500" in text(seen, ".tip")
    seen.run("document.querySelector('.chart svg').focus()")
    seen.press("ArrowLeft")
    assert "step 35" in text(seen, ".tip")
    places = seen.run("document.querySelector('.chart path').getAttribute('d')")
    seen.run(
        "(() => { const select = document.querySelector('#panel-curves select');"
        "select.value = 'log'; select.dispatchEvent(new Event('change')); })()"
    )
    assert seen.run("document.querySelector('.chart path').getAttribute('d')") != places
    seen.click("#runs .chip:nth-child(2)")
    assert seen.run(paths) == 4


def test_the_player_moves_and_seeks(seen):
    seen.click("#tab-listen")
    seen.wait("document.querySelector('audio').readyState >= 2")
    length = seen.run("document.querySelector('audio').duration")
    assert length == pytest.approx(SECONDS, abs=0.15)
    time = "document.querySelector('audio').currentTime"
    cursor = "parseFloat(document.querySelector('.cursor').style.left)"
    seen.click(".play")
    seen.wait(f"{time} > 0.3 && {cursor} > 2")
    assert text(seen, ".play") == "Pause"
    seen.click(".play")
    seen.wait("document.querySelector('audio').paused")
    places = {0.125: ["C", "C", "C"], 0.375: ["Am", "A", "Am"], 0.625: ["F", "F", "Dm"]}
    for share, chords in places.items():
        seen.click(".overview", share, 0.5)
        seen.wait(f"Math.abs({time} - {share * SECONDS}) < 0.1")
        assert seen.run(cursor) == pytest.approx(100 * share, abs=2)
        labels = seen.run("[...document.querySelectorAll('.now b')].map(b => b.textContent)")
        assert labels == chords
    # The moving lanes: where a chord stands, its time is.
    seen.click(".lanes", 0.3 + 64 / seen.run("document.querySelector('.lanes').clientWidth"), 0.5)
    seen.wait(f"Math.abs({time} - 6) < 0.1")
    under = seen.run(
        "(() => { const head = document.querySelector('.lanes .head').getBoundingClientRect();"
        "const lane = document.querySelector('.lane .track').getBoundingClientRect();"
        "return (head.left - lane.left) / 64; })()"
    )
    assert under == pytest.approx(seen.run(time), abs=0.1)
    seen.click(".player .controls button:nth-of-type(2)")  # next mistake: from the first one on
    seen.wait(f"Math.abs({time} - 1) < 0.1")  # a second before 2 s
    seen.run("document.querySelector('.overview').focus()")
    seen.press("ArrowRight")
    seen.wait(f"Math.abs({time} - 6) < 0.1")
    seen.click(".play")
    seen.click("#tab-scores")
    assert seen.run("document.querySelector('audio').paused")


def test_the_mistakes_of_a_song_are_red(seen):
    seen.click("#tab-listen")
    spans = seen.run(
        "[...document.querySelectorAll('.strip')].map(strip => [...strip.children].map(mark => "
        "[parseFloat(mark.style.left), parseFloat(mark.style.width)]))"
    )
    assert spans == [[[25, 25]], [[50, 25]]]  # percent of 8 s: A for Am, Dm for F
    assert "one: 75.0% of the time the same chord" in text(seen, ".player")
    wrong = seen.run("[...document.querySelectorAll('.chord.wrong')].map(c => c.textContent)")
    assert wrong == ["A", "Dm"]


def test_a_song_of_the_table_is_played(seen):
    seen.click("#tab-listen")
    seen.click("#panel-listen .scroll tbody tr:nth-child(2) button.link")
    assert text(seen, ".player h3") == "plain"
    assert seen.run("document.querySelector('.play').disabled")
    assert "no recording was kept" in text(seen, ".player")
    assert "one: 66.7% of the time" in text(seen, ".player")  # 4 of 6 s, X is not judged
    seen.click(".overview", 0.5, 0.5)
    assert text(seen, ".clock").startswith("0:04")


def test_songs_may_be_changed_while_their_sound_is_loading(seen):
    seen.click("#tab-listen")
    songs = "document.querySelectorAll('#panel-listen tbody button.link')"
    for _ in range(5):
        seen.run(f"{songs}.forEach(e => e.click())")
        time.sleep(0.05)


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(window, report, width):
    window.open(report, width, 740)
    for name in TABS:
        window.click(f"#tab-{name}")
        assert window.run("document.documentElement.scrollWidth") <= width, name
        small = window.run(
            f"[...document.querySelectorAll('#panel-{name} *')].filter(e => e.children.length === 0"
            " && e.textContent && e.offsetWidth && !e.closest('svg') &&"
            " parseFloat(getComputedStyle(e).fontSize) < 11).length"
        )
        assert small == 0, name
    assert window.complaints == []


@pytest.mark.parametrize(("dark", "expected"), [(False, 255), (True, 20)])
def test_the_page_follows_the_systems_colours(window, report, dark, expected):
    window.open(report, dark=dark)
    window.click("#tab-confusion")
    color = window.run("getComputedStyle(document.body).backgroundColor")
    assert int(re.search(r"\d+", color)[0]) == expected
    ink = window.run("getComputedStyle(document.body).color")
    levels = [np.array([int(n) for n in re.findall(r"\d+", c)[:3]]) / 255 for c in (color, ink)]
    assert contrast(*levels) > 7  # WCAG's AAA


def contrast(one, other) -> float:
    """WCAG 2's ratio of two sRGB colours."""

    def luminance(color):
        linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_colour_of_a_run_can_be_seen(window, report):
    for dark in (False, True):
        window.open(report, dark=dark)
        names = ["--ground", *(f"--run-{n}" for n in range(8))]
        values = window.run(
            f"{json.dumps(names)}.map(name => getComputedStyle(document.documentElement)"
            ".getPropertyValue(name).trim())"
        )
        ground, *colors = [
            np.array([int(v[n : n + 2], 16) for n in (1, 3, 5)]) / 255 for v in values
        ]
        assert min(contrast(ground, color) for color in colors) > 3
    assert math.isclose(contrast(np.ones(3), np.zeros(3)), 21)
