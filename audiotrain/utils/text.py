"""Words and numbers for messages."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any


def count(number: int, one: str, many: str | None = None) -> str:
    """Text such as "1 song", "2 songs"; nothing for 0."""
    return f"{number} {one if number == 1 else many or one + 's'}" if number else ""


def of_total(number: int, total: int, many: str) -> str:
    """Return text such as "1 of 2 songs", "1 of 1 song".

    >>> of_total(1, 1, "test songs"), of_total(0, 3, "clips")
    ('1 of 1 test song', '0 of 3 clips')
    """
    return f"{number} of {total} {many.removesuffix('s') if total == 1 else many}"


def _unit(seconds: float) -> tuple[float, str]:
    """Seconds in a unit that suits this duration, and its name."""
    return (1.0, "s") if seconds < 120 else (60.0, "min") if seconds < 7200 else (3600.0, "h")


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    size, unit = _unit(seconds)
    return f"{seconds / size:.1f} {unit}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """The first `most` names, and how many more there are.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + more


def shown(text: str, most: int = 200) -> str:
    """At most so many characters of a text, those that are not printed on one line escaped.

    >>> shown("a\\tb" * 3, 5)
    'a\\\\tba\\\\t'
    """
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text[:most]
    )


def nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """`, did you mean …?` with the known name most like `name`, the last part of it counting."""
    last = {one: one.rpartition(".")[2].removeprefix("--") for one in known}
    wanted = name.rpartition(".")[2].removeprefix("--")
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    if not near:
        ends = difflib.get_close_matches(wanted, list(last.values()), n=1, cutoff=0.7)
        near = [one for one in known if last[one] in ends]
    return f" (did you mean {near[0]}?)" if near else ""


def clock(seconds: float) -> str:
    """Minutes and seconds, hours when there are any.

    >>> clock(61.5), clock(3661)
    ('1:01.5', '1:01:01')
    """
    tenths = round(seconds * 10)
    hours, minutes, rest = tenths // 36000, tenths // 600 % 60, tenths % 600
    tail = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"
