"""The snippets in README and docs/ run.

Python blocks of a page run one after the other in a folder of data, YAML blocks that begin with
`# NAME.yaml` are files there, and JSON blocks are read. Of a shell block each command of audiotrain
must have such settings, and blocks marked `<!-- run -->` are run with a small model; the others
only print help. A comment before a block says why it does not run, `<!-- not run: why -->`, or
makes what a reader has, `<!-- setup (Python) -->`. Indented lines of README are shell blocks, too,
and run. CLAP's released model is a small one in the hub's cache. docs/functional.md runs as a
doctest.
"""

import doctest
import functools
import importlib
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub.constants
import pytest
import soundfile
import tiny_chords
import tiny_clap
import tiny_clips
from clap_folders import cache_model, save_model, write_clip
from run_folders import chords_run

import audiotrain
from audiotrain.__main__ import COMMANDS
from audiotrain.recipes.common import cli

ROOT = Path(__file__).resolve().parents[1]
DOCTESTS = ROOT / "docs/functional.md"
README = ROOT / "README.md"
PAGES = [README, *sorted(page for page in ROOT.glob("docs/**/*.md") if page != DOCTESTS)]
BLOCK = re.compile(
    r"^<!-- setup\n(?P<setup>.*?)-->|"
    r"^(?:<!-- (?P<mark>run|not run: [^\n]+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
INDENTED = re.compile(r"(?<=\n\n) {4}(?P<code>\S[^\n]*\n)(?=\n)")
RECIPES = {"chords": tiny_chords, "clap": tiny_clap, "classify": tiny_clips}
# A small model in place of the default one, for commands that train.
SMALL = {
    "chords": [*tiny_chords.TINY, *tiny_chords.STEPS],
    "clap": [*tiny_clap.TINY, *tiny_clap.STEPS],
    "classify": tiny_clips.STATISTICS,
}
COMPOSED = ["--composed", "5", "--composed-seconds", "3"]  # songs in place of data
# The recogniser that audiotrain comes with has features and a model of its own.
SHIPPED = "--window 16 --workers 0 --batch-size 2 --validations 1 --steps 1".split()


@dataclass(frozen=True)
class Block:
    """A block of a page: its language ("setup" for hidden Python), its mark, its text."""

    language: str
    mark: str
    code: str

    @property
    def runs(self) -> bool:
        return not self.mark.startswith("not run")


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [match.groupdict("") for match in BLOCK.finditer(text)]
    indented = INDENTED.finditer(text) if page == README else ()
    return [Block("sh", "run", match["code"]) for match in indented] + [
        Block(
            "setup" if one["setup"] else one["language"], one["mark"], one["setup"] or one["code"]
        )
        for one in found
    ]


def commands(block: Block) -> list[list[str]]:
    """The words of each audiotrain command of a shell block, without what starts it."""
    found = []
    for line in block.code.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;", line):
            words = shlex.split(part, comments=True)
            if "audiotrain" in words:
                found.append(words[words.index("audiotrain") + 1 :])
            elif module := next((w for w in words if w.startswith("audiotrain.recipes.")), None):
                found.append([module.split(".")[2], *words[words.index(module) + 1 :]])
    return found


def load(words: list[str]) -> None:
    """Read a command's settings; what is wrong with them is an error."""
    name, *rest = words
    module = importlib.import_module(f"audiotrain.{COMMANDS[name][0]}")
    if rest == ["--help"] or name not in RECIPES:
        try:
            code = module.main(["--help"])
        except SystemExit as done:
            code = done.code or 0
        assert code == 0
        return
    recipe = importlib.import_module(f"audiotrain.recipes.{name}.commands").COMMANDS
    command, flags = audiotrain.config.choose_command(rest, tuple(recipe), "train")
    cli.load_settings(name, recipe, command, flags)


PAGES_WITH = {
    language: [page for page in PAGES if any(b.language == language for b in blocks(page))]
    for language in ("sh", "python")
}
named = functools.partial(pytest.mark.parametrize, ids=lambda page: page.stem)


@named("page", PAGES_WITH["sh"])
def test_commands_have_these_settings(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.language == "sh":
            for words in commands(block):
                load(words)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to run in; recipes cache below it, and neither compile nor draw."""
    monkeypatch.chdir(tmp_path)
    for recipe in RECIPES.values():
        recipe.make_quick(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "home/hub"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("hub"))
    return tmp_path


def fill(place: Path, page: Path) -> None:
    """The data that a page speaks of."""
    if page.stem in ("clap", "README"):
        cache_model(place / "home/hub", save_model(place / "home/clap"))
        for number in range(4):
            write_clip(place / f"sounds/{number}.wav", seed=number)
        write_clip(place / "door.wav", seed=9)
        rows = [
            (f"{number}.wav", "rain" if number % 2 else "dog", str(number // 2))
            for number in range(4)
        ]
        tiny_clips.table(place / "sounds", [("file_name", "label", "fold"), *rows], "metadata.csv")
    if page.stem in ("chords", "getting-started", "README"):
        tiny_chords.sung(place / "songs", count=8)
        (place / "album").mkdir()
        for name in ("song.wav", "song.mp3", "album/song.wav"):
            soundfile.write(place / name, *soundfile.read(place / "songs/song0.wav"))
    if page.stem in ("clap", "README"):
        tiny_clap.captioned(place / "captioned")
    if page.stem in ("classifying", "README"):
        tiny_clips.class_folders(place / "clips", each=10)
        for number in range(3):
            tiny_clips.tone(place / f"TEST/{number}.wav", 150, seed=number)
            tiny_clips.tone(place / f"others/{number}.wav", 500, seed=number)
        header = ("fname", *tiny_clips.KINDS)
        rows = [(f"{number}.wav", "0", "0", "0") for number in range(3)]
        tiny_clips.table(place, [header, *rows], "sample_submission.csv")
    if page.stem == "comparing":
        for name in ("first", "second"):
            chords_run(place / "runs" / name)


def start(words: list[str]) -> None:
    """Run a command, one that trains with a small model."""
    recipe, *rest = words
    if recipe not in RECIPES:
        module = importlib.import_module(f"audiotrain.{COMMANDS[recipe][0]}")
        assert module.main(rest) == (rest[0] == "diff"), words  # 1 where runs differ, as diff's
        return
    trains = not rest or rest[0] in ("cv", "pseudo") or rest[0].startswith("-")
    trains &= words[:2] != ["clap", "cv"]  # scores a model fold by fold
    if trains and recipe == "clap":
        rest += ["--model.projection-dim", "12"] if "--pretrained" not in rest else []
    small = SMALL[recipe] if trains else []
    if words == ["chords"]:
        small = [*small, *COMPOSED]
    if recipe == "chords" and "--pretrained --" in " ".join(rest):  # without a value
        small = SHIPPED
    assert RECIPES[recipe].command(*rest, *small) == 0, words


def executes(block: Block) -> bool:
    return block.mark == "run" or (block.language == "python" and block.runs)


@pytest.mark.slow
@named("page", [page for page in PAGES if any(map(executes, blocks(page)))])
def test_snippets_run(page, place):
    fill(place, page)
    names: dict = {"__name__": "snippet"}
    for block in blocks(page):
        if not block.runs:
            continue
        if block.mark == "run" and block.language == "sh":
            for words in commands(block):
                start(words)
        elif block.language in ("python", "setup"):
            exec(compile(block.code, f"{page.name}: {block.code[:40]!r}", "exec"), names)
        elif block.language == "yaml" and (name := re.match(r"# (\w+\.yaml)\n", block.code)):
            (place / name[1]).write_text(block.code)
        elif block.language == "json":
            json.loads(block.code)


@named("page", [page for page in PAGES if page.name in ("README.md", "trainer.md")])
def test_the_first_model_learns_something(page, place):
    names: dict = {}
    for block in [block for block in blocks(page) if executes(block)]:
        if "images" in block.code or "class Classifier" in block.code:
            exec(compile(block.code, page.name, "exec"), names)
        if "class Classifier" in block.code:
            break
    assert names["trainer"].history.rows[-1]["val_accuracy"] > 0.9


def test_marks_are_known_and_blocks_are_found():
    found = [block for page in PAGES for block in blocks(page)]
    assert len(found) > 45
    assert sum(block.mark == "run" for block in found) > 10
    assert sum(block.language == "python" for block in found) > 15
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in blocks(page):
            words = commands(block) if block.language == "sh" and not block.mark else []
            assert all(last == "--help" for *_, last in words), f"{page}: mark {block.code!r}"
        marked = [block for block in blocks(page) if block.mark or block.language == "setup"]
        indented = INDENTED.findall(text) if page == README else []
        assert len(marked) == text.count("<!--") + len(indented), page


def test_every_command_of_the_readme_runs():
    found = [block for block in blocks(README) if block.language == "sh"]
    assert all(block.mark == "run" for block in found)
    words = [words for block in found for words in commands(block)]
    assert ["chords"] in words
    assert {name for name, *_ in words} == {"chords", "clap", "classify"}
    text = README.read_text(encoding="utf-8")
    assert len(words) == len(re.findall(r"^audiotrain |-m audiotrain\.", text, re.MULTILINE)) > 8


def test_every_public_name_is_in_the_reference():
    text = "\n".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/reference/*.md"))
    aliases = "BaseTrainerConfig KaggleTrainerConfig MLXTrainer create_kaggle_trainer".split()
    missing = [name for name in audiotrain.__all__ if not re.search(rf"\.{name}\b|`{name}`", text)]
    assert len(audiotrain.__all__) > 40
    assert missing == []
    assert all(name in text for name in aliases)


def module_of(name: str):
    """A module of those that mkdocs calls."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".mkdocs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_a_missing_address_has_relative_paths():
    module = module_of("relative_404")
    assert doctest.testmod(module).attempted == 1
    html = '<link href="/assets/a.css"><script src="/assets/a.js"></script> 1 / 2 <a href="//b">'
    expected = html.replace('"/assets', '"./assets')
    assert module.on_post_template(html, "404.html", None) == expected
    assert module.on_post_template(html, "sitemap.xml", None) == html
    assert "relative_404.py" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_examples_in_docstrings_become_code_blocks():
    pytest.importorskip("griffe", reason="the extra docs brings it")
    module = module_of("doctest_blocks")
    text = "Adds.\n\n>>> 1 + 1\n2\n\nMore."
    assert module.fenced(text) == "Adds.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nMore."
    assert module.fenced("Adds.") == "Adds."
