"""Text of a file or a flag -> the value that a setting's type asks for, or what was expected.

Types: bool, int, float, str, Path, Literal, tuple, list and unions of these with None; and dicts of
plain data, whose parts are what they look like.
"""

import contextlib
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union

from audiotrain.utils.text import nearest

BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class Scalar(NamedTuple):
    """A value as it was written; `nulls` are the words for None there: YAML's or a shell's."""

    text: str
    quoted: bool = False
    nulls: tuple[str, ...] = ("None", "none", "null")


def convert(written: Any, kind: Any) -> Any:
    """`written` (Scalar, list of these or dict) read as `kind`; ValueError says found, expected."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(written, kind, inner)
    if origin in (tuple, list) and isinstance(written, list):
        if origin is list or inner[-1] is ...:
            return origin(convert(part, inner[0]) for part in written)
        if len(written) == len(inner):
            return tuple(convert(part, one) for part, one in zip(written, inner, strict=True))
    elif origin is dict and isinstance(written, dict):
        return plain(written)
    elif isinstance(written, Scalar):
        value = _convert_scalar(written, kind, origin, inner)
        if value is not None:
            return value
    raise ValueError(f"found {_shown(written)}, expected {describe(kind)}{_hint(written, kind)}")


def plain(written: Any) -> Any:
    """Plain data as it looks: null, true, numbers, text, lists and dicts of these.

    >>> plain({"rates": [Scalar("2e-5"), Scalar("none"), Scalar("5", quoted=True)]})
    {'rates': [2e-05, None, '5']}
    """
    if isinstance(written, dict):
        return {key: plain(part) for key, part in written.items()}
    if isinstance(written, list):
        return [plain(part) for part in written]
    return convert(written, bool | int | float | str | None)


def _convert_union(written: Any, kind: Any, inner: tuple) -> Any:
    literals = [one for one in inner if typing.get_origin(one) is Literal]
    others = [one for one in inner if one not in (*literals, str, Path, type(None))]
    texts = [one for one in inner if one in (str, Path)]
    for one in (*literals, type(None), *others, *texts):
        if one is type(None):
            is_scalar = isinstance(written, Scalar) and not written.quoted
            if one in inner and is_scalar and written.text in written.nulls:
                return None
            continue
        with contextlib.suppress(ValueError):
            return convert(written, one)
    raise ValueError(f"found {_shown(written)}, expected {describe(kind)}{_hint(written, kind)}")


def _convert_scalar(scalar: Scalar, kind: Any, origin: Any, inner: tuple) -> Any:
    """The value, or None when the text is not of this kind."""
    text = scalar.text
    if origin is Literal:
        return next((choice for choice in inner if str(choice) == text), None)
    if kind is str:
        return text
    if kind is Path:
        return Path(text) if text else None
    if scalar.quoted:
        return None
    if kind is bool:
        return BOOLEANS.get(text.lower())
    if kind is int:
        return int(text) if re.fullmatch(r"[+-]?\d+(_\d+)*", text) else None
    if kind is float:
        with contextlib.suppress(ValueError):
            return float(re.sub(r"^([+-]?)\.(inf|nan)$", r"\1\2", text.lower()))
    return None


def is_sequence(kind: Any) -> bool:
    parts = (kind, *typing.get_args(kind)) if type(None) in typing.get_args(kind) else (kind,)
    return any(typing.get_origin(part) in (tuple, list) for part in parts)


def describe(kind: Any) -> str:
    """What a setting of this type looks like, in words; TypeError when load cannot read it."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in KINDS:
        return KINDS[kind]
    if kind is Path:
        return "a path"
    if kind is type(None):
        return "null"
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}" if len(inner) > 1 else str(inner[0])
    if origin in (Union, types.UnionType):
        return " or ".join(describe(one) for one in inner)
    if origin is dict:
        return "keys and values"
    if origin is list or (origin is tuple and inner[-1] is ...):
        return f"a list, each {describe(inner[0])}"
    if origin is tuple:
        return f"a list of {len(inner)}: {', '.join(map(describe, inner))}"
    raise TypeError(f"settings of type {kind} cannot be read from files and flags")


def _shown(written: Any) -> str:
    if isinstance(written, list):
        return f"[{', '.join(part.text if isinstance(part, Scalar) else '…' for part in written)}]"
    return repr(written.text) if isinstance(written, Scalar) else "keys and values"


def _hint(written: Any, kind: Any) -> str:
    choices = [c for one in (kind, *typing.get_args(kind)) for c in _choices(one)]
    return nearest(written.text, choices) if isinstance(written, Scalar) else ""


def _choices(kind: Any) -> list[str]:
    return list(map(str, typing.get_args(kind))) if typing.get_origin(kind) is Literal else []
