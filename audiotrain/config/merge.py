"""Settings of a dataclass merged from files, flags and Python values, then validated at once."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from audiotrain.config.refusals import describe, refusals, shown
from audiotrain.config.words import fit
from audiotrain.config.yaml_files import Key, current_name, documents
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import nearest

REQUIRED = dataclasses.MISSING


def leaves_of(settings: Any, base: Any = None, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, type, default or REQUIRED) of the settings of a dataclass and of those inside
    it; the instance `base` has other defaults."""
    hints = typing.get_type_hints(settings, include_extras=True)
    for field in (field for field in dataclasses.fields(settings) if field.init):
        name, hint, default = prefix + field.name, hints[field.name], field.default
        if base is not None:
            default = getattr(base, field.name)
        elif field.default_factory is not REQUIRED:
            default = field.default_factory()
        if dataclasses.is_dataclass(hint):
            yield from leaves_of(hint, None if default is REQUIRED else default, f"{name}.")
        else:
            describe(hint)  # a type that cannot be read is our mistake: say so at once
            yield name, hint, default


class Merged:
    """What was read so far: values by dotted name, where they were written, and every mistake."""

    def __init__(self, settings: Any, base: Any = None, also: Mapping[str, str] | None = None):
        self.settings, self.also = settings, also or {}
        leaves = list(leaves_of(settings, base))
        self.hints = {name: hint for name, hint, _ in leaves}
        self.defaults = {name: value for name, _, value in leaves if value is not REQUIRED}
        parts = [name.split(".") for name in self.hints]
        self.groups = {".".join(one[:end]) for one in parts for end in range(1, len(one))}
        self.values = dict(self.defaults)
        self.places: dict[str, str] = {}
        self.problems: list[str] = []
        self.taken: set[str] = set()  # settings of the file that is read

    def take_file(self, file: Path, presets: Path | None = None) -> None:
        """Take the values of a YAML or JSON file, and of those it includes."""
        for document in documents(file, self.problems, presets):
            self.taken = set()
            self.take(document.keys, is_old=document.is_old)

    def take(self, values: Mapping[Any, Any], group: str = "", is_old: bool = False) -> None:
        """Take values by dotted name; Python's also by its last part where that is unambiguous."""
        known = [*self.hints, *sorted(self.groups)]
        for key, value in values.items():
            place = key.place if isinstance(key, Key) else ""
            top, dot, rest = f"{group}{key}".partition(".")
            name = self.also.get(top, top) + dot + rest
            if is_old and name not in known:
                name = current_name(name)
            ending = [] if place else [one for one in known if one.endswith(f".{name}")]
            if name not in known and len(ending) == 1:
                name = ending[0]
            inner = [leaf for leaf in self.hints if leaf.startswith(f"{name}.")]
            switch = f"{name}.enabled"
            if inner and dataclasses.is_dataclass(value) and not place:
                value = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
            if inner and isinstance(value, Mapping):
                if switch in inner:
                    self.values[switch] = True
                self.take(value, f"{name}.", is_old)
            elif name in self.hints or switch in inner:
                if place and name in self.taken:  # as `a.b` and inside `a`, or by its old name, too
                    self.problems.append(f"{place}: key {name!r} is given twice")
                self.taken.add(name)
                self.put(name if name in self.hints else switch, value, place)
            else:
                problem = f"no such setting{nearest(name, known)}"
                if inner:
                    holds = f"expected settings of its own: {', '.join(inner)}"
                    problem = f"found {shown(value)}, {holds}"
                elif ending:
                    problem = f"could be {' or '.join(ending)}: give one"
                self.problems.append(f"{f'{place}: ' if place else ''}{name}: {problem}")

    def put(self, name: str, value: Any, place: str = "") -> None:
        """Replace the value of a setting."""
        self.values[name] = fit(value, self.hints[name])
        self.places[name] = place

    def checked(self) -> tuple[Any, dict[str, Any], list[str]]:
        """The instance (None where it is refused), the values that are accepted, every mistake.

        What is refused counts as its default while the rest is checked.
        """
        adapter, values, lines = TypeAdapter(self.settings), self.values, list(self.problems)
        while True:
            try:
                return adapter.validate_python(_nested(values)), values, lines
            except ValidationError as error:
                found = refusals(error, self.hints, values, self.places)
            lines += [line for _, line in found if line not in lines]
            refused = tuple(f"{name}." for name, _ in found if name)
            kept = {k: v for k, v in values.items() if not f"{k}.".startswith(refused)}
            before, values = values, self.defaults | kept
            if values == before or values.keys() != self.hints.keys():
                return None, values, lines

    def result(self) -> Any:
        """The instance; ValueError with every mistake, a line each."""
        instance, _, lines = self.checked()
        if lines:
            raise UserError("\n".join(lines))
        return instance


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as dicts in dicts."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return nested
