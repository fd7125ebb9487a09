"""YAML and JSON files of settings as nodes that know their lines, with the files they include.

`include: other.yaml` (or a list) at the top of a file takes that file's settings first; `version`
says for which version of these files it was written. Both are read here and nowhere else.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiotrain.config.coerce import Scalar
from audiotrain.utils.text import nearest

VERSION = 1  # of the files that config.save writes; a change that older readers misread raises it


def documents(
    file: Path, problems: list[str], presets: Path | None = None
) -> list[tuple[Path, dict[str, tuple[int, Any]]]]:
    """(file, its top-level keys with line and node) of a file and of what it includes, those that
    go over the others later. Mistakes go to `problems`, one line each.

    What is included is relative to the file; a name without a suffix is one of `presets`.
    """
    return _included(Path(file), str(file), (), problems, presets)


def _included(file: Path, place: str, above: tuple[Path, ...], problems: list[str], presets):
    circle = [*above, file.resolve()]
    if file.resolve() in above:
        names = " -> ".join(path.name for path in circle[circle.index(file.resolve()) :])
        problems.append(f"{place}: include goes in a circle: {names}")
        return []
    root = _compose(file, place, problems)
    if root is None:
        return []
    found, keys = [], {}
    for key, node in root.value:
        line = key.start_mark.line + 1
        if key.value in keys:
            problems.append(f"{file}:{line}: key {key.value!r} is given twice")
            continue
        if key.value == "version":
            _check_version(node, f"{file}:{line}", problems)
        elif key.value == "include":
            for path in _paths(node, f"{file}:{line}", file, problems, presets):
                found += _included(path, f"{file}:{line}", tuple(circle), problems, presets)
        keys[key.value] = line, node
    own = {name: place for name, place in keys.items() if name not in ("version", "include")}
    return [*found, (file, own)]


def _compose(file: Path, place: str, problems: list[str]):
    """The mapping in a file, None when there is none."""
    import yaml

    try:
        text = file.read_text(encoding="utf-8-sig")
        # YAML contains JSON, but for tabs between the tokens.
        root = yaml.compose(text.expandtabs() if file.suffix == ".json" else text)
    except OSError as error:
        told = str(file) if place == str(file) else f"{place}: include {file}"
        problems.append(f"{told}: cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problems.append(f"{file}: not UTF-8 text (byte {error.start})")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problems.append(f"{file}:{line}: not valid YAML: {error.problem or error.context}")
    except yaml.YAMLError as error:
        problems.append(f"{file}: not valid YAML: {' '.join(str(error).split())}")
    else:
        if root is None:
            return None
        if isinstance(root, yaml.MappingNode):
            odd = [f"{file}:{line}: {told}" for line, told in _odd_nodes(root)]
        else:
            odd = [f"{file}:1: expected lines of `key: value`"]
        problems += odd
        return None if odd else root
    return None


def _odd_nodes(node, above: tuple = ()) -> list[tuple[int, str]]:
    """Line and words for each key that is no text, and each alias of what it is in."""
    import yaml

    if any(node is outer for outer in above):
        return [(node.start_mark.line + 1, "an anchor's alias is inside it, so it has no end")]
    found, parts = [], []
    if isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif isinstance(node, yaml.MappingNode):
        keys = [key for key, _ in node.value if not isinstance(key, yaml.ScalarNode)]
        found = [
            (key.start_mark.line + 1, "a list or dict as a key, expected text") for key in keys
        ]
        parts = [part for _, part in node.value]
    return found + [one for part in parts for one in _odd_nodes(part, (*above, node))]


def _check_version(node, place: str, problems: list[str]) -> None:
    found = written(node)
    if not isinstance(found, Scalar) or not found.text.isdigit():
        problems.append(f"{place}: version: expected a whole number, {VERSION} is the newest")
    elif int(found.text) > VERSION:
        problems.append(
            f"{place}: version {found.text} is newer than {VERSION}, the newest that this "
            f"audiotrain reads: pip install -U audiotrain"
        )


def _paths(node, place: str, file: Path, problems: list[str], presets: Path | None) -> list[Path]:
    found = written(node)
    names = found if isinstance(found, list) else [found]
    paths = []
    for name in names:
        if not isinstance(name, Scalar) or not name.text:
            problems.append(f"{place}: include: expected a file's name, or a list of these")
        elif Path(name.text).suffix or presets is None:
            paths.append(file.parent / name.text)
        elif name.text in (known := preset_names(presets)):
            paths.append(Path(presets) / f"{name.text}.yaml")
        else:
            problems.append(f"{place}: include: {no_preset(name.text, known)}")
    return paths


def preset_names(presets: Path) -> list[str]:
    """Names of the presets in a folder."""
    return sorted(file.stem for file in Path(presets).glob("*.yaml"))


def no_preset(name: str, known: list[str]) -> str:
    """What is told of a preset that does not exist."""
    return f"no preset {name!r}{nearest(name, known)}, expected one of {', '.join(known)}"


def written(node: Any) -> Any:
    """A YAML node as a Scalar, a list of these, or a dict of them."""
    import yaml

    if isinstance(node, yaml.ScalarNode):
        # JSON writes a character beyond 16 bits as two halves, which YAML leaves apart.
        text = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return Scalar(text, node.style is not None, ("null", "Null", "NULL", "~", ""))
    if isinstance(node, yaml.SequenceNode):
        return [written(part) for part in node.value]
    return {key.value: written(value) for key, value in node.value}


def as_written(value: Any) -> Any:
    """A Python value as a file would have it; ValueError for objects that no file holds.

    >>> as_written({"rate": 0.5})
    {'rate': Scalar(text='0.5', quoted=False, nulls=('None', 'none', 'null'))}
    """
    if value is None or isinstance(value, bool):
        return Scalar("null" if value is None else str(value).lower())
    if isinstance(value, str | Path):
        return Scalar(str(value), quoted=True)
    if isinstance(value, Mapping):
        return {str(key): as_written(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_written(part) for part in value]
    if hasattr(value, "__float__"):
        return Scalar(str(value))
    raise ValueError(f"found {value!r:.60}, expected a number, text, a list or a dict")
