"""Names, flags and variables of 26c7216 still work, or CHANGELOG.md names their successors.

tests/fixtures/interface-26c7216.json lists the modules, the Python names of README and examples,
the flags of every command, and the environment variables.
"""

import contextlib
import fnmatch
import json
import re
from pathlib import Path

import pytest
from test_documents import resolve

from audiotrain.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
INTERFACE = json.loads((ROOT / "tests" / "fixtures" / "interface-26c7216.json").read_text("utf-8"))
ROW = re.compile(r"^\| `([^`]+)` \| (?:`([^`]+)`)?(.*) \|$", re.MULTILINE)


def successors(section: str) -> dict[str, str]:
    """Old name -> new name of the tables in a section of CHANGELOG.md; "" where there is none."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    body = text.split(f"\n### {section}\n")[1].split("\n## ")[0].split("\n### ")[0]
    return {old: new for old, new, _ in ROW.findall(body)}


def exists(name: str) -> bool:
    try:
        return resolve(name) is not None
    except (ImportError, AttributeError, ValueError):
        return False


def lost(names: list[str], renamed: dict[str, str]) -> list[str]:
    """Names that neither exist nor have a successor that does."""
    return [name for name in names if not exists(name) and not exists(renamed.get(name, "-"))]


def test_modules_and_names_exist_or_have_a_successor():
    renamed = successors("Python names")
    modules = {old: new for old, new in renamed.items() if old in INTERFACE["modules"]}
    assert len(modules) > 80
    assert lost(INTERFACE["modules"], renamed) == []
    for name in INTERFACE["names"]:  # a name goes with its module, unless it has a row of its own
        module, _, attribute = name.rpartition(".")
        renamed.setdefault(name, f"{modules.get(module, module)}.{attribute}")
    assert lost(INTERFACE["names"], renamed) == []


def test_every_successor_of_a_python_name_exists():
    assert [new for new in successors("Python names").values() if new and not exists(new)] == []


def test_a_name_without_a_successor_is_found():
    assert lost(["audiotrain.harmony", "audiotrain.Trainer"], {}) == ["audiotrain.harmony"]
    assert lost(["audiotrain.harmony"], {"audiotrain.harmony": "audiotrain.nowhere"}) != []


@pytest.mark.parametrize("command", INTERFACE["commands"])
def test_flags_are_accepted_or_have_a_successor(command, capsys):
    with contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    offered = set(re.findall(r"--[a-z][\w.-]*\w", capsys.readouterr().out))
    renamed = successors("Flags and settings")
    expected = {flag: successor(flag, renamed) for flag in INTERFACE["commands"][command]}
    missing = {old: new for old, new in expected.items() if new not in offered}
    assert missing == {}


def successor(flag: str, renamed: dict[str, str]) -> str:
    """A flag's name today; rows may rename a group, as `--old.*` to `--new.*`.

    >>> successor("--old.rate", {"--old.*": "--new.*"}), successor("--seed", {})
    ('--new.rate', '--seed')
    """
    if flag in renamed:
        return renamed[flag]
    for old, new in renamed.items():
        if fnmatch.fnmatchcase(flag, old):
            return new.removesuffix("*") + flag.removeprefix(old.removesuffix("*"))
    return flag


def test_variables_are_read_or_have_a_successor():
    renamed = {old.split("=")[0] for old in successors("Environment variables")}
    code = "".join(path.read_text("utf-8") for path in ROOT.glob("audiotrain/**/*.py"))
    for variable in INTERFACE["variables"]:
        assert variable in renamed or f'"{variable}"' in code, variable
