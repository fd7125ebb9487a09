"""Settings dataclasses whose types say what a value may be, checked by pydantic.

A value of a file or a flag is a `Word`: text that the setting's type reads, so `2e-5` is a number
everywhere, and `2024` is text where text or a path is wanted.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from audiotrain.utils.text import nearest

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
InnerShare = Annotated[float, Field(gt=0, lt=1)]

BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "null",
}
BOUNDS = {"ge": "{} or more", "gt": "more than {}", "lt": "less than {}", "le": "at most {}"}
EACH = "a list, each "
RANGES = ("greater_than", "less_than", "finite_number", "multiple_of")  # pydantic's error types
T = TypeVar("T")


@typing.overload
def validated(kind: type[T]) -> type[T]: ...
@typing.overload
def validated(*, kw_only: bool = ...) -> Callable[[type[T]], type[T]]: ...
@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def validated(kind=None, *, kw_only=False):
    """A frozen dataclass that refuses values which its types do not allow.

    ValueError lists all of them, one line each.

    >>> @validated
    ... class Run:
    ...     steps: PositiveInt = 700
    >>> Run(steps=0)
    Traceback (most recent call last):
        ...
    ValueError: steps=0, expected 1 or more
    """
    if kind is None:
        return lambda kind: validated(kind, kw_only=kw_only)
    options = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    made = pydantic_dataclass(config=options, frozen=True, kw_only=kw_only)(kind)
    check = made.__init__

    def __init__(self, *args, **kwargs):
        try:
            hints = typing.get_type_hints(made, include_extras=True)
            positional = [field.name for field in dataclasses.fields(made) if not field.kw_only]
            values = dict(zip(positional, args, strict=False)) | kwargs
            values = {k: fit(v, hints[k]) if k in hints else v for k, v in values.items()}
            check(self, *args[len(positional) :], **values)
        except ValidationError as error:
            lines = [one.line for one in refusals(error, hints, values)]
            raise ValueError("\n".join(lines)) from None

    made.__init__ = __init__
    return made


@dataclasses.dataclass(frozen=True)
class Word:
    """A value as it was written; `nulls` are the words for None there: YAML's or a shell's."""

    text: str
    quoted: bool = False
    nulls: tuple[str, ...] = ("None", "none", "null")


def fit(value: Any, hint: Any) -> Any:
    """`value` (Word, list or dict of these, or Python's) as the type asks for it; what does not fit
    stays a Word, which pydantic refuses."""
    kinds = list(_alternatives(hint))
    if isinstance(value, Mapping):
        return plain(value) if any(typing.get_origin(kind) is dict for kind in kinds) else value
    if isinstance(value, list | tuple):
        for kind in kinds:
            elements = element_types(kind, len(value))
            if elements is not None:
                parts = (fit(part, one) for part, one in zip(value, elements, strict=True))
                return typing.get_origin(kind)(parts)
        return value
    word = as_word(value)
    return next(_readings(word, kinds), word) if isinstance(word, Word) else value


def as_word(value: Any) -> Any:
    """A Python boolean, number, text or path as a Word; anything else as it is."""
    if isinstance(value, bool):
        return Word(str(value).lower(), nulls=())
    if isinstance(value, str | Path):
        return Word(str(value), quoted=True)
    if hasattr(value, "__float__") and not isinstance(value, Word):
        return Word(str(value), nulls=())
    return value


def plain(value: Any) -> Any:
    """Words as what they look like: null, true, numbers, text, and lists and dicts of these.

    >>> plain({"rates": [Word("2e-5"), Word("none"), Word("5", quoted=True)]})
    {'rates': [2e-05, None, '5']}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, Word):
        return fit(value, bool | int | float | str | None)
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def _readings(word: Word, kinds: list) -> Iterator[Any]:
    """The values that a word may be, the likeliest first."""
    text = word.text
    for kind in kinds:
        if typing.get_origin(kind) is Literal:
            yield from (choice for choice in typing.get_args(kind) if str(choice) == text)
    if not word.quoted:
        if type(None) in kinds and text in word.nulls:
            yield None
        if bool in kinds and text.lower() in BOOLEANS:
            yield BOOLEANS[text.lower()]
        if int in kinds and re.fullmatch(r"[+-]?\d+(_\d+)*", text):
            yield int(text)
        if float in kinds:
            try:
                yield float(re.sub(r"^([+-]?)\.(inf|nan)$", r"\1\2", text.lower()))
            except ValueError:
                pass
    if Path in kinds and text:
        yield Path(text)
    if str in kinds:
        yield text


def _alternatives(hint: Any) -> Iterator[Any]:
    """The types of a union, however nested, without their annotations."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _alternatives(part)
    elif typing.get_origin(hint) is Annotated:
        yield from _alternatives(typing.get_args(hint)[0])
    else:
        yield hint


def element_types(hint: Any, count: int) -> list | None:
    """The types of a sequence's elements; None where the type is none of `count` elements."""
    for kind in _alternatives(hint):
        inner = typing.get_args(kind)
        if typing.get_origin(kind) is list or (kind is not tuple and inner[-1:] == (...,)):
            return [inner[0]] * count
        if typing.get_origin(kind) is tuple and len(inner) == count:
            return list(inner)
    return None


def is_sequence(hint: Any) -> bool:
    """Whether a setting takes several words."""
    return any(typing.get_origin(kind) in (tuple, list) for kind in _alternatives(hint))


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
    if origin in (Union, types.UnionType):
        return " or ".join(map(describe, inner))
    if origin is dict:
        return "keys and values"
    if origin is list or (origin is tuple and inner[-1] is ...):
        return f"{EACH}{describe(inner[0])}"
    if origin is tuple:
        return f"a list of {len(inner)}: {', '.join(map(describe, inner))}"
    raise TypeError(f"settings of type {hint} cannot be read from files and flags")


def allowed(hint: Any) -> str:
    """What a type's Field says of its values: a description, or a number's range in words.

    >>> allowed(ShareBelowOne)
    '0 or more and less than 1'
    """
    if typing.get_origin(hint) in (Union, types.UnionType):
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
    """What pydantic's Field says of a type."""
    return [one for one in typing.get_args(hint)[1:] if hasattr(one, "description")]


class Refusal(NamedTuple):
    """A mistake: the setting or group of settings, and where, what was found and expected."""

    name: str
    line: str
    is_missing: bool = False


def refusals(
    error: ValidationError,
    hints: Mapping[str, Any],
    values: Mapping[str, Any],
    places: Mapping[str, str] = MappingProxyType({}),
) -> list[Refusal]:
    """The mistakes that pydantic found, one for each setting.

    `hints` are types by dotted name, `values` what was validated, `places` the files' lines and the
    flags that set them.
    """
    found: dict[tuple, Refusal] = {}
    for one in error.errors(include_url=False):
        path, kind = one["loc"], one["type"]
        names = [".".join(map(str, path[:end])) for end in range(len(path), 0, -1)]
        name = next((name for name in names if name in hints), names[0] if names else "")
        if kind == "value_error":  # of a dataclass's own checks, or of a type's
            for line in str(one["ctx"]["error"]).splitlines():
                is_named = name not in hints or line.startswith(name.rpartition(".")[2])
                number = f"number {path[-1] + 1}: " if path and isinstance(path[-1], int) else ""
                line = line if is_named else f"{name}: {number}{line}"
                found[name, line] = Refusal(name, _placed(line, name, places))
        elif kind == "unexpected_keyword_argument":
            found[name,] = Refusal(name, f"{name}: no such setting{nearest(name, hints)}")
        elif name not in values:
            line = f"--{name.replace('_', '-')}: required, expected {describe(hints[name])}"
            found[name,] = Refusal(name, line, is_missing=True)
        elif (name,) not in found or kind.startswith(RANGES):
            hint, value = hints[name], values[name]
            if describe(hint).startswith(EACH) and isinstance(path[-1], int):
                hint, value = element_types(hint, 1)[0], one["input"]
            found[name,] = Refusal(name, _refusal(kind, name, hint, value, places.get(name, "")))
    return list(found.values())


def _refusal(kind: str, name: str, hint: Any, value: Any, place: str) -> str:
    """The line for a value that pydantic refuses with an error of this kind."""
    is_flag = place.startswith("-")
    label = place if is_flag else f"{place}: {name}" if place else name
    if kind == "too_short":
        return f"{label}: nothing follows, expected {describe(hint)}"
    if kind.startswith(RANGES):
        before = "" if is_flag or not place else f"{place}: "
        return f"{before}{name}={value}, expected {allowed(hint)}"
    shown, hinted = repr(value), ""
    if isinstance(value, Word):
        kinds = [one for one in _alternatives(hint) if typing.get_origin(one) is Literal]
        choices = [str(choice) for one in kinds for choice in typing.get_args(one)]
        shown, hinted = repr(value.text), nearest(value.text, choices)
    elif isinstance(value, Mapping):
        shown = "keys and values"
    elif isinstance(value, list | tuple):
        shown = f"[{', '.join(str(getattr(part, 'text', part)) for part in value)}]"
    return f"{label}: found {shown}, expected {describe(hint)}{hinted}"


def _placed(line: str, group: str, places: Mapping[str, str]) -> str:
    """A refusal after the file and line of the setting that it begins with, alone or dotted."""
    name = re.match(r"[\w.]*", line)[0]  # type: ignore[index]
    place = places.get(name) or places.get(f"{group}.{name}") or places.get(group) or "-"
    return line if place.startswith("-") else f"{place}: {line}"
