"""What README, docs, benchmarks' README and the examples name exists: files, modules, names."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

import audiotrain
from audiotrain.config.help import field_docs

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("docs/**/*.md"))),
    *(path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("examples/*.py"))),
]
FILE = re.compile(r"(?<![\w/.])(?:audiotrain|tests|benchmarks|examples|docs)/[\w/*.-]*\w")
DOTTED = re.compile(r"(?<![\w/.])audiotrain(?:\.[A-Za-z_]\w*)+")


def resolve(name: str) -> object:
    """The module, class or function of a dotted name; ImportError or AttributeError without one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ImportError(name)


def missing(text: str) -> list[str]:
    """Files and dotted names of a text that do not exist."""
    absent = [name for name in FILE.findall(text) if not any(ROOT.glob(name))]
    for name in DOTTED.findall(text):
        try:
            resolve(name)
        except (ImportError, AttributeError):
            absent.append(name)
    return absent


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_names_exist(document):
    assert missing((ROOT / document).read_text(encoding="utf-8")) == []


def test_documents_name_some_of_each_kind():
    text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS)
    assert len(FILE.findall((ROOT / "README.md").read_text(encoding="utf-8"))) > 5
    assert len(FILE.findall(text)) > 50
    assert len(DOTTED.findall(text)) > 20


PYTEST = re.compile(r"`pytest (tests/[\w/]+\.py) -k (\w+)`")


def test_a_choice_of_tests_chooses_some():
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS]
    choices = [choice for text in texts for choice in PYTEST.findall(text)]
    assert len(choices) > 1
    for file, word in choices:
        assert re.search(rf"def test_\w*{word}", (ROOT / file).read_text(encoding="utf-8")), word


LINK = re.compile(r"\]\(([^)#\s]*)(?:#([\w-]+))?\)")


def test_links_of_the_readme_lead_somewhere():
    """Those of docs/ are checked by `mkdocs build --strict`."""
    links = LINK.findall((ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " "))
    local = [(file, anchor) for file, anchor in links if not file.startswith("https://")]
    assert len(local) > 12
    for file, anchor in local:
        assert (ROOT / file).is_file(), file
        if file.endswith(".png"):
            continue
        headings = re.findall(r"^#+ (.+)$", (ROOT / file).read_text("utf-8"), re.MULTILINE)
        assert anchor in ["", *(re.sub(r"\W+", "-", one.lower()) for one in headings)], anchor


def test_the_readme_is_short_and_names_each_guide():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    guides = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")}
    assert guides - {file for file, _ in LINK.findall(text)} == {"docs/index.md"}


def test_scores_of_the_readme_are_those_of_the_model_card():
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    card = (ROOT / "audiotrain/pretrained/chords/README.md").read_text(encoding="utf-8")
    stated = re.search(r"root (\.\d{3}), majmin (\.\d{3}) and tetrads (\.\d{3})", text)
    names, row = re.search(
        r"^\| (root \|.*) \|\n\|[ -|]+\n\| (.*) \|$", card, re.MULTILINE
    ).groups()
    scores = dict(zip(names.split(" | "), row.split(" | "), strict=True))
    expected = [scores[name].removeprefix("0") for name in ("root", "majmin", "tetrads")]
    assert list(stated.groups()) == expected


def test_a_name_that_is_gone_is_found():
    text = (
        "`audiotrain/harmony.py`, audiotrain.train.losses.entropy, and `audiotrain.train.losses`."
    )
    assert missing(text) == ["audiotrain/harmony.py", "audiotrain.train.losses.entropy"]


def test_the_readme_lists_the_packages():
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Layout\n")[1]
    listed = re.findall(r"^  (\w+)/ ", text, re.MULTILINE)
    assert sorted(listed) == sorted(
        path.parent.name for path in ROOT.glob("audiotrain/*/__init__.py")
    )


def test_benchmarks_are_listed_and_run_by_their_own_names():
    listed = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for path in sorted(ROOT.glob("benchmarks/*.py")):
        assert f"`{path.name}`" in listed, path.name
    for command in re.findall(r"`python (benchmarks/\w+\.py)", listed):
        assert (ROOT / command).is_file(), command


IMPORT = re.compile(r"^(?:>>> )?(?:from|import) (audiotrain[\w.]*)", re.MULTILINE)
# Packages whose paths are those of the seed documents.
SEED_PATHS = {
    "audiotrain",
    "audiotrain.models.clap",
    "audiotrain.train.callbacks",
    "audiotrain.train.loggers",
    "audiotrain.train.schedulers",
}


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if "benchmarks" not in name])
def test_documents_and_examples_import_from_the_package_itself(document):
    found = set(IMPORT.findall((ROOT / document).read_text(encoding="utf-8")))
    is_script = document.endswith(".py")
    assert found <= ({"audiotrain"} if is_script else SEED_PATHS)
    assert found or not is_script


def test_every_public_name_is_found_where_it_is_listed():
    assert len(audiotrain.__all__) > 40
    for name in audiotrain.__all__:
        assert getattr(audiotrain, name) is not None
    with pytest.raises(ImportError, match="cannot import name 'Trainr'"):
        from audiotrain import Trainr  # noqa: F401


LISTED = re.compile(r"^::: (\S+)$((?:\n    .+)*)", re.MULTILINE)


def test_the_reference_shows_every_field_of_settings():
    """Fields without a sentence, and those of a base class, need an option of mkdocstrings."""
    pages = sorted(ROOT.glob("docs/reference/*.md"))
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    listed = [(resolve(name), options) for name, options in LISTED.findall(text)]
    settings = [one for one in listed if hasattr(one[0], "__pydantic_fields__")]
    assert len(settings) > 15
    for kind, options in settings:
        fields = {field.name for field in dataclasses.fields(kind)}
        for needed, some in (
            ("show_if_no_docstring: true", fields - set(field_docs(kind))),
            ("inherited_members: true", fields - set(kind.__annotations__)),
        ):
            assert not some or needed in options, (kind, some)
