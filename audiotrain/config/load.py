"""Settings: a frozen dataclass <- preset <- YAML or JSON file <- flags; what ran is saved again.

Files and flags are merged as plain values, then validated once by the dataclass's types, so that
all mistakes are reported at once, one line each.
"""

import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter

from audiotrain.config import flags
from audiotrain.config.help import print_help
from audiotrain.config.merge import REQUIRED, Merged
from audiotrain.config.yaml_files import VERSION, preset_file
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import write
from audiotrain.utils.text import nearest

Settings = TypeVar("Settings")

PLAIN: TypeAdapter = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="constants"))
HELP = ("-h", "--help")
FILE = Annotated[Path, Field(description="a file")]
PRESET = Annotated[str, Field(description="a name")]
QUOTED = re.compile(r"^[+-]?\.?(\d.*|inf|infinity|nan)$|[\x85\u2028\u2029]", re.IGNORECASE)


def load(
    settings: type[Settings],
    argv: Sequence[str] | None = None,
    presets: Path | None = None,
    prog: str | None = None,
    positional: str | None = None,
) -> Settings:
    """An instance of the dataclass `settings` from its defaults, `--preset NAME` (a YAML file in
    the folder `presets`), `--config FILE` (YAML or JSON) and flags, the later over the earlier.

    Nested dataclasses are nested keys and dotted flags (`--optimizer.learning-rate 2e-5`);
    tuples take several words; `positional` names the field that takes words without a flag.
    `--help` prints and exits. ValueError lists every mistake, one line each.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Run:
    ...     learning_rate: float = 1e-3
    ...     epochs: int = 10
    >>> load(Run, ["--learning-rate", "2e-5"])
    Run(learning_rate=2e-05, epochs=10)
    """
    words = sys.argv[1:] if argv is None else argv
    merged, old_flags = _merged(settings, words, presets, positional)
    if wants_help(words):
        print_help(settings, merged.checked()[1], prog, positional, presets)
        sys.exit(0)
    for flag, name in old_flags.items():
        print(f"warning: {flag} is called {flags.flag_of(name)} now", file=sys.stderr)
    return merged.result()


def stated(
    settings: type[Settings], argv: Sequence[str], names: Sequence[str], presets: Path | None = None
) -> dict[str, Any]:
    """What `load` would read of the settings `names`, whatever is missing or wrong of others.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Run:
    ...     data: str
    ...     epochs: int = 10
    >>> stated(Run, ["--epochs", "3", "--typo"], ["epochs"])
    {'epochs': 3}
    """
    values = _merged(settings, argv, presets, None)[0].values
    return {name: values.get(name, REQUIRED) for name in names}


def wants_help(argv: Sequence[str]) -> bool:
    """Whether `load` would print the settings and exit."""
    return any(token in HELP for token in argv)


def read(
    base: Settings,
    *values: Mapping[str, Any],
    files: Sequence[Path] = (),
    presets: Path | None = None,
    also: Mapping[str, str] | None = None,
) -> Settings:
    """The dataclass instance `base` with the settings of `files`, then `values`, over its own.

    `values` are Python's, by dotted name or the last part of it where that is enough; `also` has
    other names for top-level keys. ValueError lists every mistake, one line each.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Optimizer:
    ...     learning_rate: float = 1e-3
    >>> @dataclass(frozen=True)
    ... class Run:
    ...     optimizer: Optimizer = Optimizer()
    >>> read(Run(), {"learning_rate": 0.5})
    Run(optimizer=Optimizer(learning_rate=0.5))
    """
    merged = Merged(type(base), base, also)
    for file in files:
        merged.take_file(Path(file), presets)
    for mapping in values:
        merged.take(mapping)
    return merged.result()


def save(settings: Any, path: str | os.PathLike) -> None:
    """Write every value of the dataclass instance as YAML, or JSON where `path` ends so.

    `load` with `--config path` gives an equal instance. The file appears whole or not at all, in a
    folder that is made. ValueError when it cannot be written.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes text that would be read as a number, or whose characters YAML takes for the end
        of a line."""

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = '"' if QUOTED.search(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    content = {"version": VERSION} | to_plain(settings)
    text = json.dumps(content, indent=2) + "\n"
    if Path(path).suffix != ".json":
        text = yaml.dump(content, None, Dumper, sort_keys=False, allow_unicode=True, width=math.inf)
    write(path, text)


def to_plain(value: Any) -> Any:
    """Dataclasses as dicts, tuples as lists, paths as text: what JSON and loggers take."""
    return PLAIN.dump_python(value, mode="json")


def choose_command(
    argv: Sequence[str], commands: Sequence[str], default: str
) -> tuple[str, list[str]]:
    """The sub-command and its arguments; `default` when the first argument is a flag or missing.

    >>> choose_command(["--epochs", "3"], ("train", "predict"), "train")
    ('train', ['--epochs', '3'])
    """
    if not argv or argv[0].startswith("-"):
        return default, list(argv)
    if argv[0] not in commands:
        raise UserError(
            f"unknown command {argv[0]!r}{nearest(argv[0], commands)},"
            f" expected one of {', '.join(commands)}"
        )
    return argv[0], list(argv[1:])


def _merged(
    settings: type, argv: Sequence[str], presets: Path | None, positional: str | None
) -> tuple[Merged, dict[str, str]]:
    """Presets, then files, then flags over the defaults; settings by old flags that were used."""
    merged = Merged(settings)
    words = [word for word in argv if word not in HELP]
    files = {"config": FILE} if presets is None else {"preset": PRESET, "config": FILE}
    parsed = flags.parse(words, files | merged.hints, positional, merged.problems)
    for one in (one for name in files for one in parsed if one.name == name):
        try:
            file = Path(one.value.text)
            if one.name == "preset" and presets is not None:
                file = preset_file(one.value.text, presets)
            merged.take_file(file, presets)
        except UserError as error:
            merged.problems.append(f"--preset: {error}")
    for one in (one for one in parsed if one.name in merged.hints):
        merged.put(one.name, one.value, one.flag)
    return merged, {one.flag: one.name for one in parsed if one.is_old}
