"""The house: README's tree has every file, and imports go down or along an arrow of the tree."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "audiotrain"
# Which rooms a room may import; its own only along arrows.
BELOW = {
    "DOOR": {"TRAINING", "AUDIO", "GROUND", "ROOF"},
    "ROOF": {"TRAINING", "AUDIO", "MODELS", "GROUND"},
    "TRAINING": {"GROUND"},
    "AUDIO": {"GROUND"},
    "MODELS": {"GROUND"},
    "GROUND": set(),
}
LONGEST_FILE = 400  # lines; a longer one has outgrown its one idea


def tree() -> dict[str, tuple[str, set[str]]]:
    """File -> (room, files of the same room that its arrow names), as README.md says."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"test_house.*?```\n(.*?)```", text, re.DOTALL).group(1)
    found, room = {}, None
    for line in block.splitlines():
        if heading := re.match(r" *([A-Z]+):", line):
            room = heading.group(1)
        elif row := re.match(r" +(\S+\.py)\s+(.*)", line):
            arrows = row.group(2).rpartition("-> ")
            names = arrows[2].split(", ") if arrows[1] else []
            found[row.group(1)] = (room, {name.strip() + ".py" for name in names})
    return found


def imports(path: Path) -> set[str]:
    """Files of the package that a file imports, relative to the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            file = Path(*name.split(".")[1:]).with_suffix(".py") if "." in name else None
            if name.startswith("audiotrain.") and (PACKAGE / file).is_file():
                found.add(file.as_posix())
    return found


def modules() -> list[str]:
    files = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")]
    return sorted(file for file in files if Path(file).name != "__init__.py")


def test_the_tree_has_every_file_and_no_other():
    assert sorted(tree()) == modules()
    assert len(modules()) > 40


@pytest.mark.parametrize("file", modules())
def test_imports_follow_the_plan(file):
    plan = tree()
    room, arrows = plan[file]
    for other in imports(PACKAGE / file):
        if plan[other][0] == room:
            assert other in arrows, f"{file} imports {other}: no arrow in README's tree"
        else:
            assert plan[other][0] in BELOW[room], f"{file} ({room}) imports {other}"
    unused = arrows - imports(PACKAGE / file)
    assert not unused, f"README draws an arrow from {file} to {unused}, which it does not import"


@pytest.mark.parametrize("file", modules())
def test_files_have_one_idea(file):
    text = (PACKAGE / file).read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{file}: no docstring"
    assert len(text.splitlines()) <= LONGEST_FILE


def test_optional_libraries_are_imported_only_when_used():
    late = ["wandb", "tensorboard", "mlflow", "matplotlib", "librosa", "torch", "pretty_midi"]
    code = (
        "import sys, audiotrain, audiotrain.recipes.chords\n"
        f"found = [name for name in {late} if name in sys.modules]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_of_one_machine_is_in_the_project():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(^|[^A-Za-z0-9_.~])/(tmp|work|root|home)/")
    for name in listed.stdout.split():
        if Path(name).suffix in (".py", ".md", ".toml", ".yaml") and not name.startswith("tests/"):
            text = (ROOT / name).read_text(encoding="utf-8")
            assert not pattern.search(text), name
