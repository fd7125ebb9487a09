"""`audiotrain config diff A B`: the settings in which two runs differ."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiotrain.config.diff import differences, flat
from audiotrain.config.words import plain
from audiotrain.config.yaml_files import current_name, documents
from audiotrain.train.declarative.config import ALSO, PRESETS
from audiotrain.utils.errors import UserError

USAGE = "usage: audiotrain config diff A B [--json]   (run folders, or files of settings)"


def main(argv: Sequence[str]) -> int:
    """Run `config diff`: 0 when the settings are the same, 1 when they differ, 2 for a mistake."""
    words = [word for word in argv if word != "--json"]
    if "-h" in words or "--help" in words:
        print(USAGE)
        return 0
    if len(words) != 3 or words[0] != "diff":
        print(f"error: {USAGE}", file=sys.stderr)
        return 2
    try:
        first, second = read_settings(words[1]), read_settings(words[2])
    except UserError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    changed = differences(first, second)
    if "--json" in argv:
        print(json.dumps({name: list(pair) for name, pair in changed.items()}, indent=1))
    else:
        print(table(changed, words[1], words[2]))
    return 1 if changed else 0


def read_settings(path: str | Path) -> dict[str, Any]:
    """Settings of a run folder's config.yaml or of a file, with what it includes, by dotted name.

    ValueError lists every mistake, one line each.
    """
    problems: list[str] = []
    file = Path(path) / "config.yaml" if Path(path).is_dir() else Path(path)
    settings: dict[str, Any] = {}
    for document in documents(file, problems, PRESETS):
        for name, value in flat(plain(document.keys)).items():
            top, dot, rest = name.partition(".")
            name = ALSO.get(top, top) + dot + rest
            settings[current_name(name) if document.is_old else name] = value
    if problems:
        raise UserError("\n".join(problems))
    return settings


def table(changed: Mapping[str, tuple[Any, Any]], first: str, second: str) -> str:
    """The differences as columns of text."""
    if not changed:
        return "no setting differs"
    rows = [("setting", first, second)]
    rows += [(name, _cell(one), _cell(other)) for name, (one, other) in changed.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}" for row in rows)


def _cell(value: Any) -> str:
    """A value as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)
