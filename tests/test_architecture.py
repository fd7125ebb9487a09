"""The layout: ten packages, imports that go down, a map in each package's `__init__.py`."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "audiotrain"
# A file imports its own package and those of a lower rank.
RANKS = {
    "utils": 0,
    "backend": 1,
    "config": 1,
    "music": 1,
    "features": 2,
    "train": 3,
    "datasets": 3,
    "models": 3,
    "evaluation": 4,
    "recipes": 5,
}
# Though of a lower rank: the Trainer knows arrays, and nothing of audio or music.
FORBIDDEN = {"train": {"features", "music"}}
# Recipes import what they share; this is all that one takes from another.
SIDEWAYS = {("recipes.classify", "recipes.clap.embedder")}


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Dotted names of a package's modules below it; "" is the package itself."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, files: dict[str, Path]) -> set[str]:
    """Modules of the package that a module imports, those for type checkers left out."""
    tree = ast.parse(files[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{name}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for words in (each.split(".")[1:] for each in names if each.startswith("audiotrain.")):
            while words and ".".join(words) not in files:
                words = words[:-1]
            found.add(".".join(words))
    return found - {name}


def violations(files: dict[str, Path]) -> list[str]:
    """Imports that go up or sideways, one line each."""
    found = []
    for name in files:
        package = name.split(".")[0]
        for other in sorted(imports(name, files)):
            target = other.split(".")[0]
            if package not in RANKS or target not in RANKS:
                continue  # the package's own __init__ and __main__
            if package == target:
                folder, theirs = (".".join(each.split(".")[:2]) for each in (name, other))
                goes_sideways = package == "recipes" and theirs not in (folder, "recipes.common")
                is_wrong = goes_sideways and (folder, other) not in SIDEWAYS
            else:
                is_upwards = RANKS[target] >= RANKS[package]
                is_wrong = is_upwards or target in FORBIDDEN.get(package, ())
            if is_wrong:
                found.append(f"{name} imports {other}")
    return found


def circle(files: dict[str, Path]) -> list[str]:
    """Modules that import each other in a circle; empty where there is none."""
    graph = {name: imports(name, files) for name in files}
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in graph if (found := visit(name, []))), [])


def test_the_package_holds_ten_packages_and_three_files():
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__", "pretrained"}
    assert entries == {"__init__.py", "__main__.py", "py.typed", *RANKS}


def test_imports_go_down():
    files = modules()
    assert len(files) > 140
    assert violations(files) == []


# Settings, state and optimization of a run: each is defined in one place.
HOMES = {
    "TrainerConfig": "train.declarative.config",
    "OptimizerSettings": "train.declarative.config",
    "SchedulerSettings": "train.declarative.config",
    "get_trainer_config": "train.declarative.config",
    "TrainerArguments": "train.arguments",
    "configured_optimizer": "train.declarative.optimizers",
    "parameter_groups": "train.optimizers",
    "WarmupCosineScheduler": "train.schedulers",
    "TrainStep": "train.engine.steps",
    "restore": "train.trainer_state",
    "Trainer": "train.trainer",
}


def test_settings_state_and_optimization_have_one_place_each():
    found: dict[str, list[str]] = {name: [] for name in HOMES}
    for module, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in found:
                found[node.name].append(module)
    assert found == {name: [home] for name, home in HOMES.items()}


def test_no_modules_import_each_other_in_a_circle():
    assert circle(modules()) == []


def test_an_import_upwards_sideways_or_in_a_circle_is_found(tmp_path):
    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("utils/files.py", "")
    write("utils/text.py", "def f():\n    from audiotrain.train.trainer import Trainer\n")
    write("train/trainer.py", "from audiotrain.utils import text\nimport audiotrain.music.segments")
    write("music/segments.py", "from audiotrain.utils.files import write")
    write("recipes/clap/embedder.py", "")
    write("recipes/classify/dataset.py", "from audiotrain.recipes.clap.embedder import Embedder")
    write("recipes/chords/dataset.py", "from audiotrain.recipes.clap import embedder")
    files = modules(tmp_path)
    assert violations(files) == [
        "recipes.chords.dataset imports recipes.clap.embedder",
        "train.trainer imports music.segments",
        "utils.text imports train.trainer",
    ]
    assert circle(files) == ["train.trainer", "utils.text", "train.trainer"]


@pytest.mark.parametrize("name", [name for name, path in modules().items() if name])
def test_a_file_says_what_it_is(name):
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{name}: no docstring"


PACKAGES = [name for name, path in modules().items() if path.name == "__init__.py"]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_opens_with_the_map_of_its_files(name):
    path = modules()[name]
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    listed = re.findall(r"^ *(\w+)(?:\.py|/) ", text, re.MULTILINE)
    folder = {each.stem for each in path.parent.glob("*.py") if each.stem != "__init__"}
    folder |= {each.parent.name for each in path.parent.glob("*/__init__.py")}
    assert sorted(folder - {"__main__"}) == sorted(name for name in listed if name != "__main__")


def test_optional_libraries_are_imported_only_when_used():
    late = ["wandb", "tensorboard", "mlflow", "matplotlib", "librosa", "torch", "pretty_midi"]
    code = (
        "import sys, audiotrain, audiotrain.recipes.chords, audiotrain.recipes.chords.commands\n"
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
