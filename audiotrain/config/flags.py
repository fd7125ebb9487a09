"""The words of a command line as settings: flags, their values, and words without a flag.

A flag of one setting takes one word; true and false need none (`--shuffle`, `--no-shuffle`), nor
does a setting that has a value for it (`Alone`). A flag
of a list takes the words up to the next flag, but where the command takes words without a flag, a
list of choices or numbers takes only those that are such. What follows `--` are words without
a flag.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from audiotrain.config.refusals import nothing_follows
from audiotrain.config.words import BOOLEANS, Word, alone, element_types, fit, is_sequence
from audiotrain.config.yaml_files import current_name
from audiotrain.utils.text import nearest


class Given(NamedTuple):
    """A setting with its value, and the flag as it was written; "" for words without a flag."""

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
    for name in (name for name, hint in hints.items() if hint is bool):
        outer, dot, last = name.rpartition(".")
        known[flag_of(f"{outer}{dot}no-{last}")] = name, False
    found: list[Given] = []
    bare: list[str] = []
    words = list(argv)
    while words:
        token = words.pop(0)
        if token == "--":
            bare, words = bare + words, []
            continue
        if not is_flag(token):
            bare.append(token)
            continue
        flag, equals, inline = token.partition("=")
        following = [] if equals else list(takewhile(lambda one: not is_flag(one), words))
        renamed = current_name(flag.lstrip("-").replace("-", "_"))
        name, is_on = known.get(flag.replace("_", "-"), (renamed, True))
        hint = hints.get(name)
        if hint is None:
            problems.append(f"{flag}: unknown flag{nearest(flag, known)}")
            words = words[len(following) :]
            continue
        taken = following[: _count(hint, following, positional)]
        words = words[len(taken) :]
        taken = [inline] if equals else taken
        if taken or hint is bool or is_sequence(hint):
            is_old = flag.replace("_", "-") not in known
            found.append(Given(name, flag, _value(hint, taken, is_on), is_old))
        elif (default := alone(hint)) is not None:
            found.append(Given(name, flag, default))
        else:
            problems.append(nothing_follows(flag, hint))
    if bare and positional is not None:
        count = len(bare) if is_sequence(hints[positional]) else 1
        value = _value(hints[positional], bare[:count], True)
        before = next((one.value for one in reversed(found) if one.name == positional), None)
        if isinstance(value, list) and isinstance(before, list):
            value = before + value
        found.append(Given(positional, "", value))
        bare = bare[count:]
    problems += [f"{word!r}: expected a flag (--name value) before it" for word in bare]
    return found


def _count(hint: Any, following: list[str], positional: str | None) -> int:
    """How many of the words that follow a flag are its value."""
    if hint is bool:
        return int(following[:1] != [] and following[0].lower() in BOOLEANS)
    if not is_sequence(hint):
        return 1
    counts = range(len(following), 0, -1)
    elements = next(filter(None, (element_types(hint, count) for count in counts)), None)
    if positional is None or elements is None:
        return len(elements or following)
    pairs = zip(map(Word, following), elements, strict=False)
    fitting = takewhile(lambda pair: not isinstance(fit(*pair), Word), pairs)
    return max(1, len(list(fitting)))


def _value(hint: Any, words: list[str], is_on: bool) -> Any:
    """The words of a flag as they are checked later."""
    if hint is bool:
        value = BOOLEANS.get(words[0].lower()) if words else True
        return Word(words[0]) if value is None else value == is_on
    is_list = is_sequence(hint) and fit(Word(" ".join(words)), hint) is not None
    return [Word(word) for word in words] if is_list else Word(words[0])
