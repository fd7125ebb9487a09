"""`--help`: every setting with its default and its sentence, as tyro prints them."""

import ast
import contextlib
import dataclasses
import inspect
import io
import re
import shutil
import textwrap
import typing
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from audiotrain.config.yaml_files import preset_names


def print_help(
    settings: type,
    values: Mapping[str, Any],
    prog: str | None,
    positional: str | None,
    presets: Path | None,
) -> None:
    """Print the docstring of a dataclass and its settings with the values that files and flags
    give them, by dotted name."""
    import tyro

    lines = [joined(settings.__doc__ or "")]
    if positional:
        lines.append(f"Words without a flag are --{positional}.")
    if names := preset_names(presets) if presets else []:
        lines.append(f"--preset NAME takes the settings of: {', '.join(names)}.")
    lines.append("--config FILE reads settings from YAML or JSON; flags come after both.")
    described = _described(settings, values, "")
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        tyro.cli(described, args=["--help"], prog=prog, description="\n".join(filter(None, lines)))
    width = shutil.get_terminal_size().columns
    for line in re.sub(r"\n{3,}", "\n\n", printed.getvalue()).splitlines():
        # tyro wraps all but the description.
        print(textwrap.fill(line, width, break_on_hyphens=False) if len(line) > width else line)


def print_commands(prog: str, commands: Mapping[str, str], note: str = "") -> None:
    """Print a program's commands with a phrase each, and a note below them."""
    width, column = shutil.get_terminal_size().columns, max(map(len, commands)) + 4
    print(f"usage: {prog} COMMAND [OPTIONS]\n")
    for name, phrase in commands.items():
        start = f"  {name}".ljust(column)
        print(textwrap.fill(start + phrase, width, subsequent_indent=" " * column))
    note = f"{note} {prog} COMMAND --help lists the options of a command."
    print(f"\n{textwrap.fill(note.strip(), width)}")


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, without its full stop.

    >>> first_sentence("Score a model\\n    on clips. Slowly.")
    'Score a model on clips'
    """
    return joined(text).split("\n\n")[0].partition(". ")[0].rstrip(".")


def joined(text: str) -> str:
    """Sentences without line breaks inside; an empty line stays.

    >>> joined("One sentence\\n    on two lines.")
    'One sentence on two lines.'
    """
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def field_docs(settings: type) -> dict[str, str]:
    """The sentence below each field of a dataclass, of those that it inherits too."""
    docs: dict[str, str] = {}
    for kind in filter(dataclasses.is_dataclass, reversed(settings.__mro__)):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(tree, ast.ClassDef)
        for pair in pairwise(tree.body):
            match pair:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    docs[name] = joined(text)
    return docs


def _described(settings: type, values: Mapping[str, Any], prefix: str) -> type:
    """A dataclass like `settings` with these values as defaults, and sentences for tyro."""
    import tyro

    docs, hints, fields = field_docs(settings), typing.get_type_hints(settings), []
    for field in (field for field in dataclasses.fields(settings) if field.init):
        name, hint, doc = prefix + field.name, hints[field.name], docs.get(field.name, "")
        default = dataclasses.field()
        if dataclasses.is_dataclass(hint):
            hint = _described(hints[field.name], values, f"{name}.")
        elif name in values:
            default = dataclasses.field(default_factory=partial(values.__getitem__, name))
        # No "(default: )" of an empty list, nor "(default: None)" where the sentence says what
        # None stands for.
        value = values.get(name, "")
        is_silent = value == () or (value is None and "default:" in doc)
        argument = tyro.conf.arg(help=doc, help_behavior_hint="" if is_silent else None)
        fields.append((field.name, Annotated[hint, argument], default))
    made = dataclasses.make_dataclass(settings.__name__, fields, kw_only=True)
    made.__doc__ = joined(settings.__doc__ or "")
    return made
