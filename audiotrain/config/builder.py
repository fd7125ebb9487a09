"""The settings of a dataclass, read from files and values; every mistake, with file and line.

A setting's name is dotted, `optimizer.learning_rate`; one of its groups is a dataclass of its own.
"""

import contextlib
import dataclasses
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from audiotrain.config.coerce import convert, describe, plain
from audiotrain.config.yaml_files import as_written, documents, written
from audiotrain.utils.text import nearest

REQUIRED = dataclasses.MISSING


class Leaf(NamedTuple):
    """One setting: its dotted name, the type that reads it, and its default or REQUIRED."""

    name: str
    kind: Any
    default: Any

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def leaves_of(settings: Any, prefix: str = "", instance: Any = None) -> list[Leaf]:
    """The settings of a dataclass and of those inside it, with the defaults of `instance`."""
    leaves = []
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        if not field.init:
            continue
        kind, default = hints[field.name], _default(field, instance)
        name = prefix + field.name
        if dataclasses.is_dataclass(kind):
            leaves += leaves_of(kind, f"{name}.", None if default is REQUIRED else default)
        else:
            describe(kind)  # a type that cannot be read is our mistake: say so at once
            leaves.append(Leaf(name, kind, default))
    return leaves


def _default(field: dataclasses.Field, instance: Any) -> Any:
    """A field's value in `instance`, without one its default or REQUIRED."""
    if instance is not None:
        return getattr(instance, field.name)
    return field.default if field.default_factory is REQUIRED else field.default_factory()


class Reading:
    """What was read so far: values by dotted name, where they were written, and every mistake."""

    def __init__(self, settings: Any, base: Any = None, also: Mapping[str, str] | None = None):
        self.settings, self.base, self.also = settings, base, also or {}
        self.leaves = {leaf.name: leaf for leaf in leaves_of(settings, instance=base)}
        self.values: dict[str, Any] = {}
        self.places: dict[str, str] = {}
        self.problems: list[str] = []

    def take_file(self, file: Path, presets: Path | None = None) -> None:
        """The values of a YAML or JSON file, and of those it includes."""
        for path, keys in documents(file, self.problems, presets):
            for key, (line, node) in keys.items():
                self._take_node(self.also.get(key, key), node, path, line)

    def _take_node(self, name: str, node: Any, file: Path, line: int) -> None:
        import yaml

        place = f"{file}:{line}"
        inner = [leaf for leaf in self.leaves if leaf.startswith(f"{name}.")]
        switch = f"{name}.enabled"  # a group that has it may be given as true or false
        if inner and isinstance(node, yaml.MappingNode):
            if switch in inner:
                self.values[switch] = True
            seen = set()
            for key, value in node.value:
                line = key.start_mark.line + 1
                if key.value in seen:
                    self.problems.append(f"{file}:{line}: key '{name}.{key.value}' is given twice")
                else:
                    self._take_node(f"{name}.{key.value}", value, file, line)
                seen.add(key.value)
        elif inner and switch not in inner:
            told = f"{name} holds settings of its own: {', '.join(inner)}"
            self.problems.append(f"{place}: {told}")
        elif not inner and name not in self.leaves:
            self.problems.append(f"{place}: unknown key {name!r}{nearest(name, self.leaves)}")
        else:
            self._put(switch if inner else name, written(node), f"{place}: {name}", place)

    def take_values(self, given: Mapping[str, Any], prefix: str = "") -> None:
        """Python values by dotted name, or by the last part of it where that is enough."""
        for key, value in given.items():
            name = self._full_name(f"{prefix}{key}")
            if name is None:
                continue
            inner = [leaf for leaf in self.leaves if leaf.startswith(f"{name}.")]
            if inner and isinstance(value, Mapping) or dataclasses.is_dataclass(value):
                if f"{name}.enabled" in inner:
                    self.values[f"{name}.enabled"] = True
                self.take_values(to_plain(value), f"{name}.")
                continue
            with reported(self.problems, name):
                ready = as_written(value)
                self._put(f"{name}.enabled" if inner else name, ready, name)

    def _full_name(self, name: str) -> str | None:
        top, dot, rest = name.partition(".")
        name = self.also.get(top, top) + dot + rest
        groups = {leaf.rpartition(".")[0] for leaf in self.leaves} - {""}
        known = [*self.leaves, *sorted(groups)]
        if name in known:
            return name
        found = [one for one in known if one.endswith(f".{name}")]
        if len(found) == 1:
            return found[0]
        told = f"could be {' or '.join(found)}: give one" if found else "no such setting"
        self.problems.append(f"{name}: {told}{'' if found else nearest(name, known)}")
        return None

    def _put(self, name: str, ready: Any, told: str, place: str | None = None) -> None:
        if name not in self.leaves:
            self.problems.append(f"{told}: found {plain(ready)!r}, expected settings of its own")
            return
        self.places.pop(name, None)
        with reported(self.problems, told):
            self.values[name] = convert(ready, self.leaves[name].kind)
            if place:
                self.places[name] = place

    def value(self, leaf: Leaf) -> Any:
        return self.values.get(leaf.name, leaf.default)

    def result(self) -> Any:
        """The instance; ValueError with every mistake, a line each."""
        missing = any(self.value(leaf) is REQUIRED for leaf in self.leaves.values())
        built = None if missing else self._make(self.settings, "", self.base)
        if self.problems:
            raise ValueError("\n".join(self.problems))
        return built

    def _make(self, kind: Any, prefix: str, base: Any) -> Any:
        """An instance of a dataclass from its leaves; None when it is refused. A group that is
        refused counts as its default while that which holds it is checked."""
        hints, parts = typing.get_type_hints(kind), {}
        for field in dataclasses.fields(kind):
            if not field.init:
                continue
            name, inner = prefix + field.name, hints[field.name]
            if dataclasses.is_dataclass(inner):
                default = _default(field, base)
                part = self._make(inner, f"{name}.", None if default is REQUIRED else default)
                part = default if part is None else part
            else:
                part = self.value(self.leaves[name])
            parts[field.name] = part
        if REQUIRED in parts.values():
            return None
        try:
            return kind(**parts)
        except ValueError as error:
            self.problems += [self._placed(line, prefix) for line in str(error).splitlines()]
            return None

    def _placed(self, line: str, prefix: str) -> str:
        """A refusal that begins with a setting's name, alone or dotted, after the file and line of
        that setting."""
        name = re.match(r"[\w.]*", line)[0]
        place = self.places.get(name) or self.places.get(prefix + name)
        return f"{place}: {line}" if place else line


def to_plain(value: Any) -> Any:
    """Dataclasses as dicts, tuples as lists, paths as text: what JSON and loggers take."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: to_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.init
        }
    if isinstance(value, Mapping):
        return {str(key): to_plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


@contextlib.contextmanager
def reported(problems: list[str], place: str):
    try:
        yield
    except ValueError as error:
        problems.append(f"{place}: {error}")
