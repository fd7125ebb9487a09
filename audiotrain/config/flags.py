"""The words of a command line as settings: flags, their values, and words without a flag.

A flag of one setting takes one word; true and false need none (`--shuffle`, `--no-shuffle`). A flag
of a list takes the words up to the next flag, but where the command takes words without a flag, a
list of choices or numbers takes only those that are such. What follows `--` are words without
a flag.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from audiotrain.config.schema import BOOLEANS, Word, describe, element_types, fit, is_sequence
from audiotrain.config.yaml_files import current_name
from audiotrain.utils.text import nearest


class Given(NamedTuple):
    """The value of a setting, and the flag as it was written; "" for words without a flag."""

    name: str
    flag: str
    value: Any
    is_old: bool = False


def flag_of(name: str) -> str:
    """The flag of a setting.

    >>> flag_of("optimizer.learning_rate")
    '--optimizer.learning-rate'
    """
    return "--" + name.replace("_", "-")


def is_flag(word: str) -> bool:
    """Whether a word is a flag, and no negative number."""
    return len(word) > 1 and word[0] == "-" and not re.match(r"-(\d|\.\d|inf)", word)


def parse(
    argv: Sequence[str], hints: Mapping[str, Any], positional: str | None, problems: list[str]
) -> list[Given]:
    """The settings that a command line names, in its order; mistakes go to `problems`.

    `hints` are types by dotted name; `positional` the setting that takes words without a flag.
    """
    known = {flag_of(name): (name, True) for name in hints}
    for name, hint in hints.items():
        outer, dot, last = name.rpartition(".")
        if hint is bool:
            known[flag_of(f"{outer}{dot}no-{last}")] = name, False
    found: list[Given] = []
    bare: list[str] = []
    words = list(argv)
    while words:
        token = words.pop(0)
        if token == "--":
            bare += words
            break
        if not is_flag(token):
            bare.append(token)
            continue
        flag, equals, inline = token.partition("=")
        following = list(takewhile(lambda one: not is_flag(one), words))
        is_old = flag.replace("_", "-") not in known
        name, is_on = (_renamed(flag), True) if is_old else known[flag.replace("_", "-")]
        if name not in hints:
            problems.append(f"{flag}: unknown flag{nearest(flag, known)}")
            words = words[0 if equals else len(following) :]
            continue
        taken = following[: 0 if equals else _count(hints[name], following, positional)]
        words = words[len(taken) :]
        taken = [inline] if equals else taken
        if taken or hints[name] is bool or is_sequence(hints[name]):
            found.append(Given(name, flag, _value(hints[name], taken, is_on), is_old))
        else:
            problems.append(f"{flag}: nothing follows, expected {describe(hints[name])}")
    if bare and positional is not None:
        before = [one.value for one in found if one.name == positional and one.value]
        count = len(bare) if is_sequence(hints[positional]) else 1
        taken, bare = bare[:count], bare[count:]
        value = _value(hints[positional], taken, True)
        both = isinstance(value, list) and before and isinstance(before[-1], list)
        found.append(Given(positional, "", before[-1] + value if both else value))
    problems += [f"{word!r}: expected a flag (--name value) before it" for word in bare]
    return found


def _renamed(flag: str) -> str:
    """The setting that has another name since version 1."""
    return current_name(flag.lstrip("-").replace("-", "_"))


def _count(hint: Any, following: list[str], positional: str | None) -> int:
    """How many of the words that follow a flag are its own."""
    if not is_sequence(hint):
        return 1 if hint is not bool or following and following[0].lower() in BOOLEANS else 0
    counts = range(len(following), 0, -1)
    elements = next(filter(None, (element_types(hint, count) for count in counts)), None)
    if positional is None or elements is None:
        return len(elements or following)
    fitting = takewhile(
        lambda pair: not isinstance(fit(Word(pair[0]), pair[1]), Word),
        zip(following, elements, strict=False),
    )
    return max(1, len(list(fitting)))


def _value(hint: Any, words: list[str], is_on: bool) -> Any:
    """The words of a flag as they are checked later."""
    if hint is bool:
        value = BOOLEANS.get(words[0].lower()) if words else True
        return Word(words[0]) if value is None else value == is_on
    if is_sequence(hint) and not isinstance(fit(Word(" ".join(words)), hint), type(None)):
        return [Word(word) for word in words]
    return Word(words[0])
