"""What the package imports is declared in pyproject.toml, and nothing that it does not use."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Import names of distributions that are called otherwise.
CALLED = {"scikit-learn": "sklearn", "pyyaml": "yaml", "pillow": "PIL", "mlflow-skinny": "mlflow"}


def imported(root: Path) -> dict[str, Path]:
    """Top-level names of other packages that the files below a folder import, and a file each."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            found |= {name.split(".")[0]: path for name in names}
    known = {"audiotrain", *sys.stdlib_module_names}
    return {name: path for name, path in found.items() if name not in known}


def declared(requirements: list[str]) -> set[str]:
    """The import names of requirements such as "numpy>=1.26"."""
    names = [re.match(r"[\w.-]+", one)[0].lower() for one in requirements]
    return {CALLED.get(name, name.replace("-", "_")) for name in names}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_what_is_imported_is_declared():
    extras = project()["optional-dependencies"]
    optional = set().union(*(declared(extras[name]) for name in ("cpu", "tensorboard", "mlflow")))
    found = imported(ROOT / "audiotrain")
    assert len(found) > 10
    missing = {name: str(path) for name, path in found.items()}
    for name in declared(project()["dependencies"]) | optional:
        missing.pop(name, None)
    assert missing == {}


def test_what_is_declared_is_imported():
    unused = declared(project()["dependencies"]) - set(imported(ROOT / "audiotrain"))
    assert unused == set()


def test_an_import_that_is_not_declared_is_found(tmp_path):
    (tmp_path / "a.py").write_text("import os, numpy.linalg\ndef f():\n    from PIL import Image\n")
    assert set(imported(tmp_path)) == {"numpy", "PIL"}
    assert declared(["Pillow>=10", "mlx[cpu]>=0.32", "scikit-learn"]) == {"PIL", "mlx", "sklearn"}
