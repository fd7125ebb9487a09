"""Settings: a frozen dataclass <- preset <- YAML or JSON file <- flags; what ran is saved again.

Every value, from a file or a flag, is text that the field's type reads, so `2e-5` is a number
everywhere. All mistakes are reported at once, one line each. tyro writes the help.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from audiotrain.files import replacing
from audiotrain.values import BOOLEANS, Scalar, convert, describe, is_sequence, nearest

Settings = TypeVar("Settings")

REQUIRED = dataclasses.MISSING
LIKE_NUMBER = re.compile(r"[+-]?\.?(\d.*|inf|infinity|nan)$", re.IGNORECASE)


class Leaf(NamedTuple):
    """One setting: its dotted name, the type that reads it, and its default or REQUIRED."""

    name: str
    kind: Any
    default: Any

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


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

    >>> @dataclasses.dataclass(frozen=True)
    ... class Run:
    ...     learning_rate: float = 1e-3
    ...     epochs: int = 10
    >>> load(Run, ["--learning-rate", "2e-5"])
    Run(learning_rate=2e-05, epochs=10)
    """
    leaves = {leaf.name: leaf for leaf in _leaves(settings)}
    problems: list[str] = []
    tokens, wants_help = _without_help(sys.argv[1:] if argv is None else argv)
    tokens, files = _take_files(tokens, presets, problems)
    values: dict[str, Any] = {}
    for file in files:
        values |= _read_file(file, leaves, problems)
    values |= _read_flags(tokens, leaves, positional, problems)
    missing = [leaf for leaf in leaves.values() if _value(leaf, values) is REQUIRED]
    if wants_help:
        defaults = None if missing or problems else _build(settings, values)
        words = f"Words without a flag are --{positional}." if positional else ""
        names = preset_names(presets) if presets else []
        _print_help(settings, defaults, prog, [description, words], names)
    problems += [f"{leaf.flag}: required, expected {describe(leaf.kind)}" for leaf in missing]
    if problems:
        raise ValueError("\n".join(problems))
    return _build(settings, values)


def save(settings: Any, path: str | os.PathLike) -> None:
    """Write every value of the dataclass instance as YAML, or JSON where `path` ends so.

    `load` with `--config path` gives an equal instance. The file appears whole or not at all.
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
    path, plain = Path(path), to_plain(settings)
    if path.suffix == ".json":
        text = json.dumps(plain, indent=2) + "\n"
    else:
        text = yaml.dump(
            plain, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
        )
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def to_plain(value: Any) -> Any:
    """Dataclasses as dicts, tuples as lists, paths as text: what JSON and loggers take."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: to_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.init
        }
    if isinstance(value, tuple | list):
        return [to_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


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


# --- the dataclass


def _leaves(settings: Any, prefix: str = "", instance: Any = None) -> list[Leaf]:
    """The settings of a dataclass and of those inside it, with the defaults of `instance`."""
    leaves = []
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        if not field.init:
            continue
        kind, default = hints[field.name], field.default
        if instance is not None:
            default = getattr(instance, field.name)
        elif field.default_factory is not REQUIRED:
            default = field.default_factory()
        name = prefix + field.name
        if dataclasses.is_dataclass(kind):
            leaves += _leaves(kind, f"{name}.", None if default is REQUIRED else default)
        else:
            describe(kind)  # a type that cannot be read is our mistake: say so at once
            leaves.append(Leaf(name, kind, default))
    return leaves


def _value(leaf: Leaf, values: Mapping[str, Any]) -> Any:
    return values.get(leaf.name, leaf.default)


def _build(settings: type[Settings], values: Mapping[str, Any]) -> Settings:
    tree: dict[str, Any] = {leaf.name: _value(leaf, values) for leaf in _leaves(settings)}

    def make(kind: Any, prefix: str) -> Any:
        hints = typing.get_type_hints(kind)
        fields = [field.name for field in dataclasses.fields(kind) if field.init]
        return kind(
            **{
                name: make(hints[name], f"{prefix}{name}.")
                if dataclasses.is_dataclass(hints[name])
                else tree[prefix + name]
                for name in fields
            }
        )

    return make(settings, "")


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
            expected = f"expected one of {', '.join(known)}"
            problems.append(f"--preset: no preset {name!r}{nearest(name, known)}, {expected}")
    return rest, files + [Path(name) for name in named["--config"]]


def preset_names(presets: Path) -> list[str]:
    """Names of the presets in a folder."""
    return sorted(file.stem for file in Path(presets).glob("*.yaml"))


def _read_file(file: Path, leaves: Mapping[str, Leaf], problems: list[str]) -> dict[str, Any]:
    """Dotted name -> value for each key of a YAML or JSON file; mistakes go to `problems`."""
    import yaml

    try:
        text = file.read_text(encoding="utf-8-sig")
        # YAML contains JSON, but for tabs between the tokens.
        root = yaml.compose(text.expandtabs() if file.suffix == ".json" else text)
    except OSError as error:
        problems.append(f"{file}: cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problems.append(f"{file}: not UTF-8 text (byte {error.start})")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problems.append(f"{file}:{line}: not valid YAML: {error.problem or error.context}")
    except yaml.YAMLError as error:
        problems.append(f"{file}: not valid YAML: {' '.join(str(error).split())}")
    else:
        if root is None:
            return {}
        if isinstance(root, yaml.MappingNode):
            return _read_mapping(root, "", file, leaves, problems)
        problems.append(f"{file}:1: expected lines of `key: value`")
    return {}


def _read_mapping(
    node: Any, prefix: str, file: Path, leaves: Mapping[str, Leaf], problems: list[str]
) -> dict[str, Any]:
    import yaml

    values: dict[str, Any] = {}
    seen = set()
    for key, value in node.value:
        place, name = f"{file}:{key.start_mark.line + 1}", f"{prefix}{key.value}"
        inside = any(leaf.startswith(f"{name}.") for leaf in leaves)
        if name in seen:
            problems.append(f"{place}: key {name!r} is given twice")
        elif inside and isinstance(value, yaml.MappingNode):
            values |= _read_mapping(value, f"{name}.", file, leaves, problems)
        elif inside:
            inner = [leaf for leaf in leaves if leaf.startswith(f"{name}.")]
            problems.append(f"{place}: {name} holds settings of its own: {', '.join(inner)}")
        elif name not in leaves:
            problems.append(f"{place}: unknown key {name!r}{nearest(name, leaves)}")
        else:
            with _reported(problems, f"{place}: {name}"):
                values[name] = convert(_written(value), leaves[name].kind)
        seen.add(name)
    return values


def _written(node: Any) -> Any:
    """A YAML node as a Scalar, a list of these, or a dict (which no setting takes)."""
    import yaml

    if isinstance(node, yaml.ScalarNode):
        # JSON writes a character beyond 16 bits as two halves, which YAML leaves apart.
        text = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return Scalar(text, node.style is not None, ("null", "Null", "NULL", "~", ""))
    if isinstance(node, yaml.SequenceNode):
        return [_written(part) for part in node.value]
    return {}


# --- flags


def _without_help(tokens: Sequence[str]) -> tuple[list[str], bool]:
    rest = [token for token in tokens if token not in ("-h", "--help")]
    return rest, len(rest) < len(tokens)


def _read_flags(
    tokens: Sequence[str],
    leaves: Mapping[str, Leaf],
    positional: str | None,
    problems: list[str],
) -> dict[str, Any]:
    """Dotted name -> value for each flag; mistakes go to `problems`."""
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
            problems.append(f"{token}: unknown flag{nearest(name, flags)}")
            at = end
            continue
        leaf, positive = flags[name]
        words = (
            [inline] if equals else tokens[at : min(end, at + _most_words(leaf, tokens[at:end]))]
        )
        at += 0 if equals else len(words)
        with _reported(problems, token):
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
            with _reported(problems, positional):
                return {positional: _flag_value(leaf, True, words)}
        else:
            words = words[count:]
    problems.extend(f"{word!r}: expected a flag (--name value) before it" for word in words)
    return {}


@contextlib.contextmanager
def _reported(problems: list[str], place: str):
    try:
        yield
    except ValueError as error:
        problems.append(f"{place}: {error}")


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
