"""Settings of a dataclass merged from files, flags and Python values, then validated at once."""

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from audiotrain.config.schema import describe, fit, refusals
from audiotrain.config.yaml_files import Document, current_name, documents
from audiotrain.utils.text import nearest

REQUIRED = dataclasses.MISSING


def leaves_of(settings: Any, instance: Any = None, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """(type, default or REQUIRED) of the settings of a dataclass and of those inside it, by dotted
    name; `instance` has other defaults."""
    leaves: dict[str, tuple[Any, Any]] = {}
    hints = typing.get_type_hints(settings, include_extras=True)
    for field in (field for field in dataclasses.fields(settings) if field.init):
        name, hint, default = prefix + field.name, hints[field.name], field.default
        if instance is not None:
            default = getattr(instance, field.name)
        elif field.default_factory is not REQUIRED:
            default = field.default_factory()
        if dataclasses.is_dataclass(hint):
            leaves |= leaves_of(hint, None if default is REQUIRED else default, f"{name}.")
        else:
            describe(hint)  # a type that cannot be read is our mistake: say so at once
            leaves[name] = hint, default
    return leaves


class Merged:
    """What was read so far: values by dotted name, where they were written, and every mistake."""

    def __init__(self, settings: Any, base: Any = None, also: Mapping[str, str] | None = None):
        self.settings, self.also = settings, also or {}
        self.leaves = leaves_of(settings, base)
        self.hints = {name: hint for name, (hint, _) in self.leaves.items()}
        parts = [name.split(".") for name in self.leaves]
        self.groups = {".".join(one[:end]) for one in parts for end in range(1, len(one))}
        self.values = {
            name: default for name, (_, default) in self.leaves.items() if default is not REQUIRED
        }
        self.places: dict[str, str] = {}
        self.problems: list[str] = []
        self.old_flags: list[Any] = []  # flags of version 1 that were given

    def take_file(self, file: Path, presets: Path | None = None) -> None:
        """The values of a YAML or JSON file, and of those it includes."""
        for document in documents(file, self.problems, presets):
            for key, value in document.keys.items():
                self._take(key, self.also.get(key, key), value, document)

    def _take(self, key: str, name: str, value: Any, document: Document) -> None:
        """The value of a dotted key of a file, which is the setting or group `name`."""
        place = document.places[key]
        if document.is_old and name not in self.leaves and name not in self.groups:
            name = current_name(name)
        inner = [leaf for leaf in self.leaves if leaf.startswith(f"{name}.")]
        if inner and isinstance(value, dict):
            self._enable(name)
            for last, part in value.items():
                self._take(f"{key}.{last}", f"{name}.{last}", part, document)
        elif name in self.leaves or f"{name}.enabled" in inner:
            self.put(name if name in self.leaves else f"{name}.enabled", value, place)
        elif inner:
            holds = f"{name} holds settings of its own: {', '.join(inner)}"
            self.problems.append(f"{place}: {holds}")
        else:
            self.problems.append(f"{place}: unknown key {name!r}{nearest(name, self.leaves)}")

    def take_values(self, values: Mapping[str, Any], prefix: str = "") -> None:
        """Python values by dotted name, or by the last part of it where that is enough."""
        for key, value in values.items():
            name = self._full_name(f"{prefix}{key}")
            if name is None:
                continue
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                value = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
            if name in self.groups and isinstance(value, Mapping):
                self._enable(name)
                self.take_values(value, f"{name}.")
            elif f"{name}.enabled" in self.leaves or name in self.leaves:
                self.put(name if name in self.leaves else f"{name}.enabled", value)
            else:
                self.problems.append(f"{name}: found {value!r}, expected settings of its own")

    def _enable(self, group: str) -> None:
        """Switch a group on that was given settings, if it has a switch."""
        if f"{group}.enabled" in self.leaves:
            self.values[f"{group}.enabled"] = True

    def _full_name(self, name: str) -> str | None:
        top, dot, rest = name.partition(".")
        name = self.also.get(top, top) + dot + rest
        known = [*self.leaves, *sorted(self.groups)]
        if name in known:
            return name
        ending = [one for one in known if one.endswith(f".{name}")]
        if len(ending) == 1:
            return ending[0]
        reason = f"could be {' or '.join(ending)}: give one" if ending else "no such setting"
        self.problems.append(f"{name}: {reason}{'' if ending else nearest(name, known)}")
        return None

    def put(self, name: str, value: Any, place: str = "") -> None:
        """A value of a setting over that which it has."""
        self.values[name] = fit(value, self.hints[name])
        self.places[name] = place

    def accepted(self) -> dict[str, Any]:
        """The values by dotted name, with the default of a setting whose value is refused."""
        names: list[str] = []
        try:
            TypeAdapter(self.settings).validate_python(_nested(self.values))
        except ValidationError as error:
            names = [one.name for one in refusals(error, self.hints, self.values)]
        return self._without(self.values, names)

    def result(self) -> Any:
        """The instance; ValueError with every mistake, a line each.

        What is refused counts as its default while the rest is checked.
        """
        values, lines = self.values, list(self.problems)
        adapter = TypeAdapter(self.settings)
        built = None
        while built is None:
            try:
                built = adapter.validate_python(_nested(values))
            except ValidationError as error:
                found = refusals(error, self.hints, values, self.places)
                is_first = values is self.values
                new = [one.line for one in found if is_first or not one.is_missing]
                lines += [line for line in new if line not in lines]
                before, values = values, self._without(values, [one.name for one in found])
                if values == before:
                    break
        if lines:
            raise ValueError("\n".join(lines))
        return built

    def _without(self, values: Mapping[str, Any], refused: list[str]) -> dict[str, Any]:
        """The values with the defaults of the settings, or of the groups, that are refused."""
        places = tuple(f"{name}." for name in refused if name)
        kept = {
            name: self.leaves[name][1] if f"{name}.".startswith(places) else value
            for name, value in values.items()
        }
        return {name: value for name, value in kept.items() if value is not REQUIRED}


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


def to_plain(value: Any) -> Any:
    """Dataclasses as dicts, tuples as lists, paths as text: what JSON and loggers take."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
