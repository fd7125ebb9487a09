"""Settings dataclasses whose types say what a value may be, checked by pydantic; shared types."""

import dataclasses
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from audiotrain.config.refusals import raise_bug, refusals
from audiotrain.config.words import fit
from audiotrain.utils.errors import UserError

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
InnerShare = Annotated[float, Field(gt=0, lt=1)]
T = TypeVar("T")


@typing.overload
def validated(kind: type[T]) -> type[T]: ...
@typing.overload
def validated(*, kw_only: bool = ...) -> Callable[[type[T]], type[T]]: ...
@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def validated(kind=None, *, kw_only=False):
    """A frozen dataclass that refuses values which its types do not allow.

    ValueError lists all of them, one line each. TypeError for too many positional values.

    >>> @validated
    ... class Run:
    ...     steps: PositiveInt = 700
    >>> Run(steps=0)
    Traceback (most recent call last):
        ...
    audiotrain.UserError: steps=0, expected 1 or more
    """
    if kind is None:
        return lambda kind: validated(kind, kw_only=kw_only)
    options = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    made = pydantic_dataclass(config=options, frozen=True, kw_only=kw_only)(kind)
    check = made.__init__

    def __init__(self, *args, **kwargs):
        hints = typing.get_type_hints(made, include_extras=True)
        positional = [field.name for field in dataclasses.fields(made) if not field.kw_only]
        if len(args) > len(positional):
            expected = f"expected {len(positional) or 'none'}; the others by name"
            raise TypeError(f"{made.__name__}: {len(args)} positional values, {expected}")
        values = dict(zip(positional, args, strict=False))
        if twice := sorted(values.keys() & kwargs):
            raise TypeError(f"{made.__name__}: {twice[0]} is given by position and by name")
        values |= kwargs
        values = {k: fit(v, hints[k]) if k in hints else v for k, v in values.items()}
        try:
            check(self, **values)
        except ValidationError as error:
            lines = [line for _, line in refusals(error, hints, values)]
            raise UserError("\n".join(lines)) from None

    made.__init__ = __init__
    return made


def conform(value: Any, kind: Any, place: str) -> Any:
    """Return plain data, such as a file's, as a type that pydantic knows.

    UserError, one line that begins with `place`, where they are of another form.

    >>> conform({"folds": [["a"], ["b"]]}, dict[str, list[list[str]]], "folds.json")
    {'folds': [['a'], ['b']]}
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise_bug(error)
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        found = f"found {first['input']!r:.60}: {first['msg']}"
        raise UserError(f"{place}: {key}: {found}" if key else f"{place}: {found}") from None
