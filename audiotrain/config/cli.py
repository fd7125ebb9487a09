"""Settings: a frozen dataclass <- preset <- YAML or JSON file <- flags; what ran is saved again.

Every value, from a file or a flag, is text that the field's type reads, so `2e-5` is a number
everywhere. All mistakes are reported at once, one line each. tyro writes the help.
"""

import itertools
import json
import os
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from audiotrain.config.builder import REQUIRED, Leaf, Reading, reported, to_plain
from audiotrain.config.coerce import BOOLEANS, Scalar, convert, describe, is_sequence
from audiotrain.config.yaml_files import VERSION, no_preset, preset_names
from audiotrain.utils.files import write
from audiotrain.utils.text import nearest

Settings = TypeVar("Settings")

HELP = ("-h", "--help")
LIKE_NUMBER = re.compile(r"[+-]?\.?(\d.*|inf|infinity|nan)$", re.IGNORECASE)


def load(
    settings: type[Settings],
    argv: Sequence[str] | None = None,
    presets: Path | None = None,
    prog: str | None = None,
    description: str = "",
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
    reading = _read(settings, words, presets, positional)
    leaves = reading.leaves.values()
    missing = [leaf for leaf in leaves if reading.value(leaf) is REQUIRED]
    if wants_help(words):
        defaults = None if missing or reading.problems else reading.result()
        bare = f"Words without a flag are --{positional}." if positional else ""
        names = preset_names(presets) if presets else []
        _print_help(settings, defaults, prog, [description, bare], names)
    reading.problems += [
        f"{leaf.flag}: required, expected {describe(leaf.kind)}" for leaf in missing
    ]
    return reading.result()


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
    reading = _read(settings, argv, presets, None)
    return {name: reading.value(reading.leaves[name]) for name in names}


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
    reading = Reading(type(base), base, also)
    for file in files:
        reading.take_file(Path(file), presets)
    for given in values:
        reading.take_values(given)
    return reading.result()


def save(settings: Any, path: str | os.PathLike) -> None:
    """Write every value of the dataclass instance as YAML, or JSON where `path` ends so.

    `load` with `--config path` gives an equal instance. The file appears whole or not at all, in a
    folder that is made. ValueError when it cannot be written.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes text that we, other than YAML 1.1, would read as a number."""

    def quoted(dumper, text: str):
        """In double quotes where YAML would take a character for the end of a line."""
        style = '"' if set(text) & set("\x85\u2028\u2029") else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", LIKE_NUMBER, None)
    Dumper.add_representer(str, quoted)
    path, content = Path(path), {"version": VERSION} | to_plain(settings)
    if path.suffix == ".json":
        text = json.dumps(content, indent=2) + "\n"
    else:
        text = yaml.dump(
            content, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
        )
    write(path, text)


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
        raise ValueError(
            f"unknown command {argv[0]!r}{nearest(argv[0], commands)},"
            f" expected one of {', '.join(commands)}"
        )
    return argv[0], list(argv[1:])


def _read(
    settings: type[Settings], argv: Sequence[str], presets: Path | None, positional: str | None
) -> Reading:
    """Files, then flags, over the defaults, with every mistake."""
    reading = Reading(settings)
    tokens = [token for token in argv if token not in HELP]
    tokens, files = _take_files(tokens, presets, reading.problems)
    for file in files:
        reading.take_file(file, presets)
    general = ["--config", "--help", *["--preset"] * (presets is not None)]
    found = _read_flags(tokens, reading.leaves, positional, reading.problems, general)
    for name, value in found.items():
        reading.values[name] = value
        reading.places.pop(name, None)
    return reading


# --- files


def _take_files(
    tokens: list[str], presets: Path | None, problems: list[str]
) -> tuple[list[str], list[Path]]:
    """The tokens without --preset and --config, and the files these name, presets first."""
    rest: list[str] = []
    named: dict[str, list[str]] = {"--preset": [], "--config": []}
    remaining = iter(tokens)
    while (token := next(remaining, None)) is not None:
        flag, equals, value = token.partition("=")
        if flag not in named or (flag == "--preset" and presets is None):
            rest.append(token)
            continue
        value = value if equals else next(remaining, "")
        if value and not value.startswith("--"):
            named[flag].append(value)
            continue
        problems.append(f"{flag}: expected {'a name' if flag == '--preset' else 'a file'}")
        remaining = itertools.chain([value] if value else [], remaining)
    files = []
    known = preset_names(presets) if presets else []
    for name in named["--preset"]:
        if name in known:
            files.append(Path(presets) / f"{name}.yaml")
        else:
            problems.append(f"--preset: {no_preset(name, known)}")
    return rest, files + [Path(name) for name in named["--config"]]


# --- flags


def _read_flags(
    tokens: Sequence[str],
    leaves: Mapping[str, Leaf],
    positional: str | None,
    problems: list[str],
    general: Sequence[str],
) -> dict[str, Any]:
    """Dotted name -> value for each flag; mistakes go to `problems`, with the flag that is most
    like an unknown one, `general` ones too."""
    flags = {leaf.flag: (leaf, True) for leaf in leaves.values()}
    for leaf in leaves.values():
        if leaf.kind is bool:
            outer, _, last = leaf.flag[2:].rpartition(".")
            flags[f"--{outer + '.' if outer else ''}no-{last}"] = (leaf, False)
    values: dict[str, Any] = {}
    bare: list[str] = []
    at = 0
    while at < len(tokens):
        token, equals, inline = tokens[at].partition("=")
        at += 1
        if not _is_flag(token):
            bare.append(tokens[at - 1])
            continue
        end = at
        while end < len(tokens) and not _is_flag(tokens[end]):
            end += 1
        name = token.replace("_", "-")
        if name not in flags:
            problems.append(f"{token}: unknown flag{nearest(name, [*flags, *general])}")
            at = end
            continue
        leaf, positive = flags[name]
        words = (
            [inline] if equals else tokens[at : min(end, at + _most_words(leaf, tokens[at:end]))]
        )
        at += 0 if equals else len(words)
        with reported(problems, token):
            values[leaf.name] = _flag_value(leaf, positive, words)
    if bare:
        values |= _positional(bare, leaves, positional, problems)
    return values


def _is_flag(token: str) -> bool:
    return len(token) > 1 and token[0] == "-" and not re.match(r"-(\d|\.\d|inf)", token)


def _most_words(leaf: Leaf, words: Sequence[str]) -> int:
    if is_sequence(leaf.kind):
        return len(words)
    return 1 if leaf.kind is not bool or words[:1] and words[0].lower() in BOOLEANS else 0


def _flag_value(leaf: Leaf, positive: bool, words: Sequence[str]) -> Any:
    scalars = [Scalar(word) for word in words]
    if leaf.kind is bool:
        return (convert(scalars[0], bool) if scalars else True) == positive
    if is_sequence(leaf.kind):
        if type(None) in typing.get_args(leaf.kind) and list(words) in (["None"], ["none"]):
            return None
        return convert(scalars, leaf.kind)
    if not scalars:
        raise ValueError(f"nothing follows, expected {describe(leaf.kind)}")
    return convert(scalars[0], leaf.kind)


def _positional(
    words: list[str], leaves: Mapping[str, Leaf], positional: str | None, problems: list[str]
) -> dict[str, Any]:
    """The value of the field `positional` from words that follow no flag."""
    if positional is not None:
        leaf = leaves[positional]
        count = len(words) if is_sequence(leaf.kind) else 1
        if len(words) <= count:
            with reported(problems, positional):
                return {positional: _flag_value(leaf, True, words)}
        else:
            words = words[count:]
    problems.extend(f"{word!r}: expected a flag (--name value) before it" for word in words)
    return {}


def _print_help(
    settings: Any, defaults: Any, prog: str | None, lines: list[str], presets: Sequence[str]
) -> None:
    import tyro

    if presets:
        lines.append(f"--preset NAME takes the settings of: {', '.join(presets)}.")
    lines.append("--config FILE reads settings from YAML or JSON; flags come after both.")
    known = {} if defaults is None else {"default": defaults}
    text = "\n".join(line for line in lines if line)
    tyro.cli(settings, args=["--help"], prog=prog, description=text, **known)
