"""YAML and JSON files of settings as Words that know their lines, with the files they include.

`include: other.yaml` (or a list) at the top of a file takes that file's settings first; `version`
says for which version of these files it was written. Both are read here and nowhere else.
"""

from pathlib import Path
from typing import Any, NamedTuple

from audiotrain.config.schema import Word
from audiotrain.utils.text import nearest

VERSION = 2  # of the files that config.save writes; a change that older readers misread raises it
RENAMED = {"hearing": "input", "features.spare": "features.margin"}
"""Dotted names of settings, or of groups of them, in files of version 1, and what they are now."""


class Document(NamedTuple):
    """What a file says: Words in dicts and lists, and the places of keys by dotted name."""

    keys: dict[str, Any]
    places: dict[str, str]
    is_old: bool
    """whether settings may have names of version 1 (`current_name`)"""


def documents(file: Path, problems: list[str], presets: Path | None = None) -> list[Document]:
    """A file after those that it includes; later ones go over earlier ones.

    Mistakes go to `problems`, one line each. What is included is relative to the file; a name
    without a suffix is one of `presets`.
    """
    return _documents(Path(file), str(file), (), problems, presets)


def current_name(name: str) -> str:
    """The dotted name that a setting of version 1 has now."""
    for old, new in RENAMED.items():
        if f"{name}.".startswith(f"{old}."):
            return new + name[len(old) :]
    return name


def _documents(file: Path, place: str, above: tuple[Path, ...], problems: list[str], presets):
    circle = [*above, file.resolve()]
    if file.resolve() in above:
        names = " -> ".join(path.name for path in circle[circle.index(file.resolve()) :])
        problems.append(f"{place}: include goes in a circle: {names}")
        return []
    root = _compose(file, place, problems)
    keys, places = {}, {}
    try:
        keys = {} if root is None else _convert(root, file, places, problems)
    except ValueError as error:
        problems.append(str(error))
    place = places.get("version", "")
    is_old = _check_version(keys.pop("version", Word("1")), place, problems) < 2
    found = []
    if included := keys.pop("include", None):
        place = places["include"]
        for path in _paths(included, place, file, problems, presets):
            found += _documents(path, place, tuple(circle), problems, presets)
    return [*found, Document(keys, places, is_old)]


def _compose(file: Path, place: str, problems: list[str]):
    """The mapping in a file, None when there is none."""
    import yaml

    try:
        text = file.read_text(encoding="utf-8-sig")
        # YAML contains JSON, but for tabs between the tokens.
        root = yaml.compose(text.expandtabs() if file.suffix == ".json" else text)
        if root is None or isinstance(root, yaml.MappingNode):
            return root
        problems.append(f"{file}:1: expected lines of `key: value`")
    except OSError as error:
        subject = str(file) if place == str(file) else f"{place}: include {file}"
        problems.append(f"{subject}: cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problems.append(f"{file}: not UTF-8 text (byte {error.start})")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problems.append(f"{file}:{line}: not valid YAML: {error.problem or error.context}")
    except yaml.YAMLError as error:
        problems.append(f"{file}: not valid YAML: {' '.join(str(error).split())}")
    return None


def _convert(
    node: Any,
    file: Path,
    places: dict[str, str],
    problems: list[str],
    group: str = "",
    above: tuple = (),
) -> Any:
    """A YAML node as a Word, a list of these, or a dict of them, with its keys' places."""
    import yaml

    line = f"{file}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode):
        # JSON writes a character beyond 16 bits as two halves, which YAML leaves apart.
        text = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return Word(text, node.style is not None, ("null", "Null", "NULL", "~", ""))
    if any(node is outer for outer in above):
        raise ValueError(f"{line}: an anchor's alias is inside it, so it has no end")
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        return [_convert(part, file, {}, problems, group, above) for part in node.value]
    keys: dict[str, Any] = {}
    for key, part in node.value:
        line = f"{file}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError(f"{line}: a list or dict as a key, expected text")
        name = f"{group}{key.value}"
        if key.value in keys:
            problems.append(f"{line}: key {name!r} is given twice")
        else:
            places[name] = line
            keys[key.value] = _convert(part, file, places, problems, f"{name}.", above)
    return keys


def _check_version(version: Any, place: str, problems: list[str]) -> int:
    """The version of a file, which may be newer than what is read here."""
    if not isinstance(version, Word) or not version.text.isdigit():
        problems.append(f"{place}: version: expected a whole number, {VERSION} is the newest")
        return VERSION
    if int(version.text) > VERSION:
        problems.append(
            f"{place}: version {version.text} is newer than {VERSION}, the newest that this "
            f"audiotrain reads: pip install -U audiotrain"
        )
    return int(version.text)


def _paths(
    included: Any, place: str, file: Path, problems: list[str], presets: Path | None
) -> list[Path]:
    """The files that a file includes."""
    paths: list[Path] = []
    for name in included if isinstance(included, list) else [included]:
        if not isinstance(name, Word) or not name.text:
            problems.append(f"{place}: include: expected a file's name, or a list of these")
        elif Path(name.text).suffix or presets is None:
            paths.append(file.parent / name.text)
        else:
            paths += preset_file(name.text, presets, f"{place}: include", problems)
    return paths


def preset_names(presets: Path) -> list[str]:
    """Names of the presets in a folder."""
    return sorted(file.stem for file in Path(presets).glob("*.yaml"))


def preset_file(name: str, presets: Path, place: str, problems: list[str]) -> list[Path]:
    """The file of a preset; none, and a problem, where there is no such preset."""
    known = preset_names(presets)
    if name in known:
        return [Path(presets) / f"{name}.yaml"]
    problems.append(f"{place}: {no_preset(name, known)}")
    return []


def no_preset(name: str, known: list[str]) -> str:
    """A preset that does not exist, and those that do."""
    return f"no preset {name!r}{nearest(name, known)}, expected one of {', '.join(known)}"
