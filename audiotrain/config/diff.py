"""Nested settings as flat rows, and the differences of two."""

from collections.abc import Iterable, Mapping
from typing import Any

from audiotrain.utils.errors import UserError

ABSENT = "-"


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple]:
    """Dotted name -> both values, for settings that differ; "-" where one has no such setting.

    >>> differences({"seed": 1, "rate": 0.5}, {"seed": 2, "rate": 0.5, "width": 8})
    {'seed': (1, 2), 'width': ('-', 8)}
    """
    names = dict.fromkeys([*first, *second])
    pairs = {name: (first.get(name, ABSENT), second.get(name, ABSENT)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def refused_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], changeable: Iterable[str]
) -> list[str]:
    """A line for each setting of a resumed run that differs and may not; nested settings in, and
    `changeable` are dotted names of settings or of groups.

    >>> refused_changes({"a": {"b": 1}, "c": 1}, {"a": {"b": 2, "d": 3}, "c": 2}, ["c"])
    ['a.b is 2, expected 1 as in the run', 'a.d is 3, expected nothing as in the run']
    """
    allowed = tuple(f"{name}." for name in changeable)
    lines = []
    for name, pair in differences(flat(before), flat(now)).items():
        if not f"{name}.".startswith(allowed):
            expected, found = ("nothing" if one is ABSENT else one for one in pair)
            lines.append(f"{name} is {found}, expected {expected} as in the run")
    return lines


def flat(config: Mapping, prefix: str = "", deepest: int | None = None) -> dict[str, Any]:
    """Nested settings under dotted names; lists are values. ValueError for more than `deepest`
    levels.

    >>> flat({"model": {"width": 2}, "seed": 1})
    {'model.width': 2, 'seed': 1}
    """
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if not isinstance(value, Mapping):
            leaves[name] = value
        elif deepest is not None and name.count(".") >= deepest:
            raise UserError(f"{name[:60]}… is nested more than {deepest} deep")
        else:
            leaves |= flat(value, f"{name}.", deepest)
    return leaves
