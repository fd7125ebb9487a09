"""Words of files and command lines, and values of Python, as the types of settings.

What a word is depends on the type of its setting: `2e-5` is a number everywhere, and `2024` is text
where text or a path is wanted.
"""

import contextlib
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union

BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Word:
    """A value as it was written; `nulls` are the words for None there: YAML's or a shell's."""

    text: str
    quoted: bool = False
    nulls: tuple[str, ...] = ("None", "none", "null")


@dataclass(frozen=True)
class Alone:
    """In the annotation of a type: the value of a setting whose flag no word follows."""

    text: str


def alone(hint: Any) -> Word | None:
    """The value that a type has where no word follows the flag; None where one is needed."""
    marks = (mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Alone))
    return next((Word(mark.text) for mark in marks), None)


def fit(value: Any, hint: Any) -> Any:
    """`value` (a Word, a list or dict of these, or Python's) as a type asks for it; what does not
    fit stays a Word, which pydantic refuses."""
    if isinstance(value, Mapping):
        is_dict = any(typing.get_origin(kind) is dict for kind in alternatives(hint))
        return plain(value) if is_dict else value
    if isinstance(value, list | tuple):
        elements = element_types(hint, len(value))
        return value if elements is None else tuple(map(fit, value, elements))
    if isinstance(value, str | Path):
        value = Word(str(value), quoted=True)
    elif hasattr(value, "__float__"):
        value = Word(str(value).lower())
    return _read(value, alternatives(hint)) if isinstance(value, Word) else value


def plain(value: Any) -> Any:
    """Words as what they look like: null, true, numbers, text, and lists and dicts of these.

    >>> plain({"rates": [Word("2e-5"), Word("none"), Word("5", quoted=True)]})
    {'rates': [2e-05, None, '5']}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return fit(value, bool | int | float | str | None) if isinstance(value, Word) else value


def _read(word: Word, kinds: list) -> Any:
    """The value that a word has as one of these types, or the word where it has none."""
    text = word.text
    literals = [kind for kind in kinds if typing.get_origin(kind) is Literal]
    for choice in (choice for kind in literals for choice in typing.get_args(kind)):
        if str(choice) == text:
            return choice
    if not word.quoted:
        if NoneType in kinds and text in word.nulls:
            return None
        if bool in kinds and text.lower() in BOOLEANS:
            return BOOLEANS[text.lower()]
        if int in kinds and len(text) < 4000 and re.fullmatch(r"[+-]?\d+(_\d+)*", text):
            return int(text)
        if float in kinds:
            with contextlib.suppress(ValueError):
                return float(re.sub(r"^([+-]?)\.(inf|nan)$", r"\1\2", text.lower()))
    if Path in kinds and text:
        return Path(text)
    return text if str in kinds else word


def alternatives(hint: Any) -> list:
    """The types of a union, however nested, without their annotations."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return alternatives(inner[0])
    if origin in (Union, UnionType):
        return [kind for part in inner for kind in alternatives(part)]
    return [hint]


def element_types(hint: Any, count: int) -> list | None:
    """The types of a sequence's elements; None where the type has no sequence of `count`."""
    for kind in alternatives(hint):
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if origin is list or (origin is tuple and inner[-1] is ...):
            return [inner[0]] * count
        if origin is tuple and len(inner) == count:
            return list(inner)
    return None


def is_sequence(hint: Any) -> bool:
    """Whether a setting takes several words."""
    return any(typing.get_origin(kind) in (tuple, list) for kind in alternatives(hint))
