"""What pydantic refuses, in a line for each setting: where, the value found, what was expected."""

import re
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union

from pydantic import ValidationError

from audiotrain.config.words import Word, alternatives, element_types
from audiotrain.utils import text
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import nearest

NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    NoneType: "null",
}
BOUNDS = {"ge": "{} or more", "gt": "more than {}", "lt": "less than {}", "le": "at most {}"}
EACH = "a list, each "
RANGES = ("greater_than", "less_than", "finite_number", "multiple_of")  # pydantic's error types


def describe(hint: Any) -> str:
    """What a value of this type looks like, in words; TypeError for one that no file can hold."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in NAMES:
        return NAMES[hint]
    if origin is Annotated:
        is_described = any(field.description for field in _fields(hint))
        kind = "" if is_described else describe(inner[0])
        return ", ".join(filter(None, (kind, allowed(hint))))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}" if len(inner) > 1 else str(inner[0])
    if origin in (Union, UnionType):
        return " or ".join(map(describe, inner))
    if origin is dict:
        return "keys and values"
    if origin is list or (origin is tuple and inner[-1] is ...):
        return f"{EACH}{describe(inner[0])}"
    if origin is tuple:
        return f"a list of {len(inner)}: {', '.join(map(describe, inner))}"
    if isinstance(hint, type) and is_dataclass(hint):
        return hint.__name__
    raise TypeError(f"settings of type {hint} cannot be read from files and flags")


def allowed(hint: Any) -> str:
    """The description in a type's Field, or the range of its numbers in words.

    >>> from audiotrain.config.schema import ShareBelowOne
    >>> allowed(ShareBelowOne)
    '0 or more and less than 1'
    """
    if typing.get_origin(hint) in (Union, UnionType):
        return next(filter(None, map(allowed, typing.get_args(hint))), "")
    limits: dict[str, Any] = {}
    for field in _fields(hint):
        if field.description:
            return field.description
        for limit in field.metadata:
            limits |= {name: getattr(limit, name) for name in BOUNDS if hasattr(limit, name)}
    if limits.keys() == {"ge", "le"}:
        return "{ge} to {le}".format(**limits)
    return " and ".join(BOUNDS[name].format(limits[name]) for name in BOUNDS if name in limits)


def _fields(hint: Any) -> list:
    return [one for one in typing.get_args(hint)[1:] if hasattr(one, "description")]


def raise_bug(error: ValidationError) -> None:
    """Raise the exception of a check of our own that is no UserError: pydantic takes any ValueError
    and AssertionError of a check for a refusal."""
    for one in error.errors(include_url=False):
        cause = one.get("ctx", {}).get("error")
        if isinstance(cause, Exception) and not isinstance(cause, UserError):
            raise cause


def refusals(
    error: ValidationError,
    hints: Mapping[str, Any],
    values: Mapping[str, Any],
    places: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[str, str]]:
    """(setting or group of settings, line) of the mistakes that pydantic found, one a setting.

    `hints` are types by dotted name, `values` what was validated, `places` the files' lines and the
    flags that set them.
    """
    found: dict[str, tuple[str, str]] = {}
    for one in error.errors(include_url=False):
        path, kind = one["loc"], one["type"]
        names = [".".join(map(str, path[:end])) for end in range(len(path), 0, -1)]
        name = next((name for name in names if name in hints), names[0] if names else "")
        is_element = bool(path) and isinstance(path[-1], int)
        if kind == "value_error":  # of a dataclass's __post_init__, or of a type's own check
            for line in str(one["ctx"]["error"]).splitlines():
                if name in hints and not line.startswith(name.rpartition(".")[2]):
                    number = f"number {int(path[-1]) + 1}: " if is_element else ""
                    line = f"{name}: {number}{line}"
                found[line] = name, _placed(line, name, places)
        elif kind == "unexpected_keyword_argument":
            found[name] = name, f"{name}: no such setting{nearest(name, hints)}"
        elif name not in values:
            flag = f"--{name.replace('_', '-')}"
            found[name] = name, f"{flag}: required, expected {describe(hints[name])}"
        elif name not in found or kind.startswith(RANGES):
            hint, value, place = hints[name], values[name], places.get(name, "")
            line = ""
            if is_element and describe(hint).startswith(EACH):
                hint, value = (element_types(hint, 1) or [hint])[0], one["input"]
                if place.startswith("-") and "," in getattr(value, "text", ""):
                    line = ", separated by spaces"
            found[name] = name, _refusal(kind, name, hint, value, place) + line
    return list(found.values())


def nothing_follows(label: str, hint: Any) -> str:
    """The line for a flag without its value; None, which no word means, is not offered."""
    kinds = describe(hint).removesuffix(" or null")
    return f"{label}: nothing follows, expected {kinds}"


def _refusal(kind: str, name: str, hint: Any, value: Any, place: str) -> str:
    """The line for a value that pydantic refuses with an error of this kind."""
    label = _label(name, place)
    if kind.startswith(RANGES):
        return f"{label}={text.shown(str(value))}, expected {allowed(hint)}"
    if kind == "too_short":
        return nothing_follows(label, hint)
    literals = [one for one in alternatives(hint) if typing.get_origin(one) is Literal]
    choices = [str(choice) for one in literals for choice in typing.get_args(one)]
    hinted = nearest(value.text, choices) if isinstance(value, Word) else ""
    return f"{label}: found {shown(value)}, expected {describe(hint)}{hinted}"


def _placed(line: str, group: str, places: Mapping[str, str]) -> str:
    """A dataclass's own refusal with the place of the setting that it begins with, or of another
    one that it states, such as blocks in `pools=2, expected at most blocks=1`."""
    name = re.split(r"[^\w.]", line, maxsplit=1)[0]
    if place := places.get(name) or places.get(f"{group}.{name}"):
        return _label(name, place) + line[len(name) :]
    for other in re.findall(r"([\w.]+)=", line):
        if place := places.get(other) or places.get(f"{group}.{other}"):
            return f"{place}: {line}"
    return f"{places[group]}: {line}" if places.get(group) else line


def _label(name: str, place: str) -> str:
    """A setting with its place: its flag, or a file's line and the name."""
    if place.startswith("-"):
        return place
    return f"{place}: {name}" if place else name


def shown(value: Any) -> str:
    """A value as messages quote it, on one line and not too long."""
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list | tuple):
        return text.shown(f"[{', '.join(str(getattr(part, 'text', part)) for part in value)}]")
    return text.shown(repr(getattr(value, "text", value)))
