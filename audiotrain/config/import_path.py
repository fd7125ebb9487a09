"""Classes and functions by import path, for settings that name one."""

from importlib import import_module
from inspect import signature
from typing import Any

from audiotrain.utils.errors import UserError
from audiotrain.utils.text import nearest


def imported(path: str, setting: str) -> Any:
    """What `package.module.Name` is; ValueError naming the setting when there is no such thing.

    >>> imported("mlx.optimizers.AdamW", "optimizer.type").__name__
    'AdamW'
    """
    place, _, name = path.rpartition(".")
    refusal = f"{setting} is {path!r}: no module {place!r}, expected package.module.Name"
    if not place or place.startswith("."):
        raise UserError(refusal)
    try:
        module = import_module(place)
    except ModuleNotFoundError as error:
        if not f"{place}.".startswith(f"{error.name}."):
            raise  # a library that this module imports
        raise UserError(refusal) from None
    try:
        return getattr(module, name)
    except AttributeError:
        hint = nearest(name, dir(module))
        raise UserError(f"{setting} is {path!r}: {place} has no {name!r}{hint}") from None


def called(function: Any, setting: str, *arguments: Any, **options: Any) -> Any:
    """The function's answer; ValueError naming the setting when it takes no such arguments.

    >>> called(takes, "model", print)
    Traceback (most recent call last):
        ...
    audiotrain.UserError: model: takes: missing a required argument: 'name', expected function, name
    """
    parameters = signature(function)
    try:
        parameters.bind(*arguments, **options)
    except TypeError as error:
        expected = ", ".join(parameters.parameters)
        raise UserError(f"{setting}: {function.__name__}: {error}, expected {expected}") from None
    return function(*arguments, **options)


def takes(function: Any, name: str) -> bool:
    """Whether a function has a parameter of this name.

    >>> takes(imported, "path")
    True
    """
    return name in signature(function).parameters
